# Events that fail are tried again after the delays that are configured, as
# often as that is configured, and then become dead letters; what is known of
# their attempts survives whatever ends the worker.

use strict;
use warnings;

use List::Util qw(sum0);
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use SqlSink;

# What may come on top of a delay: the outcome is stored, the machine is busy.
my $SLACK = 0.8;

my $node = new_cluster('retry', 'restart_after_crash = on');
my $session = session($node);

sub sql { return value_of($session, @_); }

$session->do(q(CREATE EXTENSION dispatch));
create_counting_sink($session);

sub publish
{
	my ($backend, $data, %options) = @_;

	return sql(q(SELECT dispatch.publish('t', 's', ?, backend => ?, max_retries => ?, key => ?)),
		$data, $backend, $options{max_retries}, $options{key});
}

sub event
{
	my ($event_id) = @_;

	return $session->selectrow_hashref('SELECT * FROM dispatch.events WHERE event_id = ?',
		undef, $event_id);
}

sub wait_for_status
{
	my ($event_id, $status, $seconds) = @_;

	wait_until(
		sub {
			$session = wait_for_session($node) unless $session->ping;
			event($event_id)->{status} eq $status;
		},
		"status $status", $seconds // 20);
	return;
}

# Seconds between the attempts of an event.
sub delays
{
	return @{
		$session->selectcol_arrayref(
			q(SELECT extract(epoch FROM at - lag(at) OVER (ORDER BY id)) FROM sink.attempts
			WHERE event_id = ? ORDER BY id OFFSET 1), undef, @_) };
}

sub attempts { return sql('SELECT count(*) FROM sink.attempts WHERE event_id = ?', @_); }

sub status
{
	return $session->selectrow_hashref('SELECT * FROM dispatch.backend_status WHERE name = ?',
		undef, @_);
}

sub dead_letter
{
	return $session->selectrow_hashref('SELECT * FROM dispatch.dead_letters WHERE event_id = ?',
		undef, @_);
}

sub between
{
	my ($value, $from, $to, $what) = @_;

	ok($value >= $from && $value <= $to, $what) or diag("$value is not in $from .. $to");
	return;
}

# ---- Delays

create_sink_backend($session, 'constant',
	retry_backoff => 'off', retry_delay => '400 ms', max_retries => 3);
my $id = publish('constant', '{"n": 1, "fail": 2}');
wait_until(sub { event($id)->{status} eq 'retrying' }, 'a failure');
my $event = event($id);
is($event->{attempts}, 1, 'an event that failed: one attempt so far');
is($event->{last_error}, 'attempt 1', 'it says why');
ok(sql(q(SELECT next_attempt_at > now() - interval '0.4 s'
	AND next_attempt_at < now() + interval '0.4 s'
	FROM dispatch.events WHERE event_id = ?), $id), 'and when it is tried again');
is(status('constant')->{retrying}, 1, 'the backend has one to retry');
is(status('constant')->{pending}, 1, 'which is pending');
is(status('constant')->{last_error}, 'attempt 1', 'and says why');
wait_for_status($id, 'published');
is(event($id)->{attempts}, 0, 'once it is delivered nothing is left of that');
is(sql('SELECT count(*) FROM dispatch.exceptions'), 0, 'no row either');
my @delays = delays($id);
is(scalar @delays, 2, 'three attempts');
between($_, 0.4, 0.4 + $SLACK, 'retry_backoff off: the delay is constant') foreach @delays;
my $status = status('constant');
is_deeply([ @$status{qw(published retried retrying failed pending)} ], [ 1, 2, 0, 0, 0 ],
	'the counters');

create_sink_backend($session, 'growing',
	retry_delay => '200 ms', retry_max_delay => '800 ms', max_retries => 5);
$id = publish('growing', '{"n": 1, "fail": 5}');
wait_for_status($id, 'published');
@delays = delays($id);
is(scalar @delays, 5, 'six attempts');
foreach my $most (0.2, 0.4, 0.8, 0.8, 0.8)
{
	between(shift @delays, $most / 2, $most + $SLACK, "retry_backoff on: up to $most s");
}

# The setting is the cap of backends that have none of their own
sub reload
{
	my ($setting, $value) = @_;

	$session->do("ALTER SYSTEM SET $setting = '$value'");
	$session->do('SELECT pg_reload_conf()');
	return;
}

reload('dispatch.retry_max_delay', '300 ms');
wait_until(sub { sql(q(SHOW dispatch.retry_max_delay)) eq '300ms' }, 'the setting');
create_sink_backend($session, 'capped', retry_delay => '200 ms', max_retries => 5);
$id = publish('capped', '{"n": 1, "fail": 5}');
wait_for_status($id, 'published');
@delays = delays($id);
between(shift @delays, 0.1, 0.2 + $SLACK, 'dispatch.retry_max_delay: below it');
between($_, 0.15, 0.3 + $SLACK, 'dispatch.retry_max_delay: up to it') foreach @delays;
# Without it: at least 0.1 + 0.2 + 0.4 + 0.8 + 1.6 s
cmp_ok(sum0(@delays), '<', 2.4, 'dispatch.retry_max_delay: all together');
reload('dispatch.retry_max_delay', '5 min');

# ---- dispatch.log_level: what our processes say

foreach ([ error => 0, 0, 0 ], [ warning => 1, 0, 0 ], [ info => 1, 1, 0 ], [ debug => 1, 1, 1 ])
{
	my ($level, @said) = @$_;
	my $name = "logged $level";
	my $position = log_position($node);

	reload('dispatch.log_level', $level);
	# By then all processes have read it, as the new one of this backend has.
	create_sink_backend($session, $name, max_retries => 0);
	$id = publish($name, '{"n": 1, "fail": 1}');
	wait_for_status($id, 'failed');
	$session->do('SELECT dispatch.drop_backend(?)', undef, $name);
	wait_until(sub { !sql('SELECT count(*) FROM dispatch.backends WHERE name = ?', $name) },
		'the end of the backend');
	foreach ([ qr/WARNING:  backend "$name": event $id failed/, 'warnings' ],
		[ qr/LOG:  backend "$name" is dropped/, 'information' ],
		[ qr/LOG:  backend "$name": 1 event was read to be sent/, 'batches' ])
	{
		my ($pattern, $what) = @$_;
		my $said = shift @said;

		wait_until(sub { log_lines($node, $pattern, $position) }, "the line: $what") if $said;
		is(scalar(log_lines($node, $pattern, $position)), $said, "log_level = $level: $what");
	}
	is(!!log_lines($node, qr/LOG:  backend "$name": its progress is stored/, $position),
		$level eq 'debug', "log_level = $level: progress");
}
reload('dispatch.log_level', 'info');

# ---- How often

create_sink_backend($session, 'twice',
	retry_backoff => 'off', retry_delay => '50 ms', max_retries => 2);
my %fate = (
	backend => [ publish('twice', '{"n": 1, "fail": 99}'), 3 ],
	'event, 0' => [ publish('twice', '{"n": 2, "fail": 99}', max_retries => 0), 1 ],
	'event, 1' => [ publish('twice', '{"n": 3, "fail": 99}', max_retries => 1), 2 ],
	'event, 4' => [ publish('twice', '{"n": 4, "fail": 99}', max_retries => 4), 5 ]);
foreach my $what (sort keys %fate)
{
	my ($event_id, $attempts) = @{ $fate{$what} };

	wait_for_status($event_id, 'failed');
	my $letter = dead_letter($event_id);
	is(attempts($event_id), $attempts, "max_retries of the $what: so many attempts");
	is_deeply([ @$letter{qw(attempts first_error last_error backend)} ],
		[ $attempts, 'attempt 1', "attempt $attempts", 'twice' ], '... and a dead letter');
}
ok(sql(q(SELECT bool_and(last_failed_at > first_failed_at) FROM dispatch.dead_letters
	WHERE attempts > 1)), 'the first and the last failure have their times');
is_deeply([ @{ status('twice') }{qw(published retrying failed pending retried)} ],
	[ 0, 0, 4, 0, 2 + 0 + 1 + 4 ], 'the counters');

# One more that is left to the settings, which a reload changes.
create_sink_backend($session, 'left', batch_size => 10);
sub set
{
	$session->do("ALTER SYSTEM SET dispatch.$_[0] = '$_[1]'");
	$session->do('SELECT pg_reload_conf()');
	return;
}
publish('left', '{"n": 0, "fail": 0}');
ok(sql(q(SELECT dispatch.flush('20 s', 'left'))), 'a worker with the default settings');
set('retry_backoff', 'off');
set('retry_delay', '50 ms');
set('max_retries', 1);
sleep 0.5;
$id = publish('left', '{"n": 1, "fail": 99}');
wait_until(sub { event($id)->{status} =~ /failed|retrying/ && attempts($id) >= 2 || 0 },
	'two attempts', 20);
sleep 0.5;
is(event($id)->{status}, 'failed', 'dispatch.max_retries: a reload is enough');
is(attempts($id), 2, 'dispatch.max_retries: so many attempts');
between((delays($id))[0] // 99, 0.05, 0.45, 'dispatch.retry_delay: a reload is enough');
$session->do('ALTER SYSTEM RESET ALL');
$session->do('SELECT pg_reload_conf()');

# ---- Events that never will be

$id = publish('twice', '{"n": 5, "fail": 99, "permanent": true}');
wait_for_status($id, 'failed');
is(attempts($id), 1, 'permanent: one attempt');
is_deeply([ @{ dead_letter($id) }{qw(attempts first_error last_error)} ],
	[ 1, 'attempt 1', 'attempt 1' ], 'permanent: a dead letter at once');

# An error of the call costs the culprit alone an attempt.
$session->begin_work;
my @ids = map { publish('twice', $_) } '{"n": 6, "fail": 0}', '{"n": 7, "fail": 0, "raise": true}',
  '{"n": 8, "fail": 0}';
$session->commit;
wait_for_status($ids[1], 'failed');
is_deeply([ map { event($_)->{status} } @ids ], [qw(published failed published)],
	'an error: the neighbours of the culprit are delivered');
is_deeply([ @{ dead_letter($ids[1]) }{qw(attempts last_error)} ], [ 3, 'event 7 is a bad one' ],
	'an error: the culprit has failed as often as it may');

# ---- What ends the worker

create_sink_backend($session, 'ended',
	retry_backoff => 'off', retry_delay => '700 ms', max_retries => 4);
$id = publish('ended', '{"n": 1, "fail": 99}');

sub wait_for_attempts
{
	my ($count) = @_;

	wait_until(
		sub {
			$session = wait_for_session($node) unless $session->ping;
			event($id)->{attempts} == $count;
		},
		"$count attempts", 20);
	# What a crash may take back is no concern here.
	$session->do(q(CHECKPOINT));
	return;
}

wait_for_attempts(1);
my $pid = backend_pid($node, 'ended');
sql('SELECT pg_terminate_backend(?)', $pid);
wait_for_attempts(2);
isnt(backend_pid($node, 'ended'), $pid, 'another worker has gone on');
kill 'KILL', backend_pid($node, 'ended');
wait_until(sub { !$session->ping }, 'the crash');
$session = wait_for_session($node);
wait_for_attempts(3);
$session->disconnect;
$node->restart;
$session = wait_for_session($node);
wait_for_attempts(4);
wait_for_status($id, 'failed');
is(dead_letter($id)->{attempts}, 5, 'SIGTERM, SIGKILL and a restart: no attempt is forgotten');
is(attempts($id), 5, 'and none was made besides');
is(dead_letter($id)->{first_error}, 'attempt 1', 'nor is the first error');

# ---- The books balance

create_sink_backend($session, 'books',
	retry_backoff => 'off', retry_delay => '50 ms', max_retries => 2);
srand 42;
my $COUNT = 600;
foreach my $n (1 .. $COUNT)
{
	my $fail = (0, 0, 0, 0, 1, 2, 3, 4)[ rand 8 ];
	my $permanent = rand() < 0.1 ? ', "permanent": true' : '';

	publish('books', qq({"n": $n, "fail": $fail$permanent}), key => $n % 2 ? $n % 20 : undef);
}
my $books = sub {
	my $row = status('books');
	my $all = sql(q(SELECT count(*) FROM dispatch.events WHERE backend = 'books'));

	return "$all: " . sum0(@$row{qw(published pending failed)});
};
wait_until(
	sub {
		sql(q(SELECT dispatch.flush('20 s', 'books'))) && status('books')->{pending} == 0;
	},
	'all are settled', 40);
is($books->(), "$COUNT: $COUNT", 'published, pending and dead letters are all events');
my ($delivered, $failed, $dead) = $session->selectrow_array(q(
	SELECT count(*) FILTER (WHERE a.ok), count(*) FILTER (WHERE NOT a.ok),
		(SELECT count(*) FROM dispatch.dead_letters WHERE backend = 'books')
	FROM sink.attempts AS a JOIN dispatch.events AS e USING (event_id) WHERE e.backend = 'books'));
$status = status('books');
cmp_ok($dead, '>', 0, 'there are dead letters');
is($status->{published}, $delivered, 'what counts as published has been delivered');
is($status->{failed}, $dead, 'failed are the dead letters');
is($status->{retried}, $failed - $dead, 'retried are the failures that were not the last');
is(sql(q(SELECT count(*) FROM dispatch.events AS e
	WHERE backend = 'books' AND (status = 'published')
	<> EXISTS (SELECT FROM sink.attempts AS a WHERE a.event_id = e.event_id AND a.ok))),
	0, 'and each event says of itself what is true');
is(sql(q(SELECT count(*) FROM dispatch.exceptions AS x WHERE attempts <>
	(SELECT count(*) FROM sink.attempts AS a WHERE a.event_id = x.event_id)
	AND NOT jsonb_exists(data, 'raise'))), 0, 'attempts are counted right');

is_deeply([ log_lines($node, qr{PANIC:|TRAP:|could not (?:read|store|take)}) ], [],
	"the log has no complaint");
$node->stop;
done_testing();
