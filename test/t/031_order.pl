# Order through failures. With 'key', once the failure of an event is known no
# later event of its key is delivered before it is settled; with 'strict' it is
# never overtaken, nor are two events of a key ever sent at once; with 'none'
# it holds up nobody. All of that for a sequence of deliveries as the receiver
# saw it, with many keys, random failures, restarts and pauses in between.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use FakeRedis;
use SqlSink;

my $node = new_cluster('order',
	"dispatch.retry_backoff = off\ndispatch.retry_delay = '60 ms'\ndispatch.max_retries = 2");
my $session = session($node);

sub sql { return value_of($session, @_); }

$session->do(q(CREATE EXTENSION dispatch));
create_counting_sink($session);

# The type of an event is the name of its backend: what came is told by it.
my $n = 0;

sub publish
{
	my ($backend, $fail, $key, $count) = @_;

	return @{
		$session->selectcol_arrayref(
			q(SELECT dispatch.publish(?, 's', jsonb_build_object('n', ? + i, 'fail', ?::int),
				backend => ?, key => ?) FROM generate_series(1, ?) AS i),
			undef, $backend, ($n += $count // 1) - ($count // 1), $fail, $backend, $key,
			$count // 1) };
}

sub status_of { return sql('SELECT status FROM dispatch.events WHERE event_id = ?', @_); }

# All settled: nothing is pending, neither in the log nor for another attempt.
sub settle
{
	my ($backend, $what) = @_;

	wait_until(
		sub {
			sql(q(SELECT dispatch.flush('20 s', ?)), $backend)
			  && sql('SELECT pending = 0 FROM dispatch.backend_status WHERE name = ?', $backend);
		},
		"$what: all is settled", 60);
	return;
}

sub mend
{
	$session->do('INSERT INTO sink.mended VALUES (?)', undef, $_) foreach @_;
	return;
}

# What was delivered, in order: numbers of events.
sub delivered
{
	my ($backend) = @_;

	return @{
		$session->selectcol_arrayref(
			'SELECT n FROM sink.attempts WHERE type = ? AND ok ORDER BY id', undef, $backend) };
}

# The checker. Violations of the order in the attempts to a backend, as texts.
# A failure is known when the call that it came of is over.
sub violations
{
	my ($backend, $ordering) = @_;
	my (%open, %calls, @bad);		# by key

	# The last failure of a dead letter settles it.
	foreach my $row (@{
			$session->selectall_arrayref(
				q(SELECT a.call, a.key, a.n, a.ok OR x.event_id IS NOT NULL
					AND a.id = max(a.id) OVER (PARTITION BY a.event_id) AS settled
				FROM sink.attempts AS a
				LEFT JOIN dispatch.exceptions AS x USING (event_id)
				WHERE a.type = ? AND a.key IS NOT NULL ORDER BY a.id),
				{ Slice => {} }, $backend) })
	{
		my ($call, $key, $at) = @$row{qw(call key n)};
		my $open = $open{$key} //= {};

		push @bad, map { "$at of key $key was sent while $_ had failed" }
		  grep { $at > $_ && $open->{$_} < $call } keys %$open;
		push @bad, "$at of key $key was sent with another one"
		  if $ordering eq 'strict' && $calls{$key}{$call}++;
		if ($row->{settled})
		{
			delete $open->{$at};
		}
		else
		{
			$open->{$at} = $call;
		}
	}
	return [ @bad[ 0 .. ($#bad < 4 ? $#bad : 4) ] ];
}

# Events of one key that never fail come in the order of their publication; one
# that comes again, as it may when the worker was ended, has had its place.
sub keeps_order
{
	my ($backend, $what) = @_;

	is(sql(q(SELECT count(*) FROM (
		SELECT n, lag(n) OVER (PARTITION BY key ORDER BY min(id)) AS previous
		FROM sink.attempts AS a WHERE type = ? AND key IS NOT NULL
		GROUP BY key, n HAVING bool_and(ok)) AS o
		WHERE n < previous), $backend), 0, "$what: events that did not fail are in order");
	return;
}

# ---- One key, step by step

create_sink_backend($session, 'key', max_retries => 1000);
my ($bad) = publish('key', 1_000, 'a');
wait_until(sub { status_of($bad) eq 'retrying' }, 'a failure');
my @behind = publish('key', 0, 'a', 5);
my @other = (publish('key', 0, 'b', 5), publish('key', 0, undef, 5));
ok(sql(q(SELECT dispatch.flush('20 s', 'key'))), 'flush() does not wait for retries');
is_deeply([ map { status_of($_) } @behind ], [ ('parked') x 5 ],
	'later events of the key are parked');
is_deeply([ map { status_of($_) } @other ], [ ('published') x 10 ], 'other keys and none flow on');
is_deeply([ $session->selectrow_array(
			q(SELECT pending, retrying FROM dispatch.backend_status WHERE name = 'key')) ],
	[ 6, 6 ], 'six events wait for the one');

# A restart of the worker, of the server, and a pause change nothing.
my $pid = backend_pid($node, 'key');
sql('SELECT pg_terminate_backend(?)', $pid);
wait_until(sub { (backend_pid($node, 'key') // $pid) != $pid }, 'another worker');
push @behind, publish('key', 0, 'a', 5);
$session->disconnect;
$node->restart;
$session = session($node);
push @behind, publish('key', 0, 'a', 5);
$session->do(q(SELECT dispatch.pause_backend('key')));
wait_for_state($node, 'key', 'paused');
push @behind, publish('key', 0, 'a', 5);
$session->do(q(SELECT dispatch.resume_backend('key')));
ok(sql(q(SELECT dispatch.flush('20 s', 'key'))), 'the worker is back');
is_deeply([ map { status_of($_) } @behind ], [ ('parked') x 20 ],
	'restarts and a pause: none has slipped through');
is(sql(q(SELECT count(*) FROM sink.attempts WHERE type = 'key' AND key = 'a' AND n > 1)), 0,
	'nor was one sent');
mend(1);
settle('key', 'mended');
is_deeply($session->selectcol_arrayref(
		q(SELECT n FROM sink.attempts WHERE key = 'a' AND type = 'key' AND ok ORDER BY id)),
	[ 1 .. 6, 17 .. 31 ], 'mended: all of the key go, in order');
is(sql('SELECT count(*) FROM dispatch.exceptions'), 0, 'and no row is left');

# A parked event that fails in its turn holds up those behind it, whatever the
# size of a batch.
foreach my $size (1, 2, 1000)
{
	my $name = "batch_$size";

	create_sink_backend($session, $name, max_retries => 1000, batch_size => $size);
	my ($first) = publish($name, 1_000, 'a');
	my $number = $n;
	wait_until(sub { status_of($first) eq 'retrying' }, 'a failure');
	publish($name, 3, 'a') foreach 1 .. 4;
	publish($name, 0, 'a', 4);
	ok(sql(q(SELECT dispatch.flush('20 s', ?)), $name), "batch_size $size: all have been looked at");
	mend($number);
	settle($name, "batch_size $size");
	is_deeply(violations($name, 'key'), [], "batch_size $size: parked events that fail are not overtaken");
	is(scalar(delivered($name)), 9, "batch_size $size: all are delivered");
}

# One that has become a dead letter lets the others go.
create_sink_backend($session, 'letter', max_retries => 1);
($bad) = publish('letter', 1_000, 'a');
@behind = publish('letter', 0, 'a', 3);
settle('letter', 'dead letter');
is(status_of($bad), 'failed', 'a dead letter');
is_deeply([ map { status_of($_) } @behind ], [ ('published') x 3 ], 'lets later events go');

# Parked events that were sent together: one is refused, the next came back from
# the broker without a verdict, as all of a transaction of Redis do, and is not to
# be sent again before the one that was refused.
my $redis = FakeRedis->new;

create_redis_backend($node, $redis, name => 'redis', stream_name => '{event_type}');
$session->do(q(UPDATE dispatch.backends SET max_retries = 1000 WHERE name = 'redis'));

sub publish_to_stream
{
	return sql(q(SELECT dispatch.publish(?, 's', backend => 'redis', key => 'a')), @_);
}

$redis->answer('XADD:first' => '-ERR not now');
my @chain = (publish_to_stream('first'));
wait_until(sub { status_of($chain[0]) eq 'retrying' }, 'a failure');
push @chain, map { publish_to_stream($_) } qw(second third);
ok(sql(q(SELECT dispatch.flush('20 s', 'redis'))), 'redis: all have been looked at');
$redis->answer('XADD:second' => '-ERR nor now');
wait_until(sub { sql('SELECT attempts FROM dispatch.events WHERE event_id = ?', $chain[1]) >= 3 },
	'failures of a parked event');
is_deeply([ map { status_of($_) } @chain ], [qw(published retrying parked)],
	'a parked event that came back does not overtake the one that failed before it');
$redis->answer;
settle('redis', 'mended');
is_deeply([ map { status_of($_) } @chain ], [ ('published') x 3 ], 'mended: they go');

# ---- 'none'

create_sink_backend($session, 'none', ordering => 'none', max_retries => 1000);
($bad) = publish('none', 1_000, 'a');
wait_until(sub { status_of($bad) eq 'retrying' }, 'a failure');
@behind = publish('none', 0, 'a', 5);
ok(sql(q(SELECT dispatch.flush('20 s', 'none'))), q('none': all have been looked at));
is_deeply([ map { status_of($_) } @behind ], [ ('published') x 5 ], q('none': nobody waits));
is(sql(q(SELECT count(*) FROM dispatch.exceptions WHERE status = 'parked')), 0,
	q('none': nothing is parked));

# Without a key there is nothing to wait for either.
($bad) = publish('key', 1_000, undef);
wait_until(sub { status_of($bad) eq 'retrying' }, 'a failure');
@behind = publish('key', 0, undef, 5);
ok(sql(q(SELECT dispatch.flush('20 s', 'key'))), 'no key: all have been looked at');
is_deeply([ map { status_of($_) } @behind ], [ ('published') x 5 ], 'no key: nobody waits');

# ---- Many keys, random failures

srand 4711;
foreach my $ordering (qw(key strict))
{
	my $name = "random_$ordering";

	create_sink_backend($session, $name, ordering => $ordering, batch_size => 50);
	foreach my $round (1 .. 6)
	{
		foreach my $transaction (1 .. 25)
		{
			$session->begin_work;
			publish($name, (0, 0, 0, 0, 0, 0, 1, 2, 3)[ rand 9 ],
				rand() < 0.9 ? 'k' . int rand 12 : undef)
			  foreach 1 .. 1 + rand 8;
			$session->commit;
		}
		if ($round == 2 || $round == 4)
		{
			sql('SELECT pg_terminate_backend(pid) FROM dispatch.backend_status WHERE name = ?',
				$name);
		}
		elsif ($round == 3)
		{
			$session->do('SELECT dispatch.pause_backend(?)', undef, $name);
			sleep 0.2;
			$session->do('SELECT dispatch.resume_backend(?)', undef, $name);
		}
		elsif ($round == 5)
		{
			$session->do('UPDATE dispatch.backends SET batch_size = 3 WHERE name = ?',
				undef, $name);
		}
	}
	settle($name, $ordering);
	my ($all, $dead) = $session->selectrow_array(
		q(SELECT count(*), count(*) FILTER (WHERE status = 'failed')
		FROM dispatch.events WHERE backend = ?), undef, $name);
	is(sql('SELECT count(DISTINCT n) FROM sink.attempts WHERE type = ? AND ok', $name) + $dead,
		$all, "$ordering: all are either delivered or dead letters");
	cmp_ok($dead, '>', 10, "$ordering: there are dead letters, too");
	is_deeply(violations($name, $ordering), [], "$ordering: no event overtakes one that has failed");
	keeps_order($name, $ordering);
}

log_ok($node, qr/could not/);
$node->stop;
done_testing();
