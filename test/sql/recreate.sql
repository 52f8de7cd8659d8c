-- The extension dropped and created again at once: workers that served the old
-- one must not go on with the new one, whose backends and events have the same
-- numbers.  If they did, they would take the first events of the new one for
-- ones that they have sent already.
SET client_min_messages = warning;
CREATE TABLE delivered (event_type text);
CREATE PROCEDURE set_up() LANGUAGE plpgsql AS $$
BEGIN
	CREATE EXTENSION dispatch;
	CREATE FUNCTION deliver(events dispatch.event[]) RETURNS SETOF dispatch.failure
	LANGUAGE sql SECURITY DEFINER AS $f$
		INSERT INTO public.delivered SELECT event_type FROM unnest(events);
		SELECT NULL::uuid, NULL::text, NULL::boolean WHERE false;
	$f$;
	INSERT INTO dispatch.backends (name, transport, options, owner)
	VALUES ('default', 'sql', '{"function": "public.deliver(dispatch.event[])"}', 'pg_monitor');
END $$;

CALL set_up();
SELECT count(dispatch.publish('old ' || n, 's')) FROM generate_series(1, 5) AS n;
SELECT dispatch.flush('10 s');
-- In one transaction, with as many events: nothing but the extension differs.
BEGIN;
DROP EXTENSION dispatch CASCADE;
CALL set_up();
SELECT count(dispatch.publish('new ' || n, 's')) FROM generate_series(1, 5) AS n;
COMMIT;
SELECT dispatch.flush('10 s');
-- In two
DROP EXTENSION dispatch CASCADE;
BEGIN;
CALL set_up();
SELECT count(dispatch.publish('newer ' || n, 's')) FROM generate_series(1, 5) AS n;
COMMIT;
SELECT dispatch.flush('10 s');
SELECT split_part(event_type, ' ', 1) AS which, count(*), count(DISTINCT event_type)
FROM delivered GROUP BY 1 ORDER BY 1 DESC;
SELECT state, pending, published FROM dispatch.backend_status;

DROP EXTENSION dispatch CASCADE;
DROP PROCEDURE set_up;
DROP TABLE delivered;
