# Each benchmark runs, on a tiny size, and leaves records that make sense; the
# figures themselves are not looked at.

use strict;
use warnings;

use File::Basename qw(basename);
use List::Util qw(first);
use Test::More;

use Bench::Record qw(median percentile read_records write_header write_record);
use Bench::Report qw(write_report);
use PostgreSQL::Test::Utils;

my $NUMBER = qr/^\d+(?:\.\d+)?$/;

my $directory = PostgreSQL::Test::Utils::tempdir('bench');
my ($table, $facts, $records);

# ---- Records

is(median(3, 1, 2), 2, 'the median of an odd number of values');
is(median(4, 1, 2, 3), 2.5, 'and of an even one');
is(percentile(0.99, 1 .. 100), 100, 'a percentile is one of the values');
is(percentile(0.5, 7), 7, 'the only one, if need be');

my $file = "$directory/made_up.csv";
write_header($file, [ machine => 'a "fast" one: 2 cores' ]);
write_record(
	$file, benchmark => 'made_up', case => 'one, with a comma', unit => 's',
	ours => [ 1, 20, 3 ], counterpart => 'a "bare" one', theirs => [ 2, 10, 4 ],
	target => 'ratio <= 0.75');
write_record($file, benchmark => 'made_up', case => 'alone | <b>', unit => 'MB',
	ours => 81, target => '<= 80');
write_record($file, benchmark => 'made_up', case => 'nothing', unit => 'rows',
	ours => 0, counterpart => 'nothing', theirs => 0);
($facts, $records) = read_records($file);
is_deeply($facts, [ [ machine => 'a "fast" one: 2 cores' ] ], 'facts are read as written');
is_deeply(
	$records->[0],
	{
		benchmark => 'made_up', case => 'one, with a comma', unit => 's', ours => 3,
		ours_min => 1, ours_max => 20, counterpart => 'a "bare" one', theirs => 4,
		theirs_min => 2, theirs_max => 10, ratio => '0.750', target => 'ratio <= 0.75',
		met => 'yes', runs => 3 },
	'a record: medians, and the median of the ratios of pairs');
is($records->[1]{met}, 'no', 'a target that was missed');
is($records->[2]{ratio}, '', 'no ratio to nothing');
my %unclear = (benchmark => 'made_up', case => 'c', unit => 's', ours => 1, target => 'fast');
ok(!eval { write_record($file, %unclear) }, 'a target that cannot be checked is refused');

$table = write_report($directory);
like($table, qr/^\| alone \\\| <b> \| MB \| 81 \|/m, 'the table has the record');
unlink glob "$directory/*";

# ---- Benchmarks

my $pg_perl = first { -e "$_/PostgreSQL/Test/Cluster.pm" } @INC;
my @names = map { basename($_, '.pl') } sort glob 'test/bench/*.pl';

# A machine without Maven Central runs the others: not so in CI.
@names = grep { $_ ne 'kafka' } @names
  unless -e ($ENV{DISPATCH_CACHE} // '') . '/kafka/ready' || ($ENV{CI} // '') eq 'true';

system_or_bail('make', '-s', '-C', 'test/bench/c');
$ENV{SIZE} = 'tiny';
is(system($^X, 'test/bench.pl', $directory, $pg_perl, @names), 0, 'all benchmarks run');

sub is_sane
{
	my ($record) = @_;
	my $compared = length $record->{counterpart};

	return 0 unless length $record->{case} && length $record->{unit};
	return 0 if grep { $record->{$_} !~ $NUMBER } qw(ours ours_min ours_max runs);
	return 0
	  if grep { $record->{$_} !~ ($compared ? $NUMBER : qr/^$/) } qw(theirs theirs_min theirs_max);
	return 0 if $record->{ratio} !~ ($compared && $record->{theirs} > 0 ? $NUMBER : qr/^$/);
	return 0 if $record->{ours_min} > $record->{ours} || $record->{ours} > $record->{ours_max};
	return $record->{met} =~ (length $record->{target} ? qr/^(?:yes|no)$/ : qr/^$/);
}

foreach my $name (@names)
{
	($facts, $records) = read_records("$directory/$name.csv");
	is_deeply([ map { $_->{case} } grep { !is_sane($_) } @$records ], [],
		"$name: its records make sense");
	cmp_ok(scalar @$records, '>', 0, "$name: there are some");
}

$table = write_report($directory);
is_deeply([ grep { $table !~ /^### $_$/m } @names ], [], 'the table has them all');
ok(-e "$directory/targets.svg", 'there is a chart of the targets');
is(
	system('/usr/bin/python3', '-c',
		'import sys, xml.dom.minidom as x; [x.parse(f) for f in sys.argv[1:]]',
		glob "$directory/*.svg"),
	0, 'all charts are well-formed');

done_testing();
