#
# Strace: makes the system calls of a process fail, or kill it, at the N-th.
#
#     my $strace = Strace->attach($pid, 'sendto:error=ECONNRESET:when=3');
#     ...
#     $strace->detach;
#     is($strace->injected, 1, 'the third sendto() has failed');
#
# The process is the shipped binary.  An ordinary user may trace processes of
# his own, unless the kernel's Yama says otherwise: with ptrace_scope 1 (Ubuntu)
# only those that allow it, so a server to be traced is started under
# allow_attach(); with 2 or 3 only root, or nobody, and attach() ends the test.
#
package Strace;

use strict;
use warnings;

use Carp;
use IPC::Run;
use POSIX ();
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Utils;

my $ATTACH_SECONDS = 10;
my $SCOPE_FILE = '/proc/sys/kernel/yama/ptrace_scope';

# Allowed is the process, not its children: so each asks after fork().
my $ALLOW = <<'C';
#include <pthread.h>
#include <sys/prctl.h>

static void
allow(void)
{
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

__attribute__((constructor)) static void
allow_always(void)
{
	allow();
	pthread_atfork(0, 0, allow);
}
C

my @all_traces;

# The value of LD_PRELOAD for a server whose processes are to be traced; undef
# where nothing is needed.
sub allow_attach
{
	my $scope = -e $SCOPE_FILE ? slurp_file($SCOPE_FILE) : 0;
	my $dir = PostgreSQL::Test::Utils::tempdir('strace');

	return if $scope != 1;
	append_to_file("$dir/allow.c", $ALLOW);
	IPC::Run::run([ 'gcc', '-shared', '-fPIC', '-o', "$dir/allow.so", "$dir/allow.c" ])
	  or croak 'cannot compile what allows to trace';
	return "$dir/allow.so";
}

# attach(pid, injections as of strace -e inject=): returns when it is in force.
sub attach
{
	my ($class, $pid, @injections) = @_;
	my $self = bless { pid => $pid, dir => PostgreSQL::Test::Utils::tempdir('strace') }, $class;
	my $deadline = time + $ATTACH_SECONDS;
	my @calls = map { /^([^:]+):/ } @injections;
	my @command = (
		'strace', '-f', '-p', $pid, '-o', "$self->{dir}/calls",
		'-e', 'trace=' . join(',', @calls), map { ('-e', "inject=$_") } @injections);

	$self->{strace} = fork // croak "fork: $!";
	if ($self->{strace} == 0)
	{
		open STDOUT, '>', "$self->{dir}/messages";
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	push @all_traces, $self;
	until ($self->_read('messages') =~ /attached/)
	{
		my $ended = waitpid($self->{strace}, POSIX::WNOHANG()) == $self->{strace};

		delete $self->{strace} if $ended;
		croak "cannot trace process $pid: " . $self->_read('messages')
		  if $ended || time > $deadline;
		sleep 0.005;
	}
	return $self;
}

# Lets go of the process, if it is still there.
sub detach
{
	my ($self) = @_;
	my $strace = delete $self->{strace} // return;

	kill 'TERM', $strace;
	waitpid $strace, 0;
	return;
}

# How often something was done to the process; a signal that ended it counts.
sub injected
{
	my ($self) = @_;
	my @lines = split /\n/, $self->_read('calls');

	return scalar grep { /\(INJECTED\)|killed by SIG/ } @lines;
}

sub _read
{
	my ($self, $file) = @_;

	return -e "$self->{dir}/$file" ? slurp_file("$self->{dir}/$file") : '';
}

END
{
	my $exit_code = $?;

	$_->detach foreach @all_traces;
	$? = $exit_code;
}

1;
