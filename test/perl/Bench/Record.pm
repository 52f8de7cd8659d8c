#
# Bench::Record: the records of benchmarks, in memory and as CSV.
#
# A file holds, first, lines "# name: value" that say where and when it was
# measured, then the names of the columns, then a line for each case.
#
package Bench::Record;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use List::Util qw(max min);

our @EXPORT_OK = qw(
  median percentile write_header write_record read_records shorten @COLUMNS);

our @COLUMNS = qw(
  benchmark case unit ours ours_min ours_max counterpart theirs theirs_min theirs_max
  ratio target met runs);

my %REACHED = (
	'>=' => sub { $_[0] >= $_[1] },
	'<=' => sub { $_[0] <= $_[1] },
	'<' => sub { $_[0] < $_[1] });

# percentile(fraction, values)
sub percentile
{
	my ($fraction, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;

	croak 'no values' unless @sorted;
	return $sorted[ min($#sorted, int($fraction * @sorted)) ];
}

sub median
{
	my (@values) = @_;
	my @sorted = sort { $a <=> $b } @values;

	croak 'no values' unless @sorted;
	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

# A number as people want it: four digits that count, and no exponent.
sub shorten
{
	my ($number) = @_;

	return '0' if $number == 0;
	return sprintf '%.0f', $number if abs($number) >= 1000;
	my $text = sprintf '%.4g', $number;

	$text = sprintf '%.6f', $number if $text =~ /e/;
	return $text;
}

# Does the target hold, of the ratio or of our own value?
sub _is_met
{
	my ($target, $ours, $ratio) = @_;
	my ($of_ratio, $operator, $limit) =
	  $target =~ /^(ratio )?(>=|<=|<) (\d+(?:\.\d+)?)$/
	  or croak "not a target: $target";
	my $value = $of_ratio ? $ratio : $ours;

	croak "target $target without a counterpart" unless length $value;
	return $REACHED{$operator}->($value, $limit) ? 'yes' : 'no';
}

# Of runs in turns the ratio is that of each pair, for what disturbed one of
# the pair has likely disturbed the other.
sub _ratio
{
	my ($ours, $theirs) = @_;

	return '' if grep { $_ == 0 } @$theirs;
	return median(map { $ours->[$_] / $theirs->[$_] } 0 .. $#$ours) if @$ours == @$theirs;
	return median(@$ours) / median(@$theirs);
}

sub _quote
{
	my ($text) = @_;

	return $text unless $text =~ /[",\n]/;
	return '"' . $text =~ s/"/""/gr . '"';
}

sub _append
{
	my ($file, $text) = @_;

	open my $out, '>>:encoding(UTF-8)', $file or croak "$file: $!";
	print $out $text;
	close $out or croak "$file: $!";
	return;
}

# write_header(file, [name => value], ...)
sub write_header
{
	my ($file, @facts) = @_;

	_append($file, join '', (map { "# $_->[0]: $_->[1]\n" } @facts), join(',', @COLUMNS), "\n");
	return;
}

# write_record(file, column => value, ...): returns the record as a line to show.
sub write_record
{
	my ($file, %given) = @_;
	my %record = map { $_ => '' } @COLUMNS;
	my ($ours, $theirs) = map { ref ? $_ : defined ? [$_] : [] } delete @given{qw(ours theirs)};

	croak "no $_" foreach grep { !length($given{$_} // '') } qw(benchmark case unit);
	croak "$given{case}: no value" unless @$ours;
	croak "$given{case}: theirs and counterpart belong together"
	  if !@$theirs != !length($given{counterpart} // '');
	foreach my $column (keys %given)
	{
		croak "no such column: $column" unless exists $record{$column};
		$record{$column} = $given{$column} // '';
	}
	@record{qw(ours ours_min ours_max runs)} =
	  ((map { shorten($_) } median(@$ours), min(@$ours), max(@$ours)), scalar @$ours);
	if (@$theirs)
	{
		@record{qw(theirs theirs_min theirs_max)} =
		  map { shorten($_) } median(@$theirs), min(@$theirs), max(@$theirs);
		$record{ratio} = _ratio($ours, $theirs);
	}
	$record{met} = _is_met($record{target}, median(@$ours), $record{ratio})
	  if length $record{target};
	$record{ratio} = sprintf '%.3f', $record{ratio} if length $record{ratio};

	_append($file, join(',', map { _quote($record{$_}) } @COLUMNS) . "\n");
	return _as_line(%record);
}

sub _as_line
{
	my (%record) = @_;
	my $line = "$record{benchmark}: $record{case}: $record{ours} $record{unit}";

	$line .= " against $record{theirs} of $record{counterpart}" if length $record{theirs};
	$line .= ", ratio $record{ratio}" if length $record{ratio};
	$line .= ", target $record{target}: " . ($record{met} eq 'yes' ? 'met' : 'MISSED')
	  if length $record{target};
	return $line;
}

# read_records(file): the facts as [name, value], and the records as hashes.
sub read_records
{
	my ($file) = @_;
	my (@facts, @records);

	open my $in, '<:encoding(UTF-8)', $file or croak "$file: $!";
	while (my $line = <$in>)
	{
		chomp $line;
		if ($line =~ /^# ([^:]+): (.*)/)
		{
			push @facts, [ $1, $2 ];
			next;
		}
		my @values;

		push @values, defined $1 ? $1 =~ s/""/"/gr : $2
		  while $line =~ /\G(?:"((?:[^"]|"")*)"|([^,]*))(?:,|$)/g && @values < @COLUMNS;
		next if $values[0] eq $COLUMNS[0];
		my %record;

		@record{@COLUMNS} = @values;
		push @records, \%record;
	}
	close $in;
	return (\@facts, \@records);
}

1;
