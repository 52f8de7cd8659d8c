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
use POSIX qw(_exit);
use Time::HiRes qw(time);

my $LINES_OF_LOG = 30;

# Those that only show that they work need not have the machine for themselves.
my $AT_ONCE = ($ENV{SIZE} // '') eq 'tiny' ? 2 : 1;

my ($results, $pg_perl, @names) = @ARGV;
my @all = map { basename($_, '.pl') } sort glob 'test/bench/*.pl';
my %known = map { $_ => 1 } @all;
my (%running, @failed);

sub start
{
	my ($name) = @_;
	my $file = "$results/$name.csv";

	unlink $file;
	write_header($file, facts());
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		$ENV{BENCH_OUT} = $file;
		exec $^X, "-I$pg_perl", '-Itest/perl', "test/bench/$name.pl" or _exit(127);
	}
	$running{$pid} = { name => $name, start => time };
	return;
}

sub finish_one
{
	my $pid = wait;
	my $status = $?;
	my $benchmark = delete $running{$pid} or return;

	printf "# %s: %.0f s\n", $benchmark->{name}, time - $benchmark->{start};
	return if $status == 0;
	push @failed, $benchmark->{name};
	system 'tail', '-n', $LINES_OF_LOG,
	  "$ENV{TESTDIR}/tmp_check/log/regress_log_$benchmark->{name}";
	return;
}

foreach my $name (grep { !$known{$_} } @names)
{
	die "there is no benchmark $name; there are: @all\n";
}
$| = 1;
mkdir $results;
foreach my $name (@names ? @names : @all)
{
	finish_one() if keys %running == $AT_ONCE;
	start($name);
}
finish_one() while %running;
die "failed: @failed\n" if @failed;
