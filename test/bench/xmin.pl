# Draining while another transaction is open all the time, against draining
# without it, and what it leaves behind: a queue that marks or deletes its rows
# collapses here.

use strict;
use warnings;

use Bench;
use Bench::Drain;
use Bench::Server;
use DispatchTest;

my $node = bench_server("autovacuum_naptime = 1s\n");
my $session = session($node);
my $redis = RedisServer->new;
my $count = sized(1000, 200_000, 1_000_000);

create_redis_backend($node, $redis);
$session->do('CREATE EXTENSION pgstattuple');
pause($session, 'default');

sub rate
{
	my $rate;

	publish_many($session, $count);
	drain($session, 'default');
	$rate = stream_rate($redis, 'events', $count);
	$redis->client->flushall;
	return $rate;
}

# One that writes and reads, so that nothing is vacuumed that it might see.
sub rate_with_open_transaction
{
	my $other = session($node);
	my $rate;

	$other->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$other->do('SELECT pg_current_xact_id()');
	$rate = rate();
	$other->do('COMMIT');
	return $rate;
}

rate();
my %rates = in_turns(
	sized(1, 5, 5),
	ours => \&rate_with_open_transaction,
	theirs => \&rate);

record(
	case => 'drain, a transaction open all the time', unit => 'events/s', ours => $rates{ours},
	counterpart => 'without it', theirs => $rates{theirs}, target => 'ratio >= 0.95');

# The same in one go: a transaction stays open over all of it, while events
# come and go one at a time, and the position of the worker moves.
my $other = session($node);

$other->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
$other->do('SELECT pg_current_xact_id()');
resume($session, 'default');
foreach my $run (1 .. sized(2, 50, 300))
{
	publish_many($session, 100);
	sql($session, q(SELECT dispatch.flush('1 min', 'default')));
}
record(
	case => 'dead rows in the outbox after that', unit => 'rows', target => '<= 0',
	ours => sql($session,
		q(SELECT sum(t.dead_tuple_count) FROM pg_partition_tree('dispatch.outbox') AS p)
		  . q(, pgstattuple(p.relid) AS t WHERE p.isleaf)));
record(
	case => "size of $_ after that", unit => 'kB', target => '<= 1024',
	ours => sql($session, 'SELECT pg_total_relation_size(?) / 1024.0', "dispatch.$_"))
  foreach qw(positions exceptions);
$other->do('COMMIT');
