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
use Time::HiRes qw(sleep time);

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

# beside_work(share, sub): calls the sub while another process takes that share of
# a processor, a bit of it in each millisecond, as one does that is woken again and
# again.  Returns what the sub returns.
sub beside_work
{
	my ($share, $code) = @_;
	my $pid = fork // croak "fork: $!";

	while ($pid == 0)
	{
		my $end = time + $PERIOD;

		1 while time < $end - $PERIOD * (1 - $share);
		sleep(max($end - time, 0));
	}
	my $result = $code->();

	kill 'KILL', $pid;
	waitpid $pid, 0;
	return $result;
}

1;
