# A number of a dozen bytes can have a hundred thousand digits, and is sent in
# digits.  What is far longer than it looks is refused when it is published, or
# fails by itself; so does whatever cannot be written for another reason; and a
# backlog of long texts takes no more memory than others.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use SqlSink;
use PostgreSQL::Test::Utils;

my $DIGITS = 100_001;			# of 1e100000

my $node = new_cluster('long', q(
	dispatch.batch_bytes = '1MB'
	dispatch.max_retries = 0
	dispatch.retry_delay = '100 ms'
	max_stack_depth = '400kB'
	log_statement = none));
my $session = session($node);

sub sql { return value_of($session, @_); }

# A document with so many numbers.
sub numbers { return "(SELECT jsonb_agg(1e100000) FROM generate_series(1, $_[0]))"; }

# The peak of a process's own memory, in bytes.
sub peak
{
	my ($kilobytes) = slurp_file("/proc/$_[0]/status") =~ /^VmHWM:\s+(\d+) kB/m;

	return $kilobytes * 1024;
}

$session->do('CREATE EXTENSION dispatch');
create_sink($session, q(
		CREATE TABLE sink.got (event_type text, length int);
		CREATE TABLE sink.refused (event_type text)),
	sql => q(
		INSERT INTO sink.got SELECT event_type, length(body) FROM unnest(events);
		SELECT event_id, 'refused', false FROM unnest(events)
		WHERE event_type IN (SELECT r.event_type FROM sink.refused AS r)));
create_sink_backend($session, 'default');
sub got { return sql('SELECT count(*) FROM sink.got WHERE event_type = ?', @_); }

# ---- Refused by publish()

foreach my $document (numbers(2700), '(SELECT jsonb_build_object(\'a\', ' . numbers(2700) . '))')
{
	eval { $session->do("SELECT dispatch.publish('refused', 's', $document)") };
	is($session->state, '54000', 'numbers with 270 million digits are refused');
	like($@, qr/too long as text.*DETAIL:.*HINT:/s, 'with a detail and a hint');
}
is(sql(q(SELECT count(dispatch.publish('many', 's', to_jsonb(ARRAY(
		SELECT i FROM generate_series(1, 100000) AS i)))))),
	1, 'many short numbers are not');
wait_until(sub { got('many') }, 'their delivery');

# ---- One that is longer than a text can be

$session->do('SELECT dispatch.pause_backend(?)', undef, 'default');
$session->do(q(INSERT INTO dispatch.scheduled
	(event_id, scheduled_at, created_at, backend_id, event_type, source, data, max_retries)
	SELECT gen_random_uuid(), 'epoch', now(), id, 'too long', 's', ) . numbers(11_000)
	  . q(, 5 FROM dispatch.backends));
wait_until(sub { !sql('SELECT count(*) FROM dispatch.scheduled') }, 'the event in the outbox');
$session->do(q(SELECT dispatch.publish('behind', 's', '1')));
$session->do('SELECT dispatch.resume_backend(?)', undef, 'default');
eval { wait_until(sub { got('behind') }, 'what is behind it', 30) };
is(got('behind'), 1, 'what is behind it is delivered');
# What the function did is there before its outcome is stored.
wait_until(sub { sql('SELECT count(*) FROM dispatch.dead_letters') }, 'the dead letter');
is_deeply(
	$session->selectall_arrayref(
		q(SELECT event_type, attempts, last_error FROM dispatch.dead_letters)),
	[ [ 'too long', 1,
			'The data of the event cannot be sent. It is longer than 1 GB as text.' ] ],
	'it is a dead letter at once, and says why');
$session->do(q(DELETE FROM dispatch.exceptions));

# ---- A backlog of them

$session->do('SELECT dispatch.pause_backend(?)', undef, 'default');
$session->do("SELECT count(dispatch.publish('long', 's', data))
	FROM generate_series(1, 40), LATERAL " . numbers(100) . ' AS n (data)');
wait_until(sub { !defined backend_pid($node, 'default') }, 'the end of the worker');
$session->do('SELECT dispatch.resume_backend(?)', undef, 'default');
my ($worker, $most);
eval {
	wait_until(
		sub {
			$worker //= backend_pid($node, 'default') // return 0;
			$most = peak($worker);
			return got('long') == 40;
		},
		'their delivery', 30);
};
is(got('long'), 40, 'a backlog of long events is delivered');
is(sql(q(SELECT count(*) FROM sink.got WHERE event_type = 'long' AND length > ?), 100 * $DIGITS),
	40, 'all their digits');
cmp_ok($most, '<', 250 * 1024 * 1024, 'it takes the memory of a few at a time');

# ---- A backlog of them that is tried again

$session->do(q(INSERT INTO sink.refused VALUES ('again')));
$session->do("SELECT count(dispatch.publish('again', 's', data))
	FROM generate_series(1, 20), LATERAL " . numbers(100) . ' AS n (data)');
wait_until(sub { sql('SELECT count(*) FROM dispatch.dead_letters') == 20 }, 'dead letters', 30);
$session->do('TRUNCATE sink.refused, sink.got');
is(sql('SELECT dispatch.retry_failed()'), 20, 'all are tried again');
eval { wait_until(sub { got('again') == 20 }, 'their delivery', 30) };
is(got('again'), 20, 'they are delivered');
cmp_ok(peak($worker), '<', 250 * 1024 * 1024, 'with the memory of a few at a time');
is(sql('SELECT count(*) FROM dispatch.dead_letters'), 0, 'none is left');

# ---- What cannot be written, for a reason that is nobody's business

$session->do(q(SET max_stack_depth = '6MB'));
$session->do(q(SELECT count(dispatch.publish('deep', 's',
		(repeat('[', 8000) || repeat(']', 8000))::jsonb, max_retries => i))
	FROM generate_series(0, 1) AS i));
$session->do(q(SELECT dispatch.publish('after', 's', '1')));
eval { wait_until(sub { got('after') }, 'what is behind them', 20) };
is(got('after'), 1, 'what is behind events that cannot be written is delivered');
eval {
	wait_until(sub { sql('SELECT count(*) FROM dispatch.dead_letters') == 2 }, 'dead letters', 20);
};
is_deeply(
	$session->selectall_arrayref(
		q(SELECT event_type, attempts, last_error FROM dispatch.dead_letters ORDER BY attempts)),
	[ map { [ 'deep', $_, 'stack depth limit exceeded' ] } 1, 2 ],
	'they are dead letters after their attempts');
is(backend_state($node, 'default'), 'running', 'and the backend runs');

# ---- Options are read, and held by the worker, as data is

$session->do(q(SELECT dispatch.create_backend('redis', 'redis')));
eval {
	$session->do(q(SELECT dispatch.publish('refused', 's', backend => 'redis', options => (
		SELECT jsonb_build_object('fields', jsonb_object_agg('f' || i, 1e100000))
		FROM generate_series(1, 2700) AS i))));
};
is($session->state, '54000', 'such numbers are refused in options, too');
like($@, qr/options of an event are too long as text.*DETAIL:.*HINT:/s,
	'with a detail and a hint');

$node->stop;
log_ok($node, qr/PANIC/);
done_testing();
