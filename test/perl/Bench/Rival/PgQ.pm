#
# Bench::Rival::PgQ: the queue of Skytools, from Debian: an extension, pgqd that
# ticks, and a consumer that brings its batches to Redis.
#
package Bench::Rival::PgQ;

use strict;
use warnings;

use parent 'Bench::Rival';

use Cwd qw(abs_path);

my $PROGRAM = abs_path('test/bench/rivals/pgq_relay.py');

sub name { return 'PgQ'; }

sub lacks
{
	my ($self) = @_;
	my $directory = qx(pg_config --sharedir);

	chomp $directory;
	return (
		-e "$directory/extension/pgq.control" ? () : 'postgresql-<version>-pgq3',
		-x '/usr/bin/pgqd' ? () : 'pgqd',
		$self->lacks_python_clients);
}

# Ticks as often as pgqd can be told to, and a batch whenever there is an event.
sub create
{
	my ($self, $session) = @_;

	$session->do('CREATE EXTENSION pgq');
	$session->do(q(SELECT pgq.create_queue('events')));
	$session->do(q(SELECT pgq.set_queue_config('events', 'ticker_max_lag', '10 milliseconds')));
	$session->do(q(SELECT pgq.register_consumer('events', 'relay')));
	return;
}

sub publish_sql
{
	my ($self, $count) = @_;

	return "SELECT count(pgq.insert_event('events', 'order.created', ($Bench::Rival::DATA)::text))"
	  . " FROM generate_series(1, $count)";
}

sub start
{
	my ($self) = @_;

	$self->write_file('pgqd.ini', <<~"INI");
		[pgqd]
		logfile = $self->{dir}/pgqd.log
		pidfile = $self->{dir}/pgqd.pid
		base_connstr = ${\ ($self->node->connstr =~ s/ dbname=\S*//r)}
		initial_database = postgres
		database_list = postgres
		check_period = 1
		ticker_period = 0.05
		INI
	$self->spawn('pgqd.out', '/usr/bin/pgqd', '-q', 'pgqd.ini');
	$self->spawn('relay', '/usr/bin/python3', $PROGRAM, $self->connection_string,
		$self->redis->port, $self->stream);
	return;
}

1;
