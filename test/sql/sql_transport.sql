-- The "sql" transport: a function of the user's own.  It runs in the worker,
-- and with the rights of the backend's owner, who is never a superuser.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set recorder :directory '/sql/include/recorder.sql'
\set remove_recorder :directory '/sql/include/remove_recorder.sql'
\set wait_for :directory '/sql/include/wait_for.sql'
\set ECHO none
\i :recorder
\i :wait_for
\set ECHO all

-- A batch arrives whole, in order, as the owner.
SELECT count(dispatch.publish('t' || n, 's', to_jsonb(n), 'recorder', 'k' || n, 'subject' || n))
FROM generate_series(1, 3) AS n;
SELECT dispatch.flush();
SELECT e.n, e.event_type, e.source, e.subject, e.key, e.run_by,
	e.created_at = o.created_at AS time, (e.body::jsonb ->> 'id')::uuid = e.event_id AS body
FROM recorder.events AS e JOIN dispatch.outbox AS o USING (event_id) ORDER BY n;
TRUNCATE recorder.events;
SELECT count(dispatch.publish('many', 's', to_jsonb(n), 'recorder')) FROM generate_series(1, 5000) AS n;
SELECT dispatch.flush();
SELECT count(*), count(DISTINCT event_id) AS ids,
	bool_and((body::jsonb ->> 'data')::int = row_number) AS in_order
FROM (SELECT *, row_number() OVER (ORDER BY n) FROM recorder.events) AS e;
SELECT name, state, pending, published, last_error FROM dispatch.backend_status;

--
-- Failures.  What an event does wrong is held against it alone: it costs it an
-- attempt, the last of which makes it a dead letter, and the others go on.
--
SET ROLE regress_recorder;
CREATE TABLE recorder.troubles (event_type text, trouble text);
CREATE FUNCTION recorder.picky(events dispatch.event[]) RETURNS SETOF dispatch.failure LANGUAGE plpgsql AS $$
DECLARE
	e dispatch.event;
	what text;
BEGIN
	FOREACH e IN ARRAY events LOOP
		SELECT trouble INTO what FROM recorder.troubles AS t WHERE t.event_type = e.event_type;
		CASE
			WHEN what IS NULL THEN
				INSERT INTO recorder.events (event_id, event_type) VALUES (e.event_id, e.event_type);
			WHEN what = 'error' THEN
				RAISE EXCEPTION 'cannot take %', e.event_type;
			WHEN what = 'sleep' THEN
				PERFORM pg_sleep(100);
			WHEN what = 'stranger' THEN
				RETURN NEXT ROW ('00000000-0000-0000-0000-000000000000', 'x', false)::dispatch.failure;
			WHEN what = 'permanent' THEN
				RETURN NEXT ROW (e.event_id, 'never', true)::dispatch.failure;
			WHEN what = 'null' THEN
				RETURN NEXT ROW (e.event_id, NULL, NULL)::dispatch.failure;
			WHEN what = 'role' THEN
				SET ROLE pg_monitor;
			WHEN what = 'secrets' THEN
				PERFORM * FROM dispatch.backend_secrets;
			ELSE
				RETURN NEXT ROW (e.event_id, what, false)::dispatch.failure;
		END CASE;
	END LOOP;
END $$;
RESET ROLE;
TRUNCATE recorder.events;
INSERT INTO dispatch.backends (name, transport, options, owner, max_retries, retry_delay, retry_backoff)
VALUES ('picky', 'sql', '{"function": "recorder.picky(dispatch.event[])", "timeout": 2}', 'regress_recorder', 0, '1 day', false);

-- No retry: a dead letter at once, which is delivered when it is tried again.
CREATE PROCEDURE run(trouble text) LANGUAGE plpgsql AS $$
DECLARE
	e record;
BEGIN
	INSERT INTO recorder.troubles VALUES ('bad', trouble);
	PERFORM dispatch.publish(t, 's', backend => 'picky') FROM unnest('{good,bad,after}'::text[]) AS t;
	COMMIT;
	ASSERT dispatch.flush('20 s', 'picky');
	RAISE INFO '%', (SELECT (state, pending, retrying, failed, retried, next_attempt_at)
		FROM dispatch.backend_status WHERE name = 'picky');
	FOR e IN SELECT event_type, attempts, first_error, last_error FROM dispatch.dead_letters LOOP
		RAISE INFO '%', e;
	END LOOP;
	RAISE INFO '%', (SELECT string_agg(event_type, ' ' ORDER BY n) FROM recorder.events);
	DELETE FROM recorder.troubles;
	PERFORM dispatch.retry_failed('picky');
	COMMIT;
	ASSERT wait_for($w$NOT EXISTS (SELECT FROM dispatch.events WHERE backend = 'picky' AND status <> 'published')$w$);
	RAISE INFO '%', (SELECT string_agg(event_type, ' ' ORDER BY n) FROM recorder.events);
	DELETE FROM recorder.events;
END $$;
CALL run('rejected');
CALL run('permanent');
CALL run('null');
CALL run('error');
CALL run('sleep');
CALL run('stranger');
CALL run('role');
CALL run('secrets');
DROP PROCEDURE run;

-- A permanent failure is the end, whatever retries there are left, for a day.
UPDATE dispatch.backends SET max_retries = 5 WHERE name = 'picky';
INSERT INTO recorder.troubles VALUES ('bad', 'permanent');
SELECT dispatch.publish('bad', 's', backend => 'picky') IS NOT NULL AS published;
SELECT dispatch.flush('20 s', 'picky');
SELECT event_type, status, attempts, next_attempt_at, last_error FROM dispatch.events WHERE event_type = 'bad' AND status <> 'published';
SELECT dispatch.discard(event_id) FROM dispatch.dead_letters;

-- One that may come right waits, and those of its key with it; others do not.
UPDATE recorder.troubles SET trouble = 'not yet';
SELECT dispatch.publish('bad', 's', backend => 'picky', key => 'k') AS event_id \gset
SELECT dispatch.flush('20 s', 'picky');
SELECT count(dispatch.publish(t, 's', backend => 'picky', key => k))
FROM (VALUES ('parked 1', 'k'), ('other', 'l'), ('parked 2', 'k'), ('none', NULL)) AS v (t, k);
SELECT dispatch.flush('20 s', 'picky');
SELECT event_type, status, attempts, last_error,
	next_attempt_at - created_at BETWEEN '1 day' AND '1 day 1 min' AS in_a_day
FROM dispatch.events WHERE backend = 'picky' AND key IS NOT NULL ORDER BY event_id;
SELECT state, pending, retrying, failed, last_error, oldest_pending = (
	SELECT created_at FROM dispatch.events WHERE event_id = :'event_id') AS oldest
FROM dispatch.backend_status WHERE name = 'picky';
SELECT string_agg(event_type, ' ' ORDER BY n) FROM recorder.events;
-- They are no dead letters, but undelivered.
\set VERBOSITY sqlstate
SELECT dispatch.retry(:'event_id');
\set VERBOSITY default
SELECT dispatch.retry_failed('picky');
SELECT dispatch.drop_backend('picky');
-- What waits for its day is given up with its backend, but not by itself.
SELECT dispatch.drop_backend('picky', true);
SELECT wait_for($$NOT EXISTS (SELECT FROM dispatch.backends WHERE name = 'picky')$$);
SELECT event_type, backend, status, next_attempt_at - created_at > '1 day' AS next
FROM dispatch.events WHERE key = 'k' ORDER BY event_id;

-- Retries without end, and in the end they help: in the order of the key.
INSERT INTO dispatch.backends (name, transport, options, owner, max_retries, retry_delay, retry_backoff)
VALUES ('picky', 'sql', '{"function": "recorder.picky(dispatch.event[])"}', 'regress_recorder', 1000000, '20 ms', false);
TRUNCATE recorder.events;
SELECT dispatch.publish('bad', 's', backend => 'picky', key => 'k') IS NOT NULL AS published;
SELECT wait_for($$EXISTS (SELECT FROM dispatch.events WHERE backend = 'picky' AND status = 'retrying' AND attempts > 2)$$);
SELECT count(dispatch.publish(t, 's', backend => 'picky', key => k))
FROM (VALUES ('parked 1', 'k'), ('other', 'l'), ('parked 2', 'k')) AS v (t, k);
SELECT dispatch.flush('20 s', 'picky');
SELECT event_type, status, last_error FROM dispatch.events WHERE backend = 'picky' ORDER BY event_id;
SELECT retried > 2 AS retried FROM dispatch.backend_status WHERE name = 'picky';
DELETE FROM recorder.troubles;
SELECT wait_for($$(SELECT pending = 0 FROM dispatch.backend_status WHERE name = 'picky')$$);
SELECT event_type, status, attempts, next_attempt_at, last_error FROM dispatch.events WHERE backend = 'picky' ORDER BY event_id;
SELECT string_agg(event_type, ' ' ORDER BY n) FROM recorder.events;
SELECT pending, retrying, failed, published FROM dispatch.backend_status WHERE name = 'picky';
-- The event's own limit comes first.
INSERT INTO recorder.troubles VALUES ('bad', 'rejected');
SELECT dispatch.publish('bad', 's', backend => 'picky', max_retries => 2) IS NOT NULL AS published;
SELECT wait_for($$EXISTS (SELECT FROM dispatch.dead_letters)$$);
SELECT event_type, backend, attempts, first_error, last_error, first_failed_at < last_failed_at AS later
FROM dispatch.dead_letters;
SELECT dispatch.discard(event_id) FROM dispatch.dead_letters;
TRUNCATE recorder.troubles, recorder.events;

-- What becomes of the function, and of its owner, later.  That is no event's
-- fault, and costs none an attempt: they wait, and are delivered when it is
-- mended.
UPDATE dispatch.backends SET max_retries = 0 WHERE name = 'picky';
CREATE FUNCTION trouble_of_picky(error text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM wait_for(format('(SELECT state = %L AND last_error LIKE %L FROM dispatch.backend_status WHERE name = %L)',
		'configuration error', error, 'picky'));
	RETURN (SELECT format('%s, %s pending, %s failed, next attempt %s: %s', state, pending, failed,
			CASE WHEN next_attempt_at > last_error_at THEN 'later' ELSE 'never' END, last_error)
		FROM dispatch.backend_status WHERE name = 'picky');
END $$;
CREATE FUNCTION mended() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM wait_for('(SELECT state = ''running'' AND pending = 0 FROM dispatch.backend_status WHERE name = ''picky'')');
	RETURN (SELECT format('%s, %s pending, %s failed', state, pending, failed)
		FROM dispatch.backend_status WHERE name = 'picky');
END $$;
ALTER FUNCTION recorder.picky RENAME TO gone;
SELECT dispatch.publish('gone', 's', backend => 'picky') IS NOT NULL AS published;
SELECT trouble_of_picky('%does not exist');
ALTER FUNCTION recorder.gone RENAME TO picky;
SELECT dispatch.resume_backend('picky');
SELECT mended();
REVOKE EXECUTE ON FUNCTION recorder.picky FROM PUBLIC, regress_recorder;
SELECT dispatch.publish('forbidden', 's', backend => 'picky') IS NOT NULL AS published;
SELECT trouble_of_picky('%may not execute%');
GRANT EXECUTE ON FUNCTION recorder.picky TO regress_recorder;
SELECT dispatch.resume_backend('picky');
SELECT mended();
ALTER ROLE regress_recorder SUPERUSER;
SELECT dispatch.publish('almighty', 's', backend => 'picky') IS NOT NULL AS published;
SELECT trouble_of_picky('%superuser');
SELECT dispatch.alter_backend('picky', '{"timeout": 1}');
ALTER ROLE regress_recorder NOSUPERUSER;
SELECT dispatch.resume_backend('picky');
SELECT mended();
ALTER ROLE regress_recorder RENAME TO regress_renamed;
SELECT dispatch.publish('homeless', 's', backend => 'picky') IS NOT NULL AS published;
SELECT trouble_of_picky('role%does not exist');
ALTER ROLE regress_renamed RENAME TO regress_recorder;
SELECT dispatch.resume_backend('picky');
SELECT mended();
SELECT string_agg(event_type, ' ' ORDER BY n) FROM recorder.events;
DROP FUNCTION trouble_of_picky, mended;

--
-- What will not do as a function is refused at once
--
CREATE FUNCTION recorder.no_set(dispatch.event[]) RETURNS dispatch.failure LANGUAGE sql AS 'SELECT NULL::dispatch.failure';
CREATE FUNCTION recorder.other_type(dispatch.event[]) RETURNS SETOF text LANGUAGE sql AS $$ SELECT 'x' $$;
CREATE FUNCTION recorder.other_argument(text) RETURNS SETOF dispatch.failure LANGUAGE sql AS 'SELECT NULL::dispatch.failure';
CREATE PROCEDURE recorder.procedure(dispatch.event[]) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION try(function text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	what text; why text; hint text;
BEGIN
	INSERT INTO dispatch.backends (name, transport, options, owner)
	VALUES ('try', 'sql', jsonb_build_object('function', function), 'regress_recorder');
	RAISE EXCEPTION 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS what = MESSAGE_TEXT, why = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', what, nullif(why, ''), nullif(hint, ''));
END $$;
SET search_path = recorder, public;
SELECT f AS function, public.try(f) FROM unnest(ARRAY[
	'recorder.record(dispatch.event[])', '"recorder"."record"(dispatch.event[])', 'recorder.record', 'record(dispatch.event[])',
	'recorder.nothing(dispatch.event[])', 'recorder.no_set(dispatch.event[])', 'recorder.other_type(dispatch.event[])',
	'recorder.other_argument(text)', 'recorder.procedure(dispatch.event[])', '', '-', '1234', 'recorder.record(', 'x; DROP TABLE y']) AS f;
RESET search_path;

-- Nor a superuser as the owner
\set VERBOSITY terse
INSERT INTO dispatch.backends (name, transport, options, owner)
SELECT 'x', 'sql', '{"function": "recorder.record(dispatch.event[])"}', current_user;
UPDATE dispatch.backends SET owner = current_user WHERE name = 'picky';
\set VERBOSITY default
-- nor one that the caller could not become.
CREATE ROLE regress_operator;
SELECT dispatch.grant_operate('regress_operator');
SET ROLE regress_operator;
INSERT INTO dispatch.backends (name, transport, options, owner)
VALUES ('x', 'sql', '{"function": "recorder.record(dispatch.event[])"}', 'regress_recorder');
-- An operator can make one of his own, with no other right.
RESET ROLE;
CREATE SCHEMA operator AUTHORIZATION regress_operator;
SET ROLE regress_operator;
CREATE FUNCTION operator.deliver(dispatch.event[]) RETURNS SETOF dispatch.failure LANGUAGE sql AS
	$$ SELECT event_id, 'no'::text, false FROM unnest($1) WHERE false $$;
SELECT dispatch.create_backend('own', 'sql', '{"function": "operator.deliver(dispatch.event[])"}');
RESET ROLE;
SELECT dispatch.publish('t', 's', backend => 'own') IS NOT NULL AS published;
SELECT dispatch.flush('20 s', 'own');
SELECT state, pending, published, last_error FROM dispatch.backend_status WHERE name = 'own';

-- Of somebody else's he can change neither function nor owner; but he is who is
-- called at night, so he can stop it.
SET ROLE regress_operator;
SELECT dispatch.alter_backend('picky', '{"function": "operator.deliver(dispatch.event[])"}');
UPDATE dispatch.backends SET owner = 'regress_operator' WHERE name = 'picky';
UPDATE dispatch.backends SET owner = 'regress_recorder' WHERE name = 'own';
SELECT dispatch.pause_backend('picky');
SELECT dispatch.resume_backend('picky');
UPDATE dispatch.backends SET max_retries = 1 WHERE name = 'picky';
RESET ROLE;
SELECT name, options ->> 'function' AS function, owner, enabled, max_retries
FROM dispatch.backends WHERE name IN ('picky', 'own') ORDER BY name;

DROP FUNCTION wait_for, try;
\set ECHO none
\i :remove_recorder
\set ECHO all
DROP OWNED BY regress_operator;
DROP ROLE regress_operator;
