#
# Bench::Chart: bar charts as SVG.
#
# A chart is a list of groups, each with a label and bars: {name, value, min,
# max, text}.  Bars of the same name have the same colour in all groups; the
# first name is ours.  Whiskers go from min to max where they differ.
#
package Bench::Chart;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use List::Util qw(any max uniq);

our @EXPORT_OK = qw(write_chart);

my $LETTER = 6.2;				# width of one, about
my $BARS = 400;					# width of the longest bar
my $RIGHT = 110;				# room for the figures
my $TOP = 64;
my $BAR = 15;
my $GAP = 12;					# between groups
my @COLOURS = ('#1f6f8b', '#b8b8b8', '#d9a441', '#8f9e6f', '#a5697d', '#6d6d8f', '#c5c5a0');

sub _escape
{
	my ($text) = @_;
	my %entity = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');

	return $text =~ s/([&<>"])/$entity{$1}/gr;
}

sub _text
{
	my ($x, $y, $text, $more) = @_;

	return sprintf qq(<text x="%.1f" y="%.1f"%s>%s</text>\n), $x, $y, $more // '', _escape($text);
}

sub _rectangle
{
	my ($x, $y, $width, $height, $fill) = @_;

	return sprintf qq(<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>\n),
	  $x, $y, $width, $height, $fill;
}

sub _line
{
	my ($x1, $y1, $x2, $y2, $style) = @_;

	return sprintf qq(<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>\n),
	  $x1, $y1, $x2, $y2, $style;
}

sub _bar
{
	my ($x, $y, $bar, $scale, $colour) = @_;
	my $middle = $y + $BAR / 2 - 1;
	my $end = $x + max($bar->{value}, $bar->{max}) * $scale;
	my $svg = _rectangle($x, $y, max(1, $bar->{value} * $scale), $BAR - 2, $colour);

	$svg .= _line($x + $bar->{min} * $scale, $middle, $x + $bar->{max} * $scale, $middle,
		'stroke="#333333" stroke-width="1"')
	  if $bar->{max} > $bar->{min};
	return $svg . _text($end + 5, $middle + 4, $bar->{text});
}

# The names of the bars and their colours, in a line below the title.
sub _legend
{
	my ($names, $colour) = @_;
	my ($x, $svg) = (16, '');

	foreach my $name (@$names)
	{
		$svg .= _rectangle($x, 36, 10, 10, $colour->{$name}) . _text($x + 15, 45, $name);
		$x += 35 + $LETTER * length $name;
	}
	return $svg;
}

# write_chart(file, title => ..., groups => [{label, bars => [...]}], line =>
# [value, text]): the line marks a value on the scale.
sub write_chart
{
	my ($file, %chart) = @_;
	my @groups = @{ $chart{groups} };
	my @names = uniq map { $_->{name} } map { @{ $_->{bars} } } @groups;
	my @values = map { max($_->{value}, $_->{max}) } map { @{ $_->{bars} } } @groups;
	my $most = max(@values, $chart{line} ? $chart{line}[0] : 0) || 1;
	my $scale = $BARS / $most;
	my $left = 24 + $LETTER * max(map { length $_->{label} } @groups);
	my $legend = any { length } @names;
	my $width = max($left + $BARS + $RIGHT,
		$legend ? 35 * @names + $LETTER * length join '', @names : 0);
	my ($y, $body, %colour) = ($TOP, '');

	@colour{@names} = map { $COLOURS[ $_ % @COLOURS ] } 0 .. $#names;
	foreach my $group (@groups)
	{
		my @bars = @{ $group->{bars} };

		$body .= _text($left - 8, $y + @bars * $BAR / 2 + 3, $group->{label},
			' text-anchor="end"');
		foreach my $bar (@bars)
		{
			$body .= _bar($left, $y, $bar, $scale, $colour{ $bar->{name} });
			$y += $BAR;
		}
		$y += $GAP;
	}
	$body .= _line($left, $TOP - 6, $left, $y - $GAP + 4, 'stroke="#333333" stroke-width="1"');
	if ($chart{line})
	{
		my $x = $left + $chart{line}[0] * $scale;

		$body .= _line($x, $TOP - 6, $x, $y - $GAP + 4,
			'stroke="#b03030" stroke-width="1.5" stroke-dasharray="4 3"')
		  . _text($x + 4, $TOP - 8, $chart{line}[1], ' fill="#b03030"');
	}

	open my $out, '>:encoding(UTF-8)', $file or croak "$file: $!";
	print $out qq(<svg xmlns="http://www.w3.org/2000/svg" width="$width" height="$y"),
	  qq( viewBox="0 0 $width $y" font-family="sans-serif" font-size="11.5" fill="#222222">\n),
	  _rectangle(0, 0, $width, $y, '#ffffff'),
	  _text(16, 22, $chart{title}, ' font-size="15" font-weight="bold"'),
	  $legend ? _legend(\@names, \%colour) : '', $body, "</svg>\n";
	close $out or croak "$file: $!";
	return;
}

1;
