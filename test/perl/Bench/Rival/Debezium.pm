#
# Bench::Rival::Debezium: Debezium Server with the outbox event router and its
# Redis sink, which reads the WAL by logical decoding.
#
package Bench::Rival::Debezium;

use strict;
use warnings;

use parent 'Bench::Rival';

use Cwd qw(abs_path);

use Bench::Server;
use DispatchTest;
use PostgreSQL::Test::Utils;

my $PROPERTIES = abs_path('test/bench/rivals/debezium.properties');

sub name { return 'Debezium'; }
sub settings { return "wal_level = logical\nmax_wal_senders = 4\n"; }

sub _directory
{
	my ($self) = @_;

	return $self->cache . '/debezium/debezium-server';
}

sub lacks
{
	my ($self) = @_;

	return (
		-e $self->cache . '/debezium/complete' ? () : 'Debezium Server',
		system('command -v java >/dev/null') == 0 ? () : 'a Java runtime');
}

# The columns that the outbox event router looks for.
sub create
{
	my ($self, $session) = @_;

	$session->do(q(
		CREATE TABLE outbox (
			id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
			aggregatetype text NOT NULL,
			aggregateid text NOT NULL,
			type text NOT NULL,
			payload jsonb)));
	return;
}

sub publish_sql
{
	my ($self, $count) = @_;

	return 'INSERT INTO outbox (aggregatetype, aggregateid, type, payload)'
	  . " SELECT 'order', '1', 'order.created', $Bench::Rival::DATA FROM generate_series(1, $count)";
}

# Returns when it reads the WAL: an event of before its first start is lost to
# it, for there was no slot yet.
sub start
{
	my ($self) = @_;
	my $directory = $self->_directory;
	my ($runner) = glob "$directory/debezium-server-*-runner.jar";
	my %value = (
		redis_port => $self->redis->port,
		postgres_port => $self->node->port,
		postgres_user => scalar getpwuid($<),
		stream => $self->stream);

	mkdir "$self->{dir}/conf";
	$self->write_file('conf/application.properties',
		slurp_file($PROPERTIES) =~ s/\@(\w+)\@/$value{$1}/gr);
	$self->spawn('debezium', 'java', '-cp', "$runner:conf:$directory/lib/*",
		'io.debezium.server.Main');

	my $session = session($self->node);

	wait_until(
		sub { sql($session, 'SELECT bool_or(active) FROM pg_replication_slots') },
		'Debezium reads the WAL', 60);
	return;
}

1;
