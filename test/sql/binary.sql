-- Binary payloads: what they look like in each envelope, and who cannot carry
-- them.
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set recorder :directory '/sql/include/recorder.sql'
\set remove_recorder :directory '/sql/include/remove_recorder.sql'
\set wait_for :directory '/sql/include/wait_for.sql'
\set ECHO none
\i :recorder
\i :wait_for
\set ECHO all
\set VERBOSITY default

-- Another envelope for all events of the backend, when its worker is at rest.
CREATE PROCEDURE set_envelope(envelope text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dispatch.pause_backend('recorder');
	COMMIT;
	PERFORM wait_for($w$(SELECT pid IS NULL FROM dispatch.backend_status WHERE name = 'recorder')$w$);
	PERFORM dispatch.alter_backend('recorder', jsonb_build_object('envelope', envelope));
END $$;

-- The ordinary call is not ambiguous.
UPDATE dispatch.backends SET enabled = false;
SELECT dispatch.publish('a', 'b', '{}', 'recorder') IS NOT NULL AS published;
SELECT data, content FROM dispatch.outbox;

--
-- Arguments
--
SELECT dispatch.publish_binary('t', 's', '\x00ff', 'application/x-protobuf', 'recorder', 'k', 'j',
	'{"envelope": "data"}', '-infinity', 3) AS event_id \gset
SELECT event_type, source, subject, key, data, options, attributes, content, max_retries
FROM dispatch.outbox WHERE event_id = :'event_id';
SELECT event_type, data, status FROM dispatch.events WHERE event_id = :'event_id';
SELECT dispatch.publish_binary(NULL, 's', '\x00', 'a/b', 'recorder');
SELECT dispatch.publish_binary('t', '', '\x00', 'a/b', 'recorder');
SELECT dispatch.publish_binary('t', 's', NULL, 'a/b', 'recorder');
SELECT dispatch.publish_binary('t', 's', '\x00', NULL, 'recorder');
SELECT dispatch.publish_binary('t', 's', '\x00', '', 'recorder');
SELECT dispatch.publish_binary('t', 's', '\x00', 'protobuf', 'recorder');
SELECT dispatch.publish_binary('t', 's', '\x00', E'a/b\n', 'recorder');
SELECT dispatch.publish_binary('t', 's', '\x00', 'a/b', 'nowhere');
SELECT dispatch.publish_binary('t', 's', '\x00', 'a/b', 'recorder', options => '{"x": 1}');
SELECT dispatch.publish_binary('t', 's', '\x00', 'a/b', 'recorder', max_retries => -1);
-- What needs JSON: the envelope of Dispytch, templates with a field, partition_by.
SELECT dispatch.publish_binary('t', 's', '\x00', 'a/b', 'recorder', options => '{"envelope": "dispytch"}');
SELECT dispatch.create_backend('dispytch', 'notify', '{"envelope": "dispytch", "channel": "{data.x}"}');
SELECT dispatch.publish_binary('t', 's', '\x00', 'a/b', 'dispytch');
SELECT dispatch.publish_binary('t', 's', '\x00', 'a/b', 'dispytch', options => '{"envelope": "data"}');
SELECT dispatch.define_event_type('keyed', 'recorder', partition_by => 'user.id');
SELECT dispatch.publish_binary('keyed', 's', '\x00', 'a/b');
SELECT dispatch.publish_binary('keyed', 's', '\x00', 'a/b', key => 'k') IS NOT NULL AS published;
SELECT dispatch.drop_event_type('keyed');
SELECT dispatch.drop_backend('dispytch', force => true);

--
-- On the wire
--
TRUNCATE dispatch.outbox;
SELECT dispatch.resume_backend('recorder');

-- In the structured envelope any bytes are text.
SELECT dispatch.publish_binary('bytes', 's', '\x00ff', 'application/avro', 'recorder'),
	dispatch.publish_binary('empty', 's', '', 'application/avro', 'recorder'),
	dispatch.publish_binary('with extensions', 's', '\x0102ff', 'application/avro', 'recorder',
		options => '{"extensions": {"tenant": "a"}}'),
	dispatch.publish_binary('json', 's', '{"a": 1}', 'application/json', 'recorder'),
	dispatch.publish_cloudevent('{"specversion": "1.0", "id": "i", "source": "/s", "type": "given",
		"datacontenttype": "image/png", "data_base64": "iVBORw=="}', 'recorder') \g /dev/null
SELECT dispatch.flush('30s', 'recorder');
SELECT replace(replace(body, event_id::text, 'ID'),
	to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'), 'TIME') AS body
FROM recorder.events ORDER BY n;
TRUNCATE recorder.events;

-- A large one comes through whole.
SELECT dispatch.publish_binary('large', 's', decode(repeat('00ff10', 1000000), 'hex'), 'a/b', 'recorder')
	IS NOT NULL AS published;
SELECT dispatch.flush('30s', 'recorder');
SELECT decode(body::jsonb ->> 'data_base64', 'base64') = decode(repeat('00ff10', 1000000), 'hex') AS same
FROM recorder.events;
TRUNCATE recorder.events;

-- Alone, they go out as they are: to a function only if they are text, for the
-- body of dispatch.event is one.  Others are rejected, and hold up nobody.
CALL set_envelope('data');
SELECT dispatch.publish_binary('text', 's', convert_to('<å/>', 'UTF8'), 'text/xml', 'recorder'),
	dispatch.publish_binary('not UTF-8', 's', '\x61ff', 'a/b', 'recorder',
		options => '{"extensions": {"n": 5}}'),
	dispatch.publish_binary('zero', 's', '\x610062', 'a/b', 'recorder'),
	dispatch.publish_binary('empty', 's', '', 'a/b', 'recorder'),
	dispatch.publish_binary('binary mode', 's', 'body', 'a/b', 'recorder', options => '{"envelope": "cloudevents_binary"}'),
	dispatch.publish('after', 's', '{}', 'recorder') \g /dev/null
SELECT dispatch.resume_backend('recorder');
SELECT dispatch.flush('30s', 'recorder');
SELECT event_type, body FROM recorder.events ORDER BY n;
SELECT event_type, last_error FROM dispatch.dead_letters ORDER BY event_type;

-- A dead letter is whole: it can be sent after all.
TRUNCATE recorder.events;
CALL set_envelope('cloudevents');
SELECT dispatch.retry_failed('recorder');
SELECT dispatch.resume_backend('recorder');
SELECT wait_for($$(SELECT pending = 0 FROM dispatch.backend_status WHERE name = 'recorder')$$);
SELECT body::jsonb - '{id,time}'::text[] AS body FROM recorder.events ORDER BY n;

-- An envelope that the backend was given later, and cannot hold it.
TRUNCATE recorder.events;
CALL set_envelope('data');
SELECT dispatch.publish_binary('late', 's', '\x00', 'a/b', 'recorder', max_retries => 0) IS NOT NULL AS published;
CALL set_envelope('dispytch');
SELECT dispatch.resume_backend('recorder');
SELECT dispatch.flush('30s', 'recorder');
SELECT event_type, last_error FROM dispatch.dead_letters;

-- The same for NOTIFY.
SELECT dispatch.create_backend('local', 'notify', '{"envelope": "data"}');
SELECT dispatch.publish_binary('text', 's', 'text', 'text/plain', 'local'),
	dispatch.publish_binary('bytes', 's', '\x61ff', 'a/b', 'local') \g /dev/null
SELECT dispatch.flush('30s', 'local');
SELECT event_type, status, last_error FROM dispatch.events WHERE backend = 'local' ORDER BY event_id;

-- Scheduled ones arrive whole.
TRUNCATE recorder.events;
SELECT dispatch.publish_binary('scheduled', 's', '\xdeadbeef', 'a/b', 'recorder',
	options => '{"envelope": "cloudevents"}', scheduled_at => clock_timestamp() + interval '0.5 s') IS NOT NULL AS published;
SELECT wait_for('NOT EXISTS (SELECT FROM dispatch.scheduled)');
SELECT dispatch.flush('30s', 'recorder');
SELECT event_type, body::jsonb ->> 'data_base64' AS data, body::jsonb ->> 'datacontenttype' AS type
FROM recorder.events;

DROP PROCEDURE set_envelope;
DROP FUNCTION wait_for;
\set ECHO none
\i :remove_recorder
