# Very many events fail at once. There is a limit to how many may wait for
# another attempt: beyond it the backend is blocked, reads no more, and says so;
# and all of them are tried again when somebody asks for it.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use FakeRedis;
use SqlSink;

my $LIMIT = 100_000;			# RETRY_QUEUE_MAX

my $node = new_cluster('many', q(
	dispatch.max_retries = 0
	shared_buffers = '256MB'
	max_wal_size = '4GB'
	log_statement = none));
my $session = session($node);

sub sql { return value_of($session, @_); }

$session->do(q(CREATE EXTENSION dispatch));
create_sink($session, q(
		CREATE TABLE sink.state (mended boolean, delivered bigint);
		INSERT INTO sink.state VALUES (false, 0)),
	plpgsql => q(
		BEGIN
			IF (SELECT mended FROM sink.state) THEN
				UPDATE sink.state SET delivered = delivered + cardinality(events);
			ELSE
				RETURN QUERY SELECT e.event_id, 'not today', false FROM unnest(events) AS e;
			END IF;
		END));
create_sink_backend($session, 'default');

# ---- More dead letters than the limit, all tried again

my $count = $LIMIT + 3_000;
$session->do(
	q(SELECT count(dispatch.publish('t', 's', to_jsonb(i))) FROM generate_series(1, ?) AS i),
	undef, $count);
ok(sql(q(SELECT dispatch.flush('60 s'))), 'they all fail');
is(sql('SELECT failed FROM dispatch.backend_status'), $count, 'and are dead letters');
$session->do('UPDATE sink.state SET mended = true');
is(sql('SELECT dispatch.retry_failed()'), $count, 'they are all to be tried again');
eval {
	wait_until(sub { sql('SELECT delivered FROM sink.state') >= $count }, 'all are delivered', 30);
};
is(sql('SELECT delivered FROM sink.state'), $count, 'retry_failed() of more than the limit');
eval {
	wait_until(sub { !sql('SELECT pending FROM dispatch.backend_status') },
		'nothing is pending', 5);
};
is(sql('SELECT count(*) FROM dispatch.exceptions'), 0, 'no row is left');

# ---- Blocked

$session->do('DELETE FROM dispatch.exceptions');
$session->do('SELECT dispatch.announce_exceptions()');
$session->do('UPDATE sink.state SET mended = false');
$session->do(q(UPDATE dispatch.backends SET max_retries = 10, retry_delay = '1 hour'));
$session->do(
	q(SELECT count(dispatch.publish('t', 's', to_jsonb(i))) FROM generate_series(1, ?) AS i),
	undef, $LIMIT + 5_000);
wait_for_state($node, 'default', 'blocked');
my $open = 0;
wait_until(
	sub {
		my $before = $open;

		sleep 0.5;
		$open = sql(q(SELECT count(*) FROM dispatch.exceptions WHERE status = 'retrying'));
		return $open == $before && $open > 0;
	},
	'all outcomes are stored', 30);
ok($open > $LIMIT && $open <= $LIMIT + 3_000, 'no more than the limit and what was in flight fail')
  or diag($open);
is(sql('SELECT pending FROM dispatch.backend_status'), $LIMIT + 5_000, 'all are pending');

$session->do('UPDATE sink.state SET mended = true, delivered = 0');
$session->do('UPDATE dispatch.exceptions SET next_attempt_at = now()');
$session->do('SELECT dispatch.announce_exceptions()');
eval {
	wait_until(sub { !sql('SELECT pending FROM dispatch.backend_status') },
		'all are delivered', 30);
};
is(sql('SELECT pending FROM dispatch.backend_status'), 0, 'it goes on when they are settled');
is(sql('SELECT delivered FROM sink.state'), $LIMIT + 5_000, 'each is delivered, once');

# ---- More rows than the queue holds: events of keys that it does not know wait

$session->do('SELECT dispatch.pause_backend(?)', undef, 'default');
wait_until(sub { !defined backend_pid($node, 'default') }, 'the end of the worker');
$session->do('UPDATE sink.state SET delivered = 0');
$session->do(q(INSERT INTO dispatch.exceptions (xid, id, created_at, event_id, backend_id, segment,
		event_type, source, key, data, status, attempts, next_attempt_at)
	SELECT '1', i, now(), gen_random_uuid(), b.id, -1, 't', 's', CASE i WHEN $1 THEN 'last' END,
		'1', 'retrying', 1, now() + interval '1 hour'
	FROM dispatch.backends AS b, generate_series(1, $1) AS i), undef, $LIMIT + 10);
$session->do(q(UPDATE dispatch.exceptions SET next_attempt_at = now() WHERE id = 1));
$session->do('SELECT dispatch.resume_backend(?)', undef, 'default');
wait_until(sub { sql('SELECT delivered FROM sink.state') == 1 }, 'the one that is due');
$session->do(q(SELECT dispatch.publish('t', 's', '2', key => 'last')));
sleep 1;
is(sql('SELECT delivered FROM sink.state'), 1, 'an event does not overtake one that is not loaded');
is(backend_state($node, 'default'), 'blocked', 'the backend says so');
$session->do(q(DELETE FROM dispatch.exceptions WHERE id BETWEEN 2 AND 20));
$session->do('SELECT dispatch.announce_exceptions()');
wait_until(
	sub {
		sql(q(SELECT count(*) FROM dispatch.exceptions WHERE status = 'parked'));
	},
	'the event behind the one of its key', 30);
wait_for_state($node, 'default', 'running');
$session->do(
	q(UPDATE dispatch.exceptions SET next_attempt_at = now() WHERE status = 'retrying'));
$session->do('SELECT dispatch.announce_exceptions()');
eval {
	wait_until(sub { !sql('SELECT pending FROM dispatch.backend_status') },
		'all are delivered', 30);
};
is(sql('SELECT delivered FROM sink.state'), $LIMIT + 10 - 19 + 1, 'each is delivered, once');

# ---- It goes on by itself when enough of them are settled

$session->do('SELECT dispatch.pause_backend(?)', undef, 'default');
wait_until(sub { !defined backend_pid($node, 'default') }, 'the end of the worker');
$session->do(q(INSERT INTO dispatch.exceptions (xid, id, created_at, event_id, backend_id, segment,
		event_type, source, data, status, attempts, next_attempt_at)
	SELECT '1', i, now(), gen_random_uuid(), b.id, -1, 't', 's', '1', 'retrying', 1,
		now() + CASE WHEN i <= 15000 THEN interval '0' ELSE interval '1 hour' END
	FROM dispatch.backends AS b, generate_series(1, ?) AS i), undef, $LIMIT + 10);
$session->do('SELECT dispatch.resume_backend(?)', undef, 'default');
$session->do(q(SELECT dispatch.publish('t', 's', '3')));
eval {
	wait_until(
		sub {
			sql(q(SELECT status = 'published' FROM dispatch.events WHERE data = '3'));
		},
		'an event behind', 20);
};
is($@, '', 'the backend goes on when there is room for all again');
wait_for_state($node, 'default', 'running');

# ---- Rows that become too many while events of their keys wait for the broker

$session->do('DELETE FROM dispatch.exceptions');
my $redis = FakeRedis->new;
my $refusal = '-WRONGTYPE Operation against a key holding the wrong kind of value';
$redis->answer('XADD:bad' => $refusal,
	'XADD:ok' => q(-OOM command not allowed when used memory > 'maxmemory'));
create_redis_backend($node, $redis, name => 'second', stream_name => '{event_type}');
$session->do('SELECT dispatch.pause_backend(?)', undef, 'second');
$session->do(q(UPDATE dispatch.backends SET max_retries = 10, retry_delay = '1 hour'
	WHERE name = 'second'));
my $insert = q(INSERT INTO dispatch.exceptions (xid, id, created_at, event_id, backend_id, segment,
		event_type, source, key, data, status, attempts, next_attempt_at)
	SELECT '1', i, now(), gen_random_uuid(), b.id, -1, 't', 's', $3,
		'1', 'retrying', 1, now() + interval '1 hour'
	FROM dispatch.backends AS b, generate_series($1::int, $2::int) AS i WHERE b.name = 'second');
$session->do($insert, undef, 1, $LIMIT - 10, undef);
$session->do(q(SELECT count(dispatch.publish('bad', 's', '1', 'second', key => 'k' || i))
	FROM generate_series(1, 60) AS i));
$session->do(q(SELECT dispatch.publish('ok', 's', '1', 'second', key => k)
	FROM unnest(ARRAY['k60', 'unknown', NULL]) AS k));
$session->do('SELECT dispatch.resume_backend(?)', undef, 'second');
wait_until(sub { sql(q(SELECT count(*) FROM dispatch.exceptions WHERE event_type = 'bad')) == 60 },
	'those that are refused', 60);

# One that the worker has not heard of, behind more than it can load.
$session->do($insert, undef, 1_000_000, 1_000_000, 'unknown');
$session->do('SELECT dispatch.announce_exceptions()');
sleep 1;
$redis->answer('XADD:bad' => $refusal);
my $of = q(SELECT status FROM dispatch.events WHERE event_type = 'ok' AND key = ?);
my $delivered = q(SELECT w.published FROM dispatch.workers() AS w
	JOIN dispatch.backends AS b ON b.id = w.backend_id WHERE b.name = 'second');
wait_until(sub { sql($delivered) == 1 }, 'the one without a key', 60);
isnt(sql($of, $_), 'published', "$_: not before the one that has failed")
  foreach qw(k60 unknown);
$session->do(q(DELETE FROM dispatch.exceptions WHERE id < 1000));
$session->do('SELECT dispatch.announce_exceptions()');
wait_until(sub { sql(q(SELECT count(*) FROM dispatch.exceptions WHERE status = 'parked')) == 2 },
	'both are parked', 60);

log_ok($node, qr/could not/);
$node->stop;
done_testing();
