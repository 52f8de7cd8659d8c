#
# Bench::Rival: a way to bring events from PostgreSQL to a Redis stream.
#
# The base of those in Bench/Rival, our own among them.  Each has a server and
# a Redis of its own, and says:
#
#     name			what the records call it
#     lacks			what must be installed before it can run; nothing if all is there
#     settings		what it wants in postgresql.conf
#     create		makes its tables
#     publish_sql	a statement that publishes so many events
#     start			starts what relays them, the relay itself last
#     hold, go_on	keep the relay from working for a while
#     rate			events a second that it keeps up with, for the steady load
#
# A relay is a program outside of the server, kept by spawn() and stop().
#
package Bench::Rival;

use strict;
use warnings;

use Carp;
use File::Path qw(remove_tree);
use POSIX ();
use Time::HiRes qw(sleep time);

use Bench::Server;
use DispatchTest;
use PostgreSQL::Test::Utils;
use RedisServer;

# What short runs hide is made to happen in them, for all: vacuum looks every
# second.  A relay in Java can only speak TCP.
my $SETTINGS = q(
	autovacuum_naptime = 1s
	listen_addresses = '127.0.0.1'
);

# An event: when it was published, and what makes it 200 bytes of JSON.
my $NOTE = substr payload(400), 10, 150;
our $DATA = qq{jsonb_build_object('note', '$NOTE', 'at',}
  . q{ (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)};

my $STOP_SECONDS = 20;
my @all;

sub lacks { return (); }
sub settings { return ''; }
sub create { return; }
sub rate { return 1000; }
sub stream { return 'events'; }

sub new
{
	my ($class, %options) = @_;
	my $self = bless { %options, pids => [] }, $class;

	$self->{dir} = PostgreSQL::Test::Utils::tempdir('rival');
	push @all, $self;
	return $self;
}

sub node { return $_[0]{node}; }
sub redis { return $_[0]{redis}; }
sub client { return $_[0]{client}; }
sub pids { return @{ $_[0]{pids} }; }

# Servers, tables and relay; returns when a first event has gone through.
sub set_up
{
	my ($self) = @_;

	$self->{node} = bench_server($SETTINGS . $self->settings);
	$self->{redis} = RedisServer->new;
	$self->{client} = $self->redis->client;
	$self->create(session($self->node));
	$self->start;
	$self->publish(1);
	wait_until(sub { $self->delivered == 1 }, $self->name . ' delivers an event');
	$self->forget_delivered;
	return;
}

sub tear_down
{
	my ($self) = @_;

	$self->stop;
	$self->redis->stop;
	$self->node->stop('immediate');
	# The next has the same name.
	remove_tree($self->node->basedir);
	return;
}

# publish(count): in one transaction.
sub publish
{
	my ($self, $count) = @_;

	session($self->node)->do($self->publish_sql($count));
	return;
}

# Entries in the stream.
sub delivered
{
	my ($self) = @_;

	return $self->client->xlen($self->stream);
}

sub forget_delivered
{
	my ($self) = @_;

	$self->client->del($self->stream);
	return;
}

# spawn(name, command): a relay of ours, in a directory of its own.
sub spawn
{
	my ($self, $name, @command) = @_;
	my $pid = fork // die "fork: $!";

	if ($pid == 0)
	{
		# POSIX::_exit: a failed exec must not run the END blocks.
		chdir $self->{dir} or POSIX::_exit(126);
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$name.log";
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	push @{ $self->{pids} }, $pid;
	return;
}

# Waits for what was spawned to do its work and end.
sub wait_for_end
{
	my ($self) = @_;

	foreach my $pid ($self->pids)
	{
		waitpid $pid, 0;
		croak $self->name . ": a command ended with status $?, see $self->{dir}" if $? != 0;
	}
	$self->{pids} = [];
	return;
}

# A relay that stands still, and is warm when it goes on.
sub hold
{
	my ($self) = @_;

	kill 'STOP', ($self->pids)[-1];
	return;
}

sub go_on
{
	my ($self) = @_;

	kill 'CONT', ($self->pids)[-1];
	return;
}

# Ends the relays in good order; those that do not listen, otherwise.
sub stop
{
	my ($self) = @_;
	my $deadline = time + $STOP_SECONDS;

	kill $_, $self->pids foreach qw(TERM CONT);
	foreach my $pid ($self->pids)
	{
		until (waitpid($pid, POSIX::WNOHANG()) != 0)
		{
			kill 'KILL', $pid if time > $deadline;
			sleep 0.01;
		}
	}
	$self->{pids} = [];
	return;
}

# write_file(name, text): a configuration file, in the directory of the relay.
sub write_file
{
	my ($self, $name, $text) = @_;

	open my $out, '>', "$self->{dir}/$name" or croak "$name: $!";
	print $out $text;
	close $out or croak "$name: $!";
	return;
}

# What the relays in Python lack.
sub lacks_python_clients
{
	return system("/usr/bin/python3 -c 'import psycopg2, redis' 2>/dev/null") == 0
	  ? () : 'python3-psycopg2, python3-redis';
}

# Where test/bench/rivals/setup.sh puts what is in no Debian package.
sub cache
{
	return $ENV{DISPATCH_BENCH_CACHE} // '/var/cache/dispatch-bench';
}

# libpq's words for the database of the events.
sub connection_string
{
	my ($self) = @_;

	return $self->node->connstr('postgres');
}

END
{
	my $exit_code = $?;

	$_->stop foreach @all;
	$? = $exit_code;
}

1;
