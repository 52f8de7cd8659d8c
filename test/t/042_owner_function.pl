# The function of an "sql" backend may be hostile: whatever it tries, it gets the
# rights of its owner and no others, its event alone has failed, and the worker
# is afterwards what it was before.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $node = new_cluster('owner_function');
my $session = session($node);

$session->do('CREATE EXTENSION dispatch');
$session->do(q(
	CREATE ROLE mallory LOGIN;
	CREATE SCHEMA mallory AUTHORIZATION mallory;
	SELECT dispatch.grant_publish('mallory'), dispatch.grant_operate('mallory');
	SET ROLE mallory;
	CREATE TABLE mallory.reports (
		pid int, this_user name, session_user_is name, settings text, has_temp bool,
		locks bigint);
	CREATE TABLE mallory.troubled (why text);
	CREATE TABLE mallory.deferred (n int);
	CREATE FUNCTION mallory.escalate() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN ALTER ROLE mallory SUPERUSER; RETURN NULL; END';
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mallory.deferred
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mallory.escalate();
	CREATE PROCEDURE mallory.commits() LANGUAGE plpgsql AS 'BEGIN COMMIT; END';
	-- Does what the event says.
	CREATE FUNCTION mallory.obey(events dispatch.event[]) RETURNS SETOF dispatch.failure
	LANGUAGE plpgsql AS $$
	DECLARE
		e dispatch.event;
	BEGIN
		FOREACH e IN ARRAY events LOOP
			EXECUTE e.body::jsonb #>> '{data}';
		END LOOP;
	END $$;
	CREATE FUNCTION mallory.obey_slowly(dispatch.event[]) RETURNS SETOF dispatch.failure
	LANGUAGE plpgsql AS $$
	BEGIN
		WHILE EXISTS (SELECT FROM mallory.troubled) LOOP
			BEGIN
				PERFORM pg_sleep(100);
			EXCEPTION WHEN query_canceled OR OTHERS THEN
				NULL;
			END;
		END LOOP;
	END $$;
	INSERT INTO dispatch.backends (name, transport, options, max_retries, retry_delay)
	VALUES ('default', 'sql', '{"function": "mallory.obey(dispatch.event[])", "timeout": 0.5}',
		0, '100 ms'),
		('stubborn', 'sql', '{"function": "mallory.obey_slowly(dispatch.event[])", "timeout": 0.3}',
		0, '100 ms'),
		('suicidal', 'sql', '{"function": "mallory.obey(dispatch.event[])"}', 0, '100 ms');
	RESET ROLE));

sub publish
{
	my ($sql, $backend) = @_;

	return $session->selectrow_array(
		'SELECT dispatch.publish(?, ?, to_jsonb(?::text), ?)', undef,
		'order', 'test', $sql, $backend // 'default');
}

# What has become of an event, and why.
sub fate
{
	my ($id) = @_;

	return $session->selectrow_array(
		'SELECT status, coalesce(last_error, ?) FROM dispatch.events WHERE event_id = ?',
		undef, '', $id);
}

sub status_of { return (fate($_[0]))[0]; }

my $REPORT = q(INSERT INTO mallory.reports SELECT pg_backend_pid(), current_user, session_user,
	(SELECT md5(string_agg(name || '=' || setting, ',' ORDER BY name)) FROM pg_settings),
	EXISTS (SELECT FROM pg_class WHERE relpersistence = 't'),
	(SELECT count(*) FROM pg_locks
		WHERE pid = pg_backend_pid() AND locktype = 'advisory'));

# The worker, as its function sees it.
sub report
{
	my $id = publish($REPORT);

	wait_until(sub { status_of($id) ne 'pending' }, 'a report', 20);
	is((fate($id))[1], '', 'the report is made') unless status_of($id) eq 'published';
	my $report = $session->selectrow_arrayref('SELECT * FROM mallory.reports');
	$session->do('TRUNCATE mallory.reports');
	return $report;
}

my $before = report();
is($before->[1], 'mallory', 'the function runs as its owner');

# Each order, and how it ends: an error, or nothing
foreach (
	[ 'SET ROLE postgres', 'SET ROLE', qr/within security-/ ],
	[ 'RESET ROLE', 'RESET ROLE', qr/within security-/ ],
	[ 'SET SESSION AUTHORIZATION postgres', 'SESSION AUTHORIZATION', qr/within security-/ ],
	[ 'RESET SESSION AUTHORIZATION', 'RESET SESSION AUTHORIZATION', qr/within security-/ ],
	[ q(SELECT set_config('role', 'postgres', false)), 'set_config', qr/within security-/ ],
	[ 'ALTER ROLE mallory SUPERUSER', 'ALTER ROLE', qr/must be superuser|permission denied/ ],
	[ 'INSERT INTO mallory.deferred VALUES (1)', 'a deferred trigger', qr/security-restricted/ ],
	[ 'CREATE TEMP TABLE t (n int)', 'a temporary table', qr/security-restricted/ ],
	[ 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', 'a held cursor', qr/security-restricted/ ],
	[ 'PREPARE leftover AS SELECT 1', 'a prepared statement', qr/security-restricted/ ],
	[ 'LISTEN something', 'LISTEN', qr/security-restricted|background/ ],
	[ 'COMMIT', 'COMMIT', qr/EXECUTE of transaction commands/ ],
	[ 'CALL mallory.commits()', 'COMMIT in a procedure', qr/invalid transaction termination/ ],
	[ 'DROP EXTENSION dispatch', 'DROP EXTENSION', qr/must be owner/ ],
	[ 'TABLE dispatch.backend_secrets', 'secrets', qr/permission denied/ ],
	[ 'DELETE FROM dispatch.outbox', 'the outbox', qr/permission denied/ ],
	[ 'SELECT pg_terminate_backend(pg_backend_pid())', 'its own end',
		qr/must be a? ?superuser|permission denied/ ],
	[ 'SELECT pg_cancel_backend(pg_backend_pid())', 'its own cancel',
		qr/must be a? ?superuser|permission denied/ ],
	[ q(SELECT pg_read_file('postgresql.conf')), 'a file', qr/permission denied/ ],
	[ q(COPY mallory.troubled FROM PROGRAM 'echo x'), 'a program',
		qr/superuser|permission denied/ ],
	[ q(LOAD '/tmp/evil'), 'a library', qr/access to library/ ],
	[ q(SELECT repeat('x', 2000000000)), 'memory', qr/requested length too large|invalid memory/ ],
	[ 'DO $$BEGIN LOOP END LOOP; END$$', 'an endless loop', qr/statement timeout/ ],
	[ q(SELECT dispatch.flush('1 min')), 'waiting for itself', qr/statement timeout/ ],
	[ 'SELECT mallory.nowhere()', 'what is not there', qr/does not exist/ ],
	[ q(DO $$BEGIN RAISE EXCEPTION E'%%s%%n\n2026-01-01 forged'; END$$), 'a forged line',
		qr/^%s%n\?2026-01-01 forged$/ ],
	# What it may do, or gets past
	[ q(SELECT set_config('search_path', 'mallory', false)), 'search_path' ],
	[ 'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY', 'READ ONLY' ],
	[ 'SET lock_timeout = 1', 'lock_timeout' ],
	[ 'SET statement_timeout = 1', 'statement_timeout' ],
	[ 'SET LOCAL work_mem = 64', 'work_mem' ],
	[ 'RESET ALL', 'RESET ALL' ],
	[ 'SET TRANSACTION READ ONLY', 'a read-only transaction' ],
	[ q(DO $$BEGIN SET ROLE postgres; EXCEPTION WHEN OTHERS THEN NULL; END$$), 'a caught error' ],
	[ 'NOTIFY something', 'NOTIFY' ],
	[ q(SELECT * FROM dispatch.check_backend('default')), 'checking itself' ])
{
	my ($sql, $what, $error) = @$_;
	my $id = publish($sql);
	my @fate;

	wait_until(sub { status_of($id) ne 'pending' }, "the fate of: $what", 20);
	@fate = fate($id);
	is($fate[0], defined $error ? 'failed' : 'published', "$what: the event's fate") or diag $fate[1];
	like($fate[1], $error, "$what: the reason") if defined $error;
	is_deeply(report(), $before, "$what: the worker is what it was");
}
is($session->selectrow_array('SELECT rolsuper FROM pg_roles WHERE rolname = ?', undef, 'mallory'),
	0, 'nobody became a superuser');
is_deeply([ log_lines($node, qr/^2026-01-01/) ], [], 'no line of the log is forged');

# Errors that are nobody's fault: an outage, told of, and the end of it
foreach my $code (qw(57P01 53200 40001 55P03))
{
	my $position = log_position($node);

	$session->do(q(INSERT INTO mallory.troubled VALUES ('x')));
	my $id = publish("DO \$\$BEGIN IF EXISTS (SELECT FROM mallory.troubled) THEN"
		  . " RAISE EXCEPTION 'pretended' USING ERRCODE = '$code'; END IF; END\$\$");
	wait_for_state($node, 'default', 'outage');
	sleep 0.5;
	is(status_of($id), 'pending', "$code: the event waits");
	cmp_ok(scalar(log_lines($node, qr/pretended/, $position)), '<', 5, "$code: the log is quiet");
	$session->do('TRUNCATE mallory.troubled');
	$session->do(q(SELECT dispatch.resume_backend('default')));
	wait_until(sub { status_of($id) eq 'published' }, "$code: the event, after all", 20);
}

# Events that make events
my $id = publish(q(SELECT dispatch.publish('order', 'child', '"SELECT 1"')));
wait_until(sub { 1 == $session->selectrow_array(q(SELECT count(*) FROM dispatch.events
	WHERE source = 'child' AND status = 'published')) }, 'the event of an event', 10);
is_deeply(report(), $before, 'the worker is what it was');

# Advisory locks of sessions must not outlive the call.
my $locker = publish('SELECT pg_advisory_lock(1)');
wait_until(sub { status_of($locker) eq 'published' }, 'the call that locks', 20);
is(report()->[5], 0, 'no advisory lock is left');
$before = report();

# It drops its own backend
$id = publish(q(SELECT dispatch.drop_backend('suicidal', true)), 'suicidal');
wait_until(sub { !$session->selectrow_array(
	q(SELECT count(*) FROM dispatch.backends WHERE name = 'suicidal')) },
		'the end of a backend', 20);
is(backend_state($node, 'default'), 'running', 'others go on');

# It does not end when it is cancelled: that can be seen, and it can be stopped
$session->do(q(INSERT INTO mallory.troubled VALUES ('x')));
publish('-', 'stubborn');
sleep 1.5;
my ($state, $in_flight, $pending) = $session->selectrow_array(
	q(SELECT state, in_flight, pending FROM dispatch.backend_status WHERE name = 'stubborn'));
cmp_ok($pending, '==', 1, "a function that does not end: its event is pending (state: $state)");
is_deeply(report(), $before, 'other backends are not held up');
my $stubborn = backend_pid($node, 'stubborn');
$session->do(q(SELECT dispatch.pause_backend('stubborn')));
ok(eval { wait_until(sub { !kill 0, $stubborn }, 'the end of its worker', 8); 1 },
	'pause_backend() ends it');
kill 'TERM', $stubborn;
wait_until(sub { !kill 0, $stubborn }, 'the end of its worker, by a signal', 5);
pass('pg_terminate_backend() ends it');
$session->do(q(SELECT dispatch.resume_backend('stubborn')));
sleep 0.5;

my $started = time;
$node->stop('fast');
cmp_ok(time - $started, '<', 4, 'so does stop -m fast');
log_ok($node, qr/FATAL:.*(?<!due to administrator command)$/);
done_testing();
