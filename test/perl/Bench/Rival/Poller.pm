#
# Bench::Rival::Poller: the usual outbox: a table, and a loop that takes rows
# with FOR UPDATE SKIP LOCKED, sends them, and deletes or marks them.
#
package Bench::Rival::Poller;

use strict;
use warnings;

use parent 'Bench::Rival';

use Cwd qw(abs_path);

my $PROGRAM = abs_path('test/bench/rivals/poller.py');

# new(done => 'delete' | 'update', batch => rows)
sub name
{
	my ($self) = @_;

	return "poller, \U$self->{done}\E, $self->{batch}";
}

sub lacks { return Bench::Rival->lacks_python_clients; }

sub create
{
	my ($self, $session) = @_;

	$session->do(q(
		CREATE TABLE outbox (
			id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			event_id uuid NOT NULL DEFAULT gen_random_uuid(),
			event_type text NOT NULL,
			data jsonb,
			created_at timestamptz NOT NULL DEFAULT now(),
			sent_at timestamptz)));
	$session->do('CREATE INDEX ON outbox (id) WHERE sent_at IS NULL')
	  if $self->{done} eq 'update';
	return;
}

sub publish_sql
{
	my ($self, $count) = @_;

	return "INSERT INTO outbox (event_type, data) SELECT 'order.created', $Bench::Rival::DATA"
	  . " FROM generate_series(1, $count)";
}

sub start
{
	my ($self) = @_;

	$self->spawn('poller', '/usr/bin/python3', $PROGRAM, $self->connection_string,
		$self->redis->port, $self->stream, $self->{done}, $self->{batch});
	return;
}

1;
