# Dead letters: they are tried again, or given up, by hand, by one session at a
# time; they expire; and what is not one is told so.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use SqlSink;

# Houses are kept twice a second with a retention this short.
my $node = new_cluster('dead_letters', q(
	dispatch.retry_backoff = off
	dispatch.retry_delay = '50 ms'
	dispatch.max_retries = 1
	dispatch.published_retention = '10 s'));
my $session = session($node);

sub sql { return value_of($session, @_); }

# A backend that fails until it is mended; a "permanent" event is refused.
$session->do(q(CREATE EXTENSION dispatch));
create_sink($session, q(
		CREATE TABLE sink.delivered (id bigserial, event_id uuid, data jsonb);
		CREATE TABLE sink.mended (mended boolean);
		INSERT INTO sink.mended VALUES (false)),
	each_event => q(
		IF (SELECT mended FROM sink.mended) THEN
			INSERT INTO sink.delivered (event_id, data)
			VALUES (event.event_id, event.body::jsonb);
		ELSE
			RETURN NEXT (event.event_id, 'not today', false)::dispatch.failure;
		END IF;));

sub publish
{
	my ($backend, $type, $data, $key) = @_;

	return sql(q(SELECT dispatch.publish(?, 's', ?, backend => ?, key => ?)),
		$type, $data, $backend, $key);
}

sub mend { $session->do('UPDATE sink.mended SET mended = ?', undef, @_); return; }

sub status_of { return sql('SELECT status FROM dispatch.events WHERE event_id = ?', @_); }

sub wait_for_status
{
	my ($status, @ids) = @_;

	foreach my $id (@ids)
	{
		wait_until(sub { status_of($id) eq $status }, "status $status", 20);
	}
	return;
}

sub dead_letters
{
	return sql(q(SELECT count(*) FROM dispatch.dead_letters WHERE backend = ?), @_);
}

# The statement fails: SQLSTATE, and a pattern for the message and the hint.
sub fails
{
	my ($statement, $arguments, $state, $pattern, $what) = @_;

	eval { $session->do($statement, undef, @$arguments); 1 } and return fail("$what: no error");
	is($session->state, $state, "$what: SQLSTATE");
	like($session->errstr, $pattern, "$what: message");
	return;
}

create_sink_backend($session, 'one');
create_sink_backend($session, 'two');
my @one = map { publish('one', 'odd.type', $_, 'k') } 1 .. 3;
my $null = publish('one', 'even.type', 'null');
my @two = map { publish('two', 'odd.type', $_) } 4 .. 6;
wait_for_status('failed', @one, $null, @two);

# ---- The whole event

is_deeply($session->selectrow_hashref(
		q(SELECT event_id, backend, event_type, source, subject, key, data, options, attempts,
			first_error, last_error, first_failed_at < last_failed_at AS later
		FROM dispatch.dead_letters WHERE event_id = ?), undef, $one[0]),
	{
		event_id => $one[0], backend => 'one', event_type => 'odd.type', source => 's',
		subject => undef, key => 'k', data => '1', options => undef, attempts => 2,
		first_error => 'not today', last_error => 'not today', later => 1
	},
	'a dead letter has the whole event');
is(sql('SELECT data FROM dispatch.dead_letters WHERE event_id = ?', $null), 'null',
	'JSON null is data there, too');

# ---- What is not a dead letter

my $nobody = '00000000-0000-7000-8000-000000000000';
mend(1);
my $published = publish('two', 't', 7);
wait_for_status('published', $published);
mend(0);
foreach my $function (qw(retry discard))
{
	my $call = "SELECT dispatch.$function(?)";
	my $hint = qr/no dead letter.*HINT:.*dispatch\.dead_letters/s;

	fails($call, [$nobody], '42704', $hint, "$function() of an unknown event");
	fails($call, [$published], '42704', $hint, "$function() of a published event");
	fails($call, [undef], '22004', qr/must not be null/, "$function() of NULL");
	fails("SELECT dispatch.$function(?, 'two')", [ $one[0] ], '42704', $hint,
		"$function() for another backend");
	fails("SELECT dispatch.$function(?, 'nowhere')", [ $one[0] ], '42704',
		qr/backend "nowhere" does not exist.*HINT:  Backends are: one, two/s,
		"$function() for an unknown backend");
}
fails(q(SELECT dispatch.retry_failed('nowhere')), [], '42704', qr/"nowhere" does not exist.*HINT/s,
	'retry_failed() of an unknown backend');
is(sql(q(SELECT dispatch.retry_failed(event_type => 'no.type'))), 0, 'retry_failed() of nothing');
is(dead_letters('one') + dead_letters('two'), 7, 'none of this has done anything');

# ---- retry()

$session->do('SELECT dispatch.retry(?)', undef, $one[0]);
fails('SELECT dispatch.retry(?)', [ $one[0] ], '42704', qr/no dead letter/, 'retry() twice')
  if status_of($one[0]) ne 'failed';
wait_for_status('failed', $one[0]);
is(sql('SELECT attempts FROM dispatch.dead_letters WHERE event_id = ?', $one[0]), 2,
	'retry(): attempts are counted from 0');
is(sql('SELECT count(*) FROM sink.delivered WHERE event_id = ?', $one[0]), 0,
	'and it has failed again');
$session->begin_work;
$session->do('SELECT dispatch.retry(?)', undef, $one[0]);
$session->rollback;
is(status_of($one[0]), 'failed', 'retry() rolled back');
mend(1);
sleep 0.3;
is(status_of($one[0]), 'failed', 'nothing comes of it');
$session->do(q(SELECT dispatch.retry(?, 'one')), undef, $one[1]);
wait_for_status('published', $one[1]);
is(sql('SELECT data FROM sink.delivered WHERE event_id = ?', $one[1]), 2,
	'retry(): the same event, with its id');
is(status_of($one[0]), 'failed', 'and no other');

# Two sessions at once: one of them does it.
my $other = session($node);
$session->begin_work;
$session->do('SELECT dispatch.retry(?)', undef, $one[2]);
$other->do('SET lock_timeout = 0');
my $rival = $other->prepare('SELECT dispatch.retry(?)', { pg_async => DBD::Pg::PG_ASYNC() });
$rival->execute($one[2]);
wait_until(
	sub { sql(q(SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock')) == 1 },
	'the other session to wait');
$session->commit;
ok(!eval { $other->pg_result; 1 }, 'a rival retry() fails');
is($other->state, '42704', '... for it is no dead letter any more');
wait_for_status('published', $one[2]);
is(sql('SELECT count(*) FROM sink.delivered WHERE event_id = ?', $one[2]), 1,
	'the event is delivered once');

# A paused backend's goes when that is resumed.
$session->do(q(SELECT dispatch.pause_backend('two')));
wait_for_state($node, 'two', 'paused');
$session->do('SELECT dispatch.retry(?)', undef, $two[0]);
is(status_of($two[0]), 'retrying', 'retry() while the backend is paused');
$session->do(q(SELECT dispatch.resume_backend('two')));
wait_for_status('published', $two[0]);

# ---- retry_failed()

is(sql(q(SELECT dispatch.retry_failed('one', 'odd.type'))), 1,
	'retry_failed() by backend and type');
wait_for_status('published', $one[0]);
is_deeply([ map { status_of($_) } $null, @two[ 1, 2 ] ], [ ('failed') x 3 ], 'and no others');
is(sql(q(SELECT dispatch.retry_failed(event_type => 'even.type'))), 1, 'retry_failed() by type');
wait_for_status('published', $null);
is(sql('SELECT data FROM sink.delivered WHERE event_id = ?', $null), 'null',
	'JSON null has stayed');
is(sql(q(SELECT dispatch.retry_failed())), 2, 'retry_failed() of all');
wait_for_status('published', @two);
is(sql(q(SELECT dispatch.retry_failed())), 0, 'none is left');
is(sql('SELECT count(*) FROM dispatch.exceptions'), 0, 'nor a row');

# A retried letter holds up later events of its key, and goes before them, also
# when both are news of one transaction.
mend(0);
my $first = publish('one', 't', 100, 'hold');
wait_for_status('failed', $first);
$session->do(q(UPDATE dispatch.backends SET max_retries = 1000 WHERE name = 'one'));
ok(sql(q(SELECT dispatch.flush('20 s'))), 'the worker has the new configuration');
$session->begin_work;
$session->do('SELECT dispatch.retry(?)', undef, $first);
my $second = publish('one', 't', 101, 'hold');
$session->commit;
ok(sql(q(SELECT dispatch.flush('20 s'))), 'the worker has seen both');
is(status_of($second), 'parked', 'retry(): a later event waits for the letter');
mend(1);
wait_for_status('published', $first, $second);
is_deeply($session->selectcol_arrayref(
		q(SELECT data FROM sink.delivered WHERE data IN ('100', '101') ORDER BY id)),
	[ 100, 101 ], 'retry(): the key is in order again');

# So it is at whatever moment the worker looks; and a transaction that is still
# open holds up nobody.
mend(0);
$session->do(q(UPDATE dispatch.backends SET max_retries = 0 WHERE name = 'one'));
my @letters = map { publish('one', 't', 200 + $_, "race$_") } 1 .. 200;
wait_for_status('failed', @letters);
$session->do(q(UPDATE dispatch.backends SET max_retries = 1000 WHERE name = 'one'));
ok(sql(q(SELECT dispatch.flush('20 s'))), 'the worker has the new configuration again');
my $open = session($node);
$open->begin_work;
$open->do('SELECT dispatch.retry(?)', undef, $letters[0]);
my @later;
foreach my $n (2 .. 200)
{
	$session->begin_work;
	$session->do('SELECT dispatch.retry(?)', undef, $letters[ $n - 1 ]);
	push @later, publish('one', 't', 400 + $n, "race$n");
	$session->commit;
}
ok(sql(q(SELECT dispatch.flush('20 s'))), 'an open retry() holds up nobody');
$open->rollback;
is_deeply([ grep { $_ ne 'parked' } map { status_of($_) } @later ], [],
	'retry(): a later event never overtakes the letter');
mend(1);
wait_for_status('published', @later, @letters[ 1 .. 199 ]);
$session->do('SELECT dispatch.discard(?)', undef, $letters[0]);
$session->do(q(UPDATE dispatch.backends SET max_retries = NULL WHERE name = 'one'));

# ---- discard()

mend(0);
my ($gone, $kept) = map { publish('one', 't', $_) } 8, 9;
wait_for_status('failed', $gone, $kept);
my $position = log_position($node);
$session->do('SELECT dispatch.discard(?)', undef, $gone);
is(status_of($gone), 'discarded', 'discard(): the event says so');
is(dead_letters('one'), 1, 'discard(): it is no dead letter any more');
is(scalar log_lines($node, qr/LOG:.*$gone.*discarded/, $position), 1,
	'discard(): the log tells of it');
fails('SELECT dispatch.retry(?)', [$gone], '42704', qr/no dead letter/,
	'retry() of a discarded one');
fails('SELECT dispatch.discard(?)', [$gone], '42704', qr/no dead letter/, 'discard() twice');
is(sql(q(SELECT failed FROM dispatch.backend_status WHERE name = 'one')), 1,
	'the counter knows it');

# ---- Dropping

ok(eval { $session->do(q(SELECT dispatch.drop_backend('one'))); 1 },
	'a backend that has only dead letters can be dropped');
wait_until(sub { !sql(q(SELECT count(*) FROM dispatch.backends WHERE name = 'one')) }, 'the drop');
is(sql('SELECT count(*) FROM dispatch.dead_letters'), 0, 'they are no dead letters any more');
is(status_of($kept), 'discarded', 'but discarded');
fails('SELECT dispatch.retry(?)', [$kept], '42704', qr/no dead letter/, 'retry() of one of them');

# Events that are to be tried again are undelivered.
$session->do(q(UPDATE dispatch.backends SET max_retries = 1000 WHERE name = 'two'));
my @open = (publish('two', 't', 10, 'k'));
wait_for_status('retrying', @open);
push @open, publish('two', 't', 11, 'k');
wait_for_status('parked', $open[1]);
$session->begin_work;
fails(q(SELECT dispatch.drop_backend('two')), [], '55006', qr/undelivered.*HINT:.*force/s,
	'drop_backend() while events are tried again');
$session->rollback;
mend(1);
wait_for_status('published', @open);

# What is not settled yet when an unforced drop begins is delivered before it ends.
mend(0);
$session->do(q(SELECT dispatch.pause_backend('two')));
wait_for_state($node, 'two', 'paused');
my $writer = session($node);
$writer->begin_work;
my $late = $writer->selectrow_array(q(SELECT dispatch.publish('t', 's', '12', backend => 'two')));
$session->do(q(SELECT dispatch.drop_backend('two')));
$writer->commit;
wait_until(sub { sql(q(SELECT count(*) FROM dispatch.exceptions WHERE status = 'retrying')) },
	'the late event has failed');
sleep 2.5;
is(status_of($late), 'retrying', 'a drop waits for events that are tried again');
is(sql(q(SELECT state FROM dispatch.backend_status WHERE name = 'two')), 'dropping', 'it says so');
mend(1);
wait_until(sub { !sql(q(SELECT count(*) FROM dispatch.backends)) }, 'the drop', 20);
is(sql('SELECT count(*) FROM sink.delivered WHERE event_id = ?', $late), 1,
	'and delivers them before it ends');

# ---- Expiry

mend(0);
create_sink_backend($session, 'three');
my $old = publish('three', 't', '{"big": "payload"}');
wait_for_status('failed', $old);
sleep 1.5;
is(status_of($old), 'failed', 'dead letters stay');
$session->do(q(ALTER SYSTEM SET dispatch.failed_retention = '1 s'));
$session->do('SELECT pg_reload_conf()');
wait_for_status('expired', $old);
is(dead_letters('three'), 0, 'dispatch.failed_retention: they expire');
fails('SELECT dispatch.retry(?)', [$old], '42704', qr/no dead letter/, 'retry() of an expired one');
wait_until(sub { !sql('SELECT count(*) FROM dispatch.exceptions') },
	'its row to go with its segment', 40);
is(sql('SELECT count(*) FROM dispatch.events'), 0, 'and so has the event');

log_ok($node, qr/could not/);
$node->stop;
done_testing();
