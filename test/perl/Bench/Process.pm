#
# Bench::Process: what processes cost, as Linux tells.
#
package Bench::Process;

use strict;
use warnings;

use Carp;
use Exporter 'import';

our @EXPORT = qw(cpu_seconds private_megabytes children_of);

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

1;
