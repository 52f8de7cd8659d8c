# The worker is killed at random moments while events of several keys fail and
# succeed. Whatever was in its memory is forgotten; what is stored must agree
# with itself: an event has a row among the exceptions if and only if the
# stored position has passed it, so none is lost, none is both delivered and a
# dead letter, and none of a key goes ahead of one that it must follow.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use SqlSink;

my $ROUNDS = 10;
my $seed = $ENV{DISPATCH_SEED} // time ^ $$;
srand $seed;
note("seed $seed");

my $node = new_cluster('crashes', q(
	restart_after_crash = on
	dispatch.retry_backoff = off
	dispatch.retry_delay = '100 ms'
	dispatch.max_retries = 2
	wal_writer_delay = '20 ms'));
my $session = session($node);

sub sql { return value_of($session, @_); }

# What the sink notes and what the worker stores are lost by a crash in the order
# of the WAL, that is never the first without the second.
$session->do(q(CREATE EXTENSION dispatch));
create_counting_sink($session);
create_sink_backend($session, 'default', batch_size => 10);

my $n = 0;

# A transaction of a few events that fail up to twice (and then are delivered)
# or for ever (and become dead letters).
sub publish
{
	$session->begin_work;
	foreach (1 .. 1 + rand 10)
	{
		my $fail = (0, 0, 0, 0, 1, 2, 1_000)[ rand 7 ];

		$n++;
		$session->do(q(SELECT dispatch.publish('t', 's', ?, key => ?)),
			undef, qq({"n": $n, "fail": $fail}), 'k' . int rand 6);
	}
	$session->commit;
	return;
}

# Invariants of what is stored, whatever the worker has in mind.
sub contradictions
{
	my %bad = (
		'a row for an event that the position has not passed' => q(
			SELECT count(*) FROM dispatch.exceptions AS x
			JOIN dispatch.outbox AS o USING (event_id)
			LEFT JOIN dispatch.positions AS p ON p.backend_id = o.backend_id
			WHERE p.backend_id IS NULL OR NOT (pg_visible_in_snapshot(o.xid, p.before_snapshot)
				OR pg_visible_in_snapshot(o.xid, p.upto_snapshot) AND o.id <= p.settled_id)),
		'passed by the position, but neither delivered nor an exception' => q(
			SELECT count(*) FROM dispatch.outbox AS o
			JOIN dispatch.positions AS p ON p.backend_id = o.backend_id
			WHERE (pg_visible_in_snapshot(o.xid, p.before_snapshot)
				OR pg_visible_in_snapshot(o.xid, p.upto_snapshot) AND o.id <= p.settled_id)
			AND NOT EXISTS (SELECT FROM dispatch.exceptions AS x WHERE x.event_id = o.event_id)
			AND NOT EXISTS (SELECT FROM sink.attempts AS a WHERE a.event_id = o.event_id AND a.ok)),
		'delivered and a dead letter' => q(
			SELECT count(*) FROM dispatch.exceptions AS x JOIN sink.attempts AS a USING (event_id)
			WHERE x.status = 'failed' AND a.ok));

	# In one snapshot: the worker goes on meanwhile.
	$session->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
	my @found = grep { sql($bad{$_}) > 0 } sort keys %bad;
	$session->do('COMMIT');
	return @found;
}

my @found;
foreach my $round (1 .. $ROUNDS)
{
	# Between two crashes something is stored: else the worker would rightly
	# take an event for the one that kills it.
	publish() foreach 1 .. 4;
	wait_until(sub { sql(q(SELECT dispatch.flush('20 s'))) }, 'progress', 30);
	publish() foreach 1 .. 4;
	sleep rand 0.4;
	push @found, map { "round $round: $_" } contradictions();
	my $pid = backend_pid($node, 'default');
	kill 'KILL', $pid if defined $pid;
	if (defined $pid)
	{
		wait_until(sub { !$session->ping }, 'the crash', 20);
		$session = wait_for_session($node);
	}
	push @found, map { "after round $round: $_" } contradictions();
}
is_deeply(\@found, [], 'what is stored agrees with itself, before and after each crash');

wait_until(
	sub {
		sql(q(SELECT dispatch.flush('20 s')))
		  && sql('SELECT pending FROM dispatch.backend_status') == 0;
	},
	'all is settled', 40);
is_deeply([ contradictions() ], [], 'and in the end');
is(sql('SELECT count(*) FROM dispatch.outbox'), $n, 'all that was committed is there');
my $counts = $session->selectrow_hashref(q(
	SELECT count(*) FILTER (WHERE d AND NOT l) AS delivered,
		count(*) FILTER (WHERE l AND NOT d) AS dead, count(*) FILTER (WHERE l AND d) AS both,
		count(*) FILTER (WHERE NOT l AND NOT d) AS none
	FROM (SELECT
		EXISTS (SELECT FROM sink.attempts AS a WHERE a.event_id = o.event_id AND a.ok) AS d,
		EXISTS (SELECT FROM dispatch.dead_letters AS l WHERE l.event_id = o.event_id) AS l
		FROM dispatch.outbox AS o) AS e));
is($counts->{both}, 0, 'no event is delivered and a dead letter');
is($counts->{none}, 0, 'no event is neither');
is(sql(q(SELECT count(*) FROM dispatch.dead_letters WHERE data ->> 'fail' <> '1000')), 0,
	'no attempt was counted twice: only what fails for ever is a dead letter');
cmp_ok($counts->{dead}, '>', 0, 'there are dead letters');
is(sql(q(SELECT published FROM dispatch.backend_status)), $counts->{delivered},
	'the counter of published events is right, though it was stored but now and then');

# Order: events that never failed come as they were published, by key.
is(sql(q(SELECT count(*) FROM (
	SELECT n, lag(n) OVER (PARTITION BY key ORDER BY min(id)) AS previous
	FROM sink.attempts GROUP BY key, n HAVING bool_and(ok)) AS o WHERE n < previous)), 0,
	'first deliveries of events that did not fail are in the order of their key');

# And none was sent while an earlier one of its key was known to have failed: the
# last attempt of that one, if it was not its last at all, was in the same call.
is(sql(q(
	SELECT count(*) FROM (
		SELECT DISTINCT ON (key, n) * FROM sink.attempts ORDER BY key, n, id) AS s
	JOIN LATERAL (
		SELECT DISTINCT ON (a.n) a.call, a.ok, a.id, a.event_id FROM sink.attempts AS a
		WHERE a.key = s.key AND a.n < s.n AND a.id < s.id ORDER BY a.n, a.id DESC) AS f ON true
	WHERE NOT f.ok AND f.call < s.call
	AND EXISTS (SELECT FROM sink.attempts AS l WHERE l.event_id = f.event_id AND l.id > f.id))), 0,
	'no event is sent past one that has failed');

my @unclean = log_lines($node, qr/PANIC:|TRAP:|could not (?:read|store|take)/);
is_deeply(\@unclean, [], 'the log has no complaint');
$node->stop;
done_testing();
