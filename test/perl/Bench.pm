#
# Bench: what every benchmark needs: its size, its records, its repetitions.
#
# A benchmark is a file of test/bench, run by test/bench.pl in a process and
# with servers of its own.  It measures what we do and what the same costs
# without us, in turns, and writes a record for each case:
#
#     my %seconds = in_turns(5, ours => sub { ... }, theirs => sub { ... });
#     record(
#         case => '100 bytes, no key', unit => 'events/s',
#         ours => $seconds{ours}, counterpart => 'redis-benchmark',
#         theirs => $seconds{theirs}, target => 'ratio >= 0.8');
#
package Bench;

use strict;
use warnings;

# Before PostgreSQL::Test::Utils takes the standard output away.
my $console;
BEGIN { open $console, '>&', \*STDERR or die "stderr: $!\n"; $console->autoflush(1); }

use Carp;
use Exporter 'import';
use File::Basename qw(basename);
use IO::Handle;
use List::Util qw(max min);
use Time::HiRes qw(time);

use Bench::Record qw(median percentile write_record);

our @EXPORT = qw(sized say_progress in_turns record median percentile parameter);

my @SIZES = qw(tiny normal full);
my $name = basename($0, '.pl');

# sized(tiny, normal, full): the one that this run asks for.  Tiny shows only
# that the benchmark works; full is for what takes minutes or gigabytes.
sub sized
{
	my (@values) = @_;
	my %by_size;

	croak 'give a value for each of ' . join ', ', @SIZES unless @values == @SIZES;
	@by_size{@SIZES} = @values;
	return $by_size{ $ENV{SIZE} || 'normal' } // croak "SIZE: one of @SIZES";
}

# parameter(name, default): a number of the environment, as OUTAGE=900.
sub parameter
{
	my ($parameter, $default) = @_;
	my $value = $ENV{$parameter} // '';

	return $default if $value eq '';
	croak "$parameter: not a number" unless $value =~ /^\d+(?:\.\d+)?$/;
	return 0 + $value;
}

# A line for who waits.
sub say_progress
{
	my ($text) = @_;

	print $console "$text\n";
	return;
}

# in_turns(runs, name => sub, ...): calls the subs in turn, so that what else
# the machine does hits them alike.  Returns name => [what each call returned].
# Every other turn goes backwards: none is always behind the same other.
sub in_turns
{
	my ($runs, @subs) = @_;
	my (@names, %code, %results);

	while (my ($key, $sub) = splice @subs, 0, 2)
	{
		push @names, $key;
		$code{$key} = $sub;
	}
	foreach my $run (1 .. $runs)
	{
		push @{ $results{$_} }, $code{$_}->() foreach $run % 2 ? @names : reverse @names;
	}
	return %results;
}

# record(case => ..., unit => ..., ours => [...], counterpart => ..., theirs =>
# [...], target => ...): writes the record, and shows it.  A value may be a
# number or a list of the results of several runs.  Without a counterpart the
# target is one for our own value: '<= 64'; with one, for 'ratio >= 0.8'.
sub record
{
	my (%record) = @_;
	my $file = $ENV{BENCH_OUT} // croak 'BENCH_OUT is not set: run test/bench.pl';

	say_progress(write_record($file, benchmark => $name, %record));
	return;
}

1;
