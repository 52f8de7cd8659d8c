#
# Bench::Report: what the records of a directory say, for people.
#
# table.md has a table of all records, with what they were measured on; a chart
# for each benchmark and unit shows ours beside the counterparts;
# targets.svg shows how far each target was reached.
#
package Bench::Report;

use strict;
use warnings;

use Bench::Chart qw(write_chart);
use Bench::Record qw(read_records shorten);
use Carp;
use Exporter 'import';
use File::Basename qw(basename);
use List::Util qw(uniq);

our @EXPORT_OK = qw(write_report);

# What is told of each benchmark; the rest when it changes.
my $OF_ONE = qr/^(?:date|command|load before)$/;

# Counterparts that have a column each.
my $MANY = 4;

# A value, and in which range it was.
sub _range
{
	my ($value, $min, $max) = @_;

	return $value if $min eq $max;
	return "$value ($min - $max)";
}

sub _cell
{
	my ($text) = @_;

	return $text =~ s/\|/\\|/gr;
}

# Many counterparts of the same cases: a column for each; medians only.
sub _wide_table
{
	my (@records) = @_;
	my @counterparts = uniq map { $_->{counterpart} } @records;
	my (@rows, %row_of);
	my $table = '';

	foreach my $record (@records)
	{
		my $row = $row_of{ $record->{case} };

		unless ($row)
		{
			$row = $row_of{ $record->{case} } = { cells => [ @$record{qw(case unit ours)} ] };
			push @rows, $row;
		}
		$row->{theirs}{ $record->{counterpart} } = $record->{theirs};
	}
	$table .= '| ' . join(' | ', map { _cell($_) } @$_) . " |\n"
	  foreach [ qw(case unit dispatch), @counterparts ],
	  [ '---', '---', '---:', map { '---:' } @counterparts ],
	  map { [ @{ $_->{cells} }, map { $_ // '' } @{ $_->{theirs} }{@counterparts} ] } @rows;
	return $table;
}

sub _table
{
	my (@records) = @_;

	return _wide_table(@records)
	  if !(grep { length $_->{target} } @records)
	  && $MANY <= uniq map { $_->{counterpart} } @records;

	my $table = "| case | unit | ours | counterpart | theirs | ratio | target | met |\n"
	  . "| --- | --- | ---: | --- | ---: | ---: | --- | --- |\n";

	foreach my $record (@records)
	{
		my $theirs = length $record->{theirs}
		  ? _range(@$record{qw(theirs theirs_min theirs_max)})
		  : '';
		my @cells = (
			@$record{qw(case unit)}, _range(@$record{qw(ours ours_min ours_max)}),
			$record->{counterpart}, $theirs, @$record{qw(ratio target met)});

		$table .= '| ' . join(' | ', map { _cell($_) } @cells) . " |\n";
	}
	return $table;
}

# Records of the same case follow each other as one group: ours once.
sub _groups
{
	my (@records) = @_;
	my (@groups, %group_of);

	foreach my $record (@records)
	{
		my $group = $group_of{ $record->{case} };

		unless ($group)
		{
			$group = $group_of{ $record->{case} } = {
				label => $record->{case},
				bars => [
					{
						name => 'dispatch', value => $record->{ours},
						min => $record->{ours_min}, max => $record->{ours_max},
						text => $record->{ours} } ] };
			push @groups, $group;
		}
		push @{ $group->{bars} },
		  {
			name => $record->{counterpart}, value => $record->{theirs},
			min => $record->{theirs_min}, max => $record->{theirs_max},
			text => $record->{theirs} }
		  if length $record->{theirs};
	}
	return \@groups;
}

# A chart for each unit of a benchmark, of what has a counterpart.
sub _charts
{
	my ($directory, $benchmark, @records) = @_;
	my @compared = grep { length $_->{counterpart} } @records;

	foreach my $unit (uniq map { $_->{unit} } @compared)
	{
		my $slug = lc $unit =~ s{/}{ per }gr =~ s/[^A-Za-z0-9]+/-/gr;

		write_chart("$directory/$benchmark-$slug.svg",
			title => "$benchmark, $unit",
			groups => _groups(grep { $_->{unit} eq $unit } @compared));
	}
	return;
}

# How much of its target a record has reached: 1 is just that.
sub _target_bar
{
	my ($record) = @_;
	my ($of_ratio, $operator, $limit) = $record->{target} =~ /^(ratio )?(\S+) (.*)/;
	my $value = $of_ratio ? $record->{ratio} : $record->{ours};
	my $reached = $operator eq '>=' ? $value / $limit : $value > 0 ? $limit / $value : 2;

	# A tenth of what was allowed must not make all others small.
	$reached = 2 if $reached > 2;
	return {
		name => '', value => $reached, min => $reached, max => $reached,
		text => shorten($value) . " ($operator " . ($limit + 0) . ')' };
}

sub _target_chart
{
	my ($directory, @records) = @_;

	return unless @records;
	write_chart("$directory/targets.svg",
		title => 'Targets: what was reached of each',
		line => [ 1, 'target' ],
		groups => [
			map { { label => "$_->{benchmark}: $_->{case}", bars => [ _target_bar($_) ] } }
			  @records ]);
	return;
}

# write_report(directory): from all the .csv there; returns the text of the table.
sub write_report
{
	my ($directory) = @_;
	my (@all, $shown);
	my $text = "<!-- made by `make bench` from the .csv beside it -->\n";

	$shown = '';
	foreach my $file (sort glob "$directory/*.csv")
	{
		my ($facts, $records) = read_records($file);
		my $benchmark = basename($file, '.csv');
		my $where = join '', map { "- $_->[0]: $_->[1]\n" } grep { $_->[0] !~ $OF_ONE } @$facts;

		next unless @$records;
		$text .= "\n$where" if $where ne $shown;
		$shown = $where;
		$text .= "\n### $benchmark\n\n" . _table(@$records);
		$text .= "\n" . join('; ', map { "$_->[0]: $_->[1]" } grep { $_->[0] =~ $OF_ONE } @$facts);
		$text .= "\n";
		_charts($directory, $benchmark, @$records);
		push @all, @$records;
	}
	_target_chart($directory, grep { length $_->{target} } @all);

	open my $out, '>:encoding(UTF-8)', "$directory/table.md" or croak "$directory/table.md: $!";
	print $out $text;
	close $out or croak "$directory/table.md: $!";
	return $text;
}

1;
