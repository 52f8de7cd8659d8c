-- What goes on the wire, byte for byte, in each envelope.
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set recorder :directory '/sql/include/recorder.sql'
\set remove_recorder :directory '/sql/include/remove_recorder.sql'
\set ECHO none
\i :recorder
\set ECHO all

-- Identity and time differ from run to run: here they are ID, TIME and MS.
CREATE VIEW bodies AS
SELECT r.n, replace(replace(replace(r.body, r.event_id::text, 'ID'),
		to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'), 'TIME'),
		floor(extract(epoch FROM r.created_at) * 1000)::bigint::text, 'MS') AS body
FROM recorder.events AS r;

CREATE PROCEDURE send(envelope text) LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM recorder.events;
	PERFORM dispatch.alter_backend('recorder', jsonb_build_object('envelope', envelope));
	COMMIT;
	PERFORM dispatch.publish('user.created', 'user-service',
		'{"id": 7, "name": "Åsa \"A\" \\ \n\t\u0001", "tags": [1, 2.50, true, null, {}], "nested": {"a": {"b": "c"}}}',
		'recorder', 'user-7', 'users/7');
	PERFORM dispatch.publish('no.data', 's', NULL, 'recorder');
	PERFORM dispatch.publish('null', 's', 'null', 'recorder');
	PERFORM dispatch.publish('text', 's', '"x"', 'recorder');
	PERFORM dispatch.publish('number', 's', '1e2', 'recorder');
	PERFORM dispatch.publish('empty', 's', '{}', 'recorder');
	PERFORM dispatch.publish('array', 's', '[[], [1]]', 'recorder');
	PERFORM dispatch.publish('"quoted"' || chr(10) || 'type', E'back\\slash', NULL, 'recorder', NULL, chr(7) || '🐘');
	COMMIT;
	ASSERT dispatch.flush();
END $$;

CALL send('cloudevents');
SELECT body FROM bodies ORDER BY n;
CALL send('dispytch');
SELECT body FROM bodies ORDER BY n;
CALL send('data');
SELECT body FROM bodies ORDER BY n;
-- The attributes go beside the body, here as columns of the event.
CALL send('cloudevents_binary');
SELECT body FROM bodies ORDER BY n;
SELECT event_type, source, subject, key FROM recorder.events ORDER BY n;

-- An event's own envelope comes first.
DELETE FROM recorder.events;
SELECT dispatch.publish('t', 's', '{"x": 1}', 'recorder', options => jsonb_build_object('envelope', e)) IS NOT NULL AS published
FROM unnest('{cloudevents,cloudevents_binary,dispytch,data}'::text[]) AS e;
SELECT dispatch.flush();
SELECT body FROM bodies ORDER BY n;

-- Data is not rewritten: what a consumer parses is what was published.
DELETE FROM recorder.events;
CREATE TEMP TABLE documents AS
SELECT n, d FROM unnest(ARRAY[
	'{"a": 1.000000000000000000000000000001, "b": 123456789012345678901234567890, "c": -0.0, "d": 1e-20}',
	'{"": {"": ["", {"": null}]}}', '{"\u007f": "\u2028\u2029/<>&''", "\t": "\b\f\r"}',
	'[true, false, null, "true", "null"]', '"1"', '{"b": 1, "aa": 2, "a": 3}']::jsonb[]) WITH ORDINALITY AS x (d, n);
INSERT INTO documents SELECT 100, jsonb_agg(jsonb_build_object('k' || g, repeat(chr(g + 32) || '"', g), 'n', g / 7.0))
FROM generate_series(1, 500) AS g;
DO $$ BEGIN
	PERFORM dispatch.publish('d' || n, 's', d, 'recorder', options => '{"envelope": "cloudevents"}') FROM documents ORDER BY n;
END $$;
SELECT dispatch.flush();
SELECT d.n, r.body::jsonb -> 'data' = d.d AND (r.body::jsonb -> 'data')::text = d.d::text AS same
FROM documents AS d JOIN recorder.events AS r ON r.event_type = 'd' || d.n ORDER BY d.n;

DROP TABLE documents;
DROP PROCEDURE send;
DROP VIEW bodies;
\set ECHO none
\i :remove_recorder
\set ECHO all
