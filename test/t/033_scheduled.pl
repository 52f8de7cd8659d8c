# Events that are scheduled are sent when they are due, in that order, by
# whatever server is running then; not before, and not if the transaction did
# not commit.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('scheduled', "dispatch.sleep_time = '1h'");
my $session = session($node);

sub sql { return value_of($session, @_); }

$session->do('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);

# Publishes with the given time, an expression of SQL; returns the event's id.
sub publish_at
{
	my ($when, $data, %options) = @_;

	return sql(
		qq(SELECT dispatch.publish('t', 's', ?, scheduled_at => $when, key => ?, backend => ?)),
		$data, $options{key}, $options{backend});
}

sub event
{
	return $session->selectrow_hashref('SELECT * FROM dispatch.events WHERE event_id = ?',
		undef, @_);
}

sub flush { return sql(q(SELECT dispatch.flush('20 s'))); }

sub wait_for_entries
{
	my ($count) = @_;

	wait_until(sub { stream_data($redis) >= $count }, "$count entries", 20);
	return;
}

# ---- Future and past

my $due = time + 2;
my $id = publish_at("now() + interval '2 s'", '"later"');
is(event($id)->{status}, 'scheduled', 'an event that is not due yet');
ok(sql(q(SELECT next_attempt_at > now() + interval '1 s' FROM dispatch.events
	WHERE event_id = ?), $id), 'the view tells when it is');
is(sql('SELECT pending FROM dispatch.backend_status'), 1, 'it is pending');
publish_at("now() - interval '1 year'", '"past"');
publish_at("'-infinity'", '"for ever"');
publish_at('now()', '"now"');
publish_at('NULL', '"null"');
ok(flush(), 'flush() does not wait for what is not due');
is_deeply([ stream_data($redis) ], [ 'past', 'for ever', 'now', 'null' ],
	'times in the past are now, in the order of publication');
wait_for_entries(5);
my $late = time - $due;
ok($late > -0.1 && $late < 1, 'it is sent when it is due') or diag("$late s late");
wait_until(sub { event($id)->{status} eq 'published' }, 'its status');
is(sql('SELECT count(*) FROM dispatch.scheduled'), 0, 'and is scheduled no more');
ok(!eval { publish_at("'infinity'", '1'); 1 }, 'infinity is refused');
is($session->state, '22023', '... with an error');

# ---- Order

$redis->cli('DEL', 'events');
publish_at("now() + interval '$_ ms'", $_, key => 'k') foreach 1_500, 900, 1_200, 600;
publish_at("date_trunc('second', now()) + interval '4 s'", $_, key => 'k') foreach 10_001 .. 10_020;
wait_for_entries(24);
is_deeply([ stream_data($redis) ], [ 600, 900, 1_200, 1_500, 10_001 .. 10_020 ],
	'by their times, and by their publication where those are the same');

# ---- Transactions

$redis->cli('DEL', 'events');
$session->begin_work;
publish_at("now() + interval '0.5 s'", '"never"');
$session->rollback;
$session->begin_work;
publish_at("clock_timestamp() + interval '0.3 s'", '"overdue"');
sleep 1;
is(scalar(stream_data($redis)), 0, 'not before the commit');
$session->commit;
wait_for_entries(1);
sleep 0.3;
is_deeply([ stream_data($redis) ], ['overdue'], 'what was due before the commit goes at once');

# ---- Restarts

$redis->cli('DEL', 'events');
publish_at("now() + interval '4 s'", '"after the restart"');
publish_at("now() + interval '1 s'", '"while it was down"');
$session->disconnect;
$node->stop;
sleep 1.2;
$node->start;
$session = session($node);
wait_for_entries(2);
is_deeply([ stream_data($redis) ], [ 'while it was down', 'after the restart' ],
	'scheduled events survive a restart, and go when they are due');

# ---- Many at once, and none behind them waits

$redis->cli('DEL', 'events');
$session->do(q(SELECT dispatch.publish('t', 's', to_jsonb(i), key => 'k' || i % 7,
	scheduled_at => date_trunc('second', now()) + interval '3 s' + (i % 3) * interval '1 ms')
	FROM generate_series(1, 5000) AS i));
is(sql('SELECT count(*) FROM dispatch.scheduled'), 5_000, '5,000 are scheduled');
$due = sql(q(SELECT extract(epoch FROM max(scheduled_at)) FROM dispatch.scheduled));
wait_for_entries(5_000);
cmp_ok(time - $due, '<', 10, 'they all go when they are due');
is_deeply([ stream_data($redis) ],
	[ map { my $rest = $_; grep { $_ % 3 == $rest } 1 .. 5_000 } 0 .. 2 ],
	'in order, each once');

# ---- A paused backend, and dropping

$redis->cli('DEL', 'events');
create_redis_backend($node, $redis, name => 'other', stream_name => 'other');
$session->do(q(SELECT dispatch.pause_backend('other')));
wait_for_state($node, 'other', 'paused');
$id = publish_at("now() + interval '0.3 s'", '"patience"', backend => 'other');
wait_until(sub { event($id)->{status} eq 'pending' }, 'a paused backend: what is due is pending');
$session->do(q(SELECT dispatch.resume_backend('other')));
wait_until(sub { event($id)->{status} eq 'published' }, 'resumed: it is delivered');
$id = publish_at("now() + interval '1 h'", '"far away"', backend => 'other');
ok(!eval { $session->do(q(SELECT dispatch.drop_backend('other'))); 1 },
	'a backend with scheduled events cannot be dropped');
is($session->state, '55006', '... which is an error');
like($session->errstr, qr/undelivered.*HINT.*force/s, '... that says what to do');
$session->do(q(SELECT dispatch.drop_backend('other', force => true)));
wait_until(sub { !sql(q(SELECT count(*) FROM dispatch.backends WHERE name = 'other')) },
	'the forced drop');
is(sql('SELECT count(*) FROM dispatch.scheduled'), 0, 'force: they are given up');

# ---- Very many: no look is at all of them

$session->do(q(SELECT dispatch.publish('t', 's', to_jsonb(i),
	scheduled_at => now() + interval '1 day' + i * interval '1 s')
	FROM generate_series(1, 100000) AS i));
sleep 1;
my @pids = map { process_ids($node, $_) } qw(manager worker);
my $before = cpu_seconds(@pids);
foreach (1 .. 60)
{
	publish_at("now() + interval '2 days'", '"one more"');
	sleep 0.02;
}
cmp_ok(cpu_seconds(@pids) - $before, '<', 0.4, 'one more of 100,000 costs nobody a look at all');

$session->do('CREATE DATABASE copy');
my $copy = session($node, 'copy');
$copy->do('CREATE EXTENSION dispatch');
$copy->do(q(INSERT INTO dispatch.backends (id, name, transport, identity, owner)
	SELECT 1, 'default', 'notify', 'another/1', current_user));
$copy->do(q(INSERT INTO dispatch.outbox_0 (xid, id, created_at, event_id, backend_id, segment,
		event_type, source, data)
	SELECT '5', i, now(), gen_random_uuid(), 1, 0, 't', 's', to_jsonb(i)
	FROM generate_series(1, 200000) AS i));
my $started = time;
$copy->do('SELECT dispatch.adopt()');
cmp_ok(time - $started, '<', 10, 'adopt() of 200,000 undelivered events takes seconds');
is($copy->selectrow_array(q(SELECT count(*) FROM dispatch.outbox)), 200_000, 'and moves them all');
is($copy->selectrow_array(q(SELECT count(*) FROM (
	SELECT data::int < lag(data::int) OVER (ORDER BY id) AS backwards FROM dispatch.outbox) AS o
	WHERE backwards)), 0, 'in their order');
$copy->disconnect;

log_ok($node);
$node->stop;
done_testing();
