# While Redis is away, full, frozen or does not let us in, events wait; when it
# is back they are delivered in order, and nobody has lost or burnt anything.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $redis = RedisServer->new(appendonly => 1);
# What loses an attempt is a dead letter.
my $node = new_cluster('outage',
	"log_min_messages = warning\ndispatch.sleep_time = '1h'\ndispatch.max_retries = 0");
my $n = 0;

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
create_redis_backend($node, $redis, socket_timeout => 1, connect_timeout => 1);
my $session = session($node);

# Publishes that many events, each in a transaction of its own, and returns the
# data of all so far.
sub publish
{
	my ($count) = @_;

	$session->do(q(SELECT dispatch.publish('n', 's', ?::jsonb, key => 'k')), undef, ++$n)
	  foreach 1 .. $count;
	return [ 1 .. $n ];
}

sub flush
{
	return $session->selectrow_array("SELECT dispatch.flush('30s')");
}

sub status
{
	return $session->selectrow_hashref(
		q(SELECT *, next_attempt_at > now() AS waits FROM dispatch.backend_status));
}

sub dead_letters
{
	return $session->selectrow_array(
		q(SELECT count(*) FROM dispatch.events WHERE status NOT IN ('pending', 'published')));
}

# Redis is stopped
publish(1);
ok(flush(), 'an event before');
my $position = log_position($node);
$redis->stop;
my $expected = publish(20);
wait_for_state($node, 'default', 'outage');
sleep 2;						# several attempts to connect
publish(1);
is(status()->{pending}, 21, 'outage: events wait');
ok(status()->{waits}, 'outage: next_attempt_at is said');
like(status()->{last_error}, qr/connect|refused/i, 'outage: so is the error');
is(scalar log_lines($node, qr/WARNING/, $position), 1, 'outage: a single warning');
$redis->start;
ok(flush(), 'the backlog goes out by itself');
is_deeply([ stream_data($redis) ], $expected = [ 1 .. $n ], 'all, in order, exactly once');
is(dead_letters(), 0, 'no event has failed, not even once');
is(backend_state($node, 'default'), 'running', 'the state is running again');

# A second outage: a second warning; resume_backend() ends the back-off
$position = log_position($node);
$redis->stop;
publish(1);
wait_for_state($node, 'default', 'outage');
wait_until(
	sub {
		$session->selectrow_array(
			q(SELECT next_attempt_at > now() + '3s' FROM dispatch.backend_status));
	},
	'a long back-off');
is(scalar log_lines($node, qr/WARNING/, $position), 1, 'another outage: another warning');
$redis->start;
my $started = time;
$session->do(q(SELECT dispatch.resume_backend('default')));
ok(flush(), 'resume_backend() resumes');
cmp_ok(time - $started, '<', 2, 'at once');
is_deeply([ stream_data($redis) ], [ 1 .. $n ], 'and all is there');

# Redis does not let us in: mended without a restart
$position = log_position($node);
my $worker = backend_pid($node, 'default');
my $right = canary() . '-right';
$redis->cli('CONFIG', 'SET', 'requirepass', $right);
$redis->{conf}{requirepass} = $right;
$redis->client->client('kill', 'type', 'normal');
publish(3);
wait_for_state($node, 'default', 'configuration error');
$session->do(q(SELECT dispatch.alter_backend('default', ?)), undef,
	'{"password": "' . canary() . '-wrong"}');
publish(3);
sleep 1;
wait_for_state($node, 'default', 'configuration error');
$session->do(q(SELECT dispatch.alter_backend('default', ?)), undef,
	'{"password": "' . $right . '"}');
ok(flush(), 'the right password mends it');
is_deeply([ stream_data($redis) ], [ 1 .. $n ], 'and all is there');
is(backend_pid($node, 'default'), $worker, 'the worker is still the same');

# Redis is full: it refuses in the middle of a stream
$position = log_position($node);
$redis->cli('CONFIG', 'SET', 'maxmemory', '4mb');
$session->do(
	q(SELECT dispatch.publish('n', 's', to_jsonb(? + i), key => 'k', subject => repeat('x', 1000))
	  FROM generate_series(1, 5000) AS i), undef, $n);
$n += 5000;
wait_for_state($node, 'default', 'outage');
sleep 1;
my $stored = $redis->client->xlen('events');
cmp_ok($stored, '<', $n, 'full: not all are stored');
like(status()->{last_error}, qr/memory|OOM/i, 'full: Redis said why');
is(scalar log_lines($node, qr/WARNING/, $position), 1, 'full: a single warning');
is(dead_letters(), 0, 'full: no event has failed');
$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
ok(flush(), 'the rest goes out when there is room');
is_deeply([ stream_data($redis) ], [ 1 .. $n ], 'in order, exactly once');

# Redis is frozen, with events in flight
$position = log_position($node);
$session->do(q(SELECT dispatch.alter_backend('default', '{"socket_timeout": 3}')));
publish(1);
ok(flush(), 'an event before the frost');
$redis->sigstop;
publish(10);
my $activity = q(SELECT state, backend_xid, backend_xmin, xact_start FROM pg_stat_activity
	WHERE backend_type = 'dispatch worker');
wait_until(sub { status()->{in_flight} > 0 }, 'events in flight');
my @seen = map { sleep 0.1; [ $session->selectrow_array($activity) ] } 1 .. 10;
is_deeply(\@seen, [ ([ 'idle', undef, undef, undef ]) x 10 ],
	'frozen: no transaction and no snapshot is open while a reply is due');
wait_for_state($node, 'default', 'outage');
is(scalar log_lines($node, qr/WARNING/, $position), 1, 'frozen: a single warning');
$redis->sigcont;
ok(flush(), 'a thawed Redis gets the rest');
my (%count, @firsts);
$count{$_}++ || push @firsts, $_ foreach stream_data($redis);
is_deeply(\@firsts, [ 1 .. $n ], 'nothing is lost, and the order is kept');
cmp_ok($count{1}, '==', 1, 'what was settled long ago is not sent again');
is(backend_pid($node, 'default'), $worker, 'one worker has gone through all of it');
is(dead_letters(), 0, 'and none of it has cost an event its attempt');

$node->stop;
done_testing();
