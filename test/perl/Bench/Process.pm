#
# Bench::Process: what processes cost, as Linux tells.
#
package Bench::Process;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use List::Util qw(max);
use POSIX ();
use Time::HiRes qw(clock_gettime sleep time CLOCK_PROCESS_CPUTIME_ID);

our @EXPORT = qw(cpu_seconds tree_seconds private_megabytes children_of beside_work);

my $TICKS = POSIX::sysconf(POSIX::_SC_CLK_TCK());

sub _slurp
{
	my ($file) = @_;

	open my $in, '<', $file or return;
	local $/ = undef;
	return <$in>;
}

# cpu_seconds(pids): the time that they have had a processor so far, in all of
# their threads.  One that has ended counts nothing.
sub cpu_seconds
{
	my (@pids) = @_;
	my $nanoseconds = 0;

	foreach my $task (map { glob "/proc/$_/task/*/schedstat" } @pids)
	{
		$nanoseconds += $1 if (_slurp($task) // '') =~ /^(\d+)/;
	}
	return $nanoseconds / 1e9;
}

# tree_seconds(pids): the same with that of their children, and of threads and
# children that have ended; in hundredths of a second.
sub tree_seconds
{
	my %wanted = map { $_ => 1 } @_;
	my $ticks = 0;

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open my $in, '<', $file or next;
		my ($pid, $parent, $times) =
		  (<$in> // '') =~ /^(\d+) \(.*\) \w (\d+)(?: -?\d+){9}((?: \d+){4}) /s or next;
		my ($user, $system, $ended_user, $ended_system) = split ' ', $times;

		next unless $wanted{$pid} || $wanted{$parent};
		$ticks += $user + $system + $ended_user + $ended_system;
	}
	return $ticks / $TICKS;
}

# private_megabytes(pid): memory that it shares with no other process.
sub private_megabytes
{
	my ($pid) = @_;
	my $kilobytes = 0;
	my $rollup = _slurp("/proc/$pid/smaps_rollup") // croak "process $pid: $!";

	$kilobytes += $1 while $rollup =~ /^Private_\w+:\s+(\d+) kB/mg;
	return $kilobytes / 1024;
}

# Direct children of a process.
sub children_of
{
	my ($parent) = @_;

	return grep { (_slurp("/proc/$_/stat") // '') =~ /^\d+ \(.*\) \w $parent /s }
	  map { m{(\d+)$} } glob '/proc/[0-9]*';
}

my $PERIOD = 0.001;				# seconds

# Takes that share of a processor, a bit of it in each millisecond, as a process does
# that is woken again and again; ends with its parent.
sub _work
{
	my ($share) = @_;
	my $parent = getppid;
	my $next = time;

	while (getppid == $parent)
	{
		my $enough = clock_gettime(CLOCK_PROCESS_CPUTIME_ID) + $share * $PERIOD;

		1 while clock_gettime(CLOCK_PROCESS_CPUTIME_ID) < $enough;
		$next = max($next + $PERIOD, time);
		sleep(max($next - time, 0));
	}
	POSIX::_exit(0);
}

# beside_work(sub, shares): calls the sub while as many processes each take that
# share of a processor.  Returns what the sub returns.
sub beside_work
{
	my ($code, @shares) = @_;
	my @pids;

	foreach my $share (@shares)
	{
		my $pid = fork // croak "fork: $!";

		_work($share) if $pid == 0;
		push @pids, $pid;
	}
	my $result = eval { $code->() };
	my $error = $@;

	kill 'KILL', @pids;
	waitpid $_, 0 foreach @pids;
	croak $error if $error ne '';
	return $result;
}

1;
