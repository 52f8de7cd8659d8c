-- The "sql" transport: a function of the user's own.  It runs in the worker,
-- and with the rights of the backend's owner, who is never a superuser.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set recorder :directory '/sql/include/recorder.sql'
\set remove_recorder :directory '/sql/include/remove_recorder.sql'
\set ECHO none
\i :recorder
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
-- Failures.  An event that fails stops its backend, visibly, with the reason;
-- the events before it are delivered, and it goes on when it is resumed.
--
CREATE FUNCTION fares(name text) RETURNS TABLE (state text, pending bigint, published bigint, last_error text)
LANGUAGE plpgsql AS $$
BEGIN
	-- Until the worker has got as far as it can
	FOR i IN 1..100 LOOP
		PERFORM pg_sleep(0.05);
		PERFORM dispatch.flush('0.05s', fares.name);
		SELECT s.state, s.pending, s.published, s.last_error INTO state, pending, published, last_error
		FROM dispatch.backend_status AS s WHERE s.name = fares.name;
		EXIT WHEN state = 'event failed' OR (state = 'running' AND pending = 0);
	END LOOP;
	RETURN NEXT;
END $$;
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
INSERT INTO dispatch.backends (name, transport, options, owner)
VALUES ('picky', 'sql', '{"function": "recorder.picky(dispatch.event[])", "timeout": 0.5}', 'regress_recorder');

CREATE PROCEDURE run(trouble text) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO recorder.troubles VALUES ('bad', trouble);
	PERFORM dispatch.publish(t, 's', backend => 'picky') FROM unnest('{good,bad,after}'::text[]) AS t;
	COMMIT;
	RAISE INFO '%', (SELECT f FROM fares('picky') AS f);
	DELETE FROM recorder.troubles;
	PERFORM dispatch.resume_backend('picky');
	COMMIT;
	RAISE INFO '%', (SELECT (state, pending) FROM fares('picky') AS f);
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

-- What becomes of the function, and of its owner, later
SELECT dispatch.publish('before', 's', backend => 'picky') IS NOT NULL AS published;
SELECT state, pending FROM fares('picky');
ALTER FUNCTION recorder.picky RENAME TO gone;
SELECT dispatch.publish('gone', 's', backend => 'picky') IS NOT NULL AS published;
SELECT state, pending, last_error FROM fares('picky');
ALTER FUNCTION recorder.gone RENAME TO picky;
SELECT dispatch.resume_backend('picky');
SELECT state, pending FROM fares('picky');
REVOKE EXECUTE ON FUNCTION recorder.picky FROM PUBLIC, regress_recorder;
SELECT dispatch.publish('forbidden', 's', backend => 'picky') IS NOT NULL AS published;
SELECT state, pending, last_error FROM fares('picky');
GRANT EXECUTE ON FUNCTION recorder.picky TO regress_recorder;
ALTER ROLE regress_recorder SUPERUSER;
SELECT dispatch.resume_backend('picky');
ALTER ROLE regress_recorder NOSUPERUSER;
SELECT dispatch.resume_backend('picky');
SELECT state, pending FROM fares('picky');
ALTER ROLE regress_recorder RENAME TO regress_renamed;
SELECT dispatch.publish('homeless', 's', backend => 'picky') IS NOT NULL AS published;
SELECT state, pending, last_error FROM fares('picky');
ALTER ROLE regress_renamed RENAME TO regress_recorder;
SELECT dispatch.resume_backend('picky');
SELECT state, pending FROM fares('picky');
SELECT string_agg(event_type, ' ' ORDER BY n) FROM recorder.events;

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
SELECT state, pending, published, last_error FROM fares('own');

DROP FUNCTION fares, try;
\set ECHO none
\i :remove_recorder
\set ECHO all
DROP OWNED BY regress_operator;
DROP ROLE regress_operator;
