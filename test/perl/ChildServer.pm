#
# ChildServer: a broker that runs as a child of the test.
#
# The test can stop, kill, freeze and start it again, and it ends with the test,
# however that ends.  One that does not come up ends the test: a broker that is
# missing is a failure, never a skip.
#
#     package SomeServer;
#     use parent 'ChildServer';
#
#     my $self = $class->child('some', start_seconds => 20, stop_seconds => 10, ...);
#     sub start { ... $self->run('some-server', '--dir', $self->dir); }
#     sub answers { ... }			# is it up?  It may die, which is no.
#     sub log_content { ... }		# what it says, for one who looks for the cause
#
# Where a server is several processes, spawn() and end_processes() do.
#
package ChildServer;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use File::Basename qw(basename);
use POSIX ();
use Test::More ();
use Time::HiRes qw(sleep time);

# Before the END below, for it to come first: directories go when nobody writes
# to them any more.
use PostgreSQL::Test::Utils;

our @EXPORT_OK = qw(spawn end_processes);

my @all_servers;

# child(name of its directory, start_seconds => ..., stop_seconds => ..., more that
# the class keeps): it is not started.
sub child
{
	my ($class, $name, %fields) = @_;
	my $self = bless {
		%fields, dir => PostgreSQL::Test::Utils::tempdir($name), pid => undef,
		helpers => [] }, $class;

	push @all_servers, $self;
	return $self;
}

sub host { return '127.0.0.1'; }
sub port { return $_[0]->{port}; }
sub pid { return $_[0]->{pid}; }
sub dir { return $_[0]->{dir}; }

# Where what it prints goes.
sub log_file { return "$_[0]->{dir}/output"; }

# spawn(output, command): a process that reads nothing; returns its number.
sub spawn
{
	my ($output, @command) = @_;
	my $pid = fork // die "fork: $!";

	return $pid if $pid;
	# POSIX::_exit: a failed exec must not run the END blocks of the test.
	open STDIN, '<', '/dev/null';
	open STDOUT, '>>', $output;
	open STDERR, '>&', \*STDOUT;
	exec @command or POSIX::_exit(127);
}

# helper(command): a process that the server needs, until the test ends.
sub helper
{
	my ($self, @command) = @_;

	push @{ $self->{helpers} }, spawn($self->log_file, @command);
	return;
}

# run(command): starts the server, and returns when it answers.
sub run
{
	my ($self, @command) = @_;
	my $name = basename($command[0]);
	my $deadline = time + $self->{start_seconds};

	croak "$name is running already" if $self->{pid};
	$self->{pid} = spawn($self->log_file, @command);
	until (eval { $self->answers })
	{
		my $error = $@;

		if (waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid})
		{
			$self->{pid} = undef;
			Test::More::BAIL_OUT("$name ended: " . $self->log_content);
		}
		Test::More::BAIL_OUT("$name is not up: $error" . $self->log_content) if time > $deadline;
		sleep 0.02;
	}
	return;
}

# Stops it in an orderly way.
sub stop
{
	my ($self) = @_;

	$self->_end('TERM');
	return;
}

# Kills it, as a machine that loses power would.
sub kill9
{
	my ($self) = @_;

	$self->_end('KILL');
	return;
}

sub restart
{
	my ($self) = @_;

	$self->stop;
	$self->start;
	return;
}

# A frozen server: connections are accepted by the kernel, nothing is answered.
sub sigstop
{
	my ($self) = @_;

	kill 'STOP', $self->{pid} or croak "kill: $!";
	return;
}

sub sigcont
{
	my ($self) = @_;

	kill 'CONT', $self->{pid} or croak "kill: $!";
	return;
}

sub _end
{
	my ($self, $signal) = @_;
	my $pid = $self->{pid} or return;

	$self->{pid} = undef;
	end_processes($signal, $self->{stop_seconds}, $pid);
	return;
}

# end_processes(signal, seconds, numbers): signals them, even if they are frozen,
# and waits for their end, which KILL brings about if need be.
sub end_processes
{
	my ($signal, $seconds, @pids) = @_;
	my $deadline = time + $seconds;

	kill $signal, @pids;
	kill 'CONT', @pids;
	foreach my $pid (@pids)
	{
		until (waitpid($pid, POSIX::WNOHANG()) != 0)
		{
			kill 'KILL', $pid if time > $deadline;
			sleep 0.01;
		}
	}
	return;
}

END
{
	# waitpid changes it, and it is the result of the test.
	my $exit_code = $?;

	foreach my $server (@all_servers)
	{
		$server->kill9;
		end_processes('KILL', $server->{stop_seconds}, @{ $server->{helpers} });
	}
	$? = $exit_code;
}

1;
