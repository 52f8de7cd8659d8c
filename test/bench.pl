#
# bench.pl: runs benchmarks, each in a process of its own.
#
# A benchmark is a file of test/bench.  Its records go to <directory>/<name>.csv
# below lines that say where they were measured.  One that fails leaves what it
# has measured; the others run all the same, and the failure is told in the end.
#
# usage: bench.pl <directory for the records> <PostgreSQL's perl directory> [<name> ...]

use strict;
use warnings;

use lib 'test/perl';

use Bench::Machine qw(facts);
use Bench::Record qw(write_header);
use File::Basename qw(basename);
use Time::HiRes qw(time);

my $LINES_OF_LOG = 30;

$| = 1;

my ($results, $pg_perl, @names) = @ARGV;
my @all = map { basename($_, '.pl') } sort glob 'test/bench/*.pl';
my %known = map { $_ => 1 } @all;
my @failed;

foreach my $name (grep { !$known{$_} } @names)
{
	die "there is no benchmark $name; there are: @all\n";
}
mkdir $results;

foreach my $name (@names ? @names : @all)
{
	my $file = "$results/$name.csv";
	my $start = time;

	unlink $file;
	write_header($file, facts());
	local $ENV{BENCH_OUT} = $file;
	if (system($^X, "-I$pg_perl", '-Itest/perl', "test/bench/$name.pl") != 0)
	{
		push @failed, $name;
		system 'tail', '-n', $LINES_OF_LOG, "$ENV{TESTDIR}/tmp_check/log/regress_log_$name";
	}
	printf "# %s: %.0f s\n", $name, time - $start;
}

die "failed: @failed\n" if @failed;
