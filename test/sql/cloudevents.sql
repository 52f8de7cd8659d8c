-- publish_cloudevent(): what is a CloudEvent and what is not, and what of it
-- goes on the wire.
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set recorder :directory '/sql/include/recorder.sql'
\set remove_recorder :directory '/sql/include/remove_recorder.sql'
\set ECHO none
\i :recorder
\set ECHO all
\set VERBOSITY default

-- An event that has no more than it must, with another attribute, or with one
-- of those it must have as something else.
CREATE FUNCTION event_with(attributes jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
	SELECT '{"specversion": "1.0", "id": "i", "source": "/s", "type": "t"}' || attributes
$$;
CREATE FUNCTION verdict(event jsonb, options jsonb DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	problem text;
BEGIN
	PERFORM dispatch.publish_cloudevent(event, 'recorder', options => options);
	RETURN 'published';
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS problem = PG_EXCEPTION_DETAIL;
	RETURN format('%s: %s', sqlerrm, problem);
END $$;
UPDATE dispatch.backends SET enabled = false;

--
-- Validation
--
SELECT dispatch.publish_cloudevent(NULL);
SELECT dispatch.publish_cloudevent('[]');
SELECT dispatch.publish_cloudevent('"event"');
SELECT dispatch.publish_cloudevent('{}');
SELECT dispatch.publish_cloudevent('{"id": "i", "source": "/s", "type": "t"}');
SELECT dispatch.publish_cloudevent(event_with('{"id": null}'));
SELECT dispatch.publish_cloudevent(event_with() - 'source');
SELECT dispatch.publish_cloudevent(event_with() - 'type');
SELECT dispatch.publish_cloudevent(event_with('{"time": "yesterday"}'));

SELECT attributes, verdict(event_with(attributes)) FROM unnest(ARRAY[
	'{}',
	-- required attributes
	'{"specversion": "0.3"}', '{"specversion": 1.0}', '{"specversion": ""}',
	'{"id": ""}', '{"id": 1}', '{"id": "any text, å"}', '{"id": "a\nb"}',
	'{"type": ""}', '{"type": true}', '{"type": "a\tb"}', '{"type": ["t"]}',
	-- source: a URI-reference
	'{"source": ""}', '{"source": 5}', '{"source": "a b"}', '{"source": "/a%2"}',
	'{"source": "/a%2Fb?c=d#e"}', '{"source": "/a#b#c"}', '{"source": "1a:b"}',
	'{"source": "://x"}', '{"source": "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"}',
	'{"source": "https://example.com:8080/x/;y?q=[1]"}', '{"source": "../a:b"}', '{"source": "å"}',
	'{"source": "<x>"}', '{"source": "mailto:a@b.c"}', '{"source": "1-555-123-4567"}',
	-- optional attributes
	'{"subject": ""}', '{"subject": "x"}', '{"subject": null}', '{"subject": 1}',
	'{"dataschema": "https://example.com/s.json"}', '{"dataschema": "/s.json"}', '{"dataschema": ""}',
	'{"dataschema": "urn:x#y"}', '{"dataschema": "a b:c"}',
	'{"datacontenttype": "application/json"}', '{"datacontenttype": "json"}', '{"datacontenttype": ""}',
	'{"datacontenttype": "text/plain; charset=utf-8"}', '{"datacontenttype": "text/plain;a=\"b;\\\"c\";d=e"}',
	'{"datacontenttype": "text/plain;"}', '{"datacontenttype": "text/"}', '{"datacontenttype": "a/b c"}',
	'{"datacontenttype": "text/plain;a=\"b"}', '{"datacontenttype": "application/vnd.x+json"}',
	'{"time": "2025-06-25T10:11:12Z"}', '{"time": "2025-06-25t10:11:12.123456789z"}',
	'{"time": "2025-06-25T10:11:12+02:00"}', '{"time": "2025-06-25T10:11:12"}',
	'{"time": "2025-06-25 10:11:12Z"}', '{"time": "2025-13-25T10:11:12Z"}', '{"time": "2025-02-29T10:11:12Z"}',
	'{"time": "2024-02-29T10:11:12Z"}', '{"time": "2025-06-25T24:00:00Z"}', '{"time": "2025-06-25T10:11:12.Z"}',
	'{"time": "2016-12-31T23:59:60Z"}', '{"time": "2025-06-25T10:11:12+2:00"}', '{"time": 1750846272}',
	'{"time": "2025-06-25T10:11:12Z "}', '{"time": ""}', '{"time": null}',
	-- extensions
	'{"tenant": "a"}', '{"tenant": ""}', '{"n1": 5}', '{"n1": -2147483648}', '{"n1": 2147483647}',
	'{"n1": 2147483648}', '{"n1": -2147483649}', '{"n1": 1.5}', '{"n1": 1e50}', '{"flag": true}',
	'{"x": null}', '{"x": {}}', '{"x": ["a"]}', '{"x": "a\u0001b"}', '{"x": "a\u007fb"}', '{"x": "a\u0085b"}',
	'{"x": "\ufdd0"}', '{"x": "\uffff"}', '{"x": "\ud83d\udc18 å \u00a0"}',
	'{"Tenant": "a"}', '{"my_ext": "a"}', '{"my-ext": "a"}', '{"": "a"}', '{"å": "a"}',
	'{"averylongextensionnamebeyondtwentychars": "a"}', '{"data_base65": "a"}', '{"traceparent": "00-1-2-01"}',
	-- data
	'{"data": {"a": 1}}', '{"data": null}', '{"data": "text"}', '{"data": 5}', '{"data": []}',
	'{"data_base64": "AP8="}', '{"data_base64": ""}', '{"data_base64": "YQ=="}', '{"data_base64": "YWI="}',
	'{"data_base64": "YQ"}', '{"data_base64": "YQ=a"}', '{"data_base64": "YQ==YQ=="}', '{"data_base64": "===="}',
	'{"data_base64": "Y Q="}', '{"data_base64": "AP8_"}', '{"data_base64": 5}', '{"data_base64": null}',
	'{"data": 1, "data_base64": "YQ=="}', '{"data": null, "data_base64": "YQ=="}',
	'{"datacontenttype": "text/xml", "data": "<a/>"}', '{"datacontenttype": "text/xml", "data": {"a": 1}}',
	'{"datacontenttype": "text/xml", "data": null}', '{"datacontenttype": "text/xml"}',
	'{"datacontenttype": "application/cloudevents+JSON; a=b", "data": {"a": 1}}',
	'{"datacontenttype": "application/jsonx", "data": {"a": 1}}'
	]::jsonb[]) AS attributes;

-- options.extensions: the same rules, and no attribute of CloudEvents itself.
SELECT extensions, verdict(event_with(), jsonb_build_object('extensions', extensions)) FROM unnest(ARRAY[
	'{}', '{"tenant": "a", "n": 1, "f": false}', '{"tenant": null}', '{"Tenant": "a"}', '{"n": 1.5}',
	'{"x": {}}', '{"id": "x"}', '{"specversion": "1.0"}', '{"data": "x"}', '{"time": null}', '[]', '"x"'
	]::jsonb[]) AS extensions;

--
-- Backend, key and the other arguments
--
CREATE VIEW newest AS
SELECT event_type, source, subject, key, data, options, attributes, content, max_retries
FROM dispatch.outbox ORDER BY event_id DESC LIMIT 1;
SELECT dispatch.publish_cloudevent(event_with());
SELECT dispatch.publish_cloudevent(event_with(), 'nowhere');
SELECT dispatch.publish_cloudevent(event_with(), 'recorder', key => '');
SELECT dispatch.publish_cloudevent(event_with(), 'recorder', options => '{"x": 1}');
SELECT dispatch.publish_cloudevent(
	event_with('{"subject": "j", "time": "2025-06-25T10:11:12Z", "data": {"a": 1}, "dataschema": "urn:x", "x": true, "y": null}'),
	'recorder', 'k', '{"extensions": {"x": false, "z": 1}}', max_retries => 2) IS NOT NULL AS published;
TABLE newest;
SELECT count(*) FROM dispatch.scheduled;
SELECT dispatch.publish_cloudevent(event_with('{"data_base64": "AP8="}'), 'recorder',
	scheduled_at => '2999-01-01') IS NOT NULL AS published;
SELECT event_type, data, attributes, content FROM dispatch.scheduled;
TRUNCATE dispatch.scheduled;
-- The attribute partitionkey is the key, unless another one is passed.
SELECT dispatch.publish_cloudevent(event_with('{"partitionkey": "p"}'), 'recorder') IS NOT NULL AS published;
TABLE newest;
SELECT dispatch.publish_cloudevent(event_with('{"partitionkey": "p"}'), 'recorder', 'k') IS NOT NULL AS published;
TABLE newest;
-- Event types hold for CloudEvents, too.
SELECT dispatch.define_event_type('typed', 'recorder', partition_by => 'user.id',
	options => '{"extensions": {"tenant": "a", "region": "eu"}}');
SELECT dispatch.publish_cloudevent(event_with('{"type": "typed", "data": {"user": {"id": 7}}, "region": "us"}'))
	IS NOT NULL AS published;
TABLE newest;
SELECT dispatch.publish_cloudevent(event_with('{"type": "typed", "data_base64": "YQ=="}'));
SELECT dispatch.drop_event_type('typed');
DROP VIEW newest;

--
-- On the wire
--
UPDATE dispatch.backends SET enabled = true;
SELECT dispatch.flush('30s', 'recorder');
TRUNCATE recorder.events;

-- Identity and time of our own differ from run to run: here they are ID, TIME.
CREATE PROCEDURE send(event jsonb, extensions jsonb DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	envelope text;
BEGIN
	FOREACH envelope IN ARRAY '{cloudevents,cloudevents_binary,data,dispytch}'::text[] LOOP
		PERFORM dispatch.publish_cloudevent(event, 'recorder', options =>
			jsonb_build_object('envelope', envelope, 'extensions', extensions));
	END LOOP;
END $$;
CREATE FUNCTION received(OUT subject text, OUT body text) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dispatch.flush('30s', 'recorder');
	RETURN QUERY SELECT r.subject, replace(replace(replace(r.body, r.event_id::text, 'ID'),
			to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'), 'TIME'),
			floor(extract(epoch FROM r.created_at) * 1000)::bigint::text, 'MS')
		FROM recorder.events AS r ORDER BY n;
END $$;
-- All attributes, as they were given: no other is added, and types stay.
CALL send('{"specversion": "1.0", "id": "A-1 å", "source": "/shop?x=1", "type": "order.created",
	"time": "2025-06-25T10:11:12.5+02:00", "subject": "orders/1", "datacontenttype": "application/json; charset=utf-8",
	"dataschema": "https://example.com/order.json", "tenant": "a\"b", "count": -5, "flag": true, "none": null,
	"data": {"total": 1.50, "name": "Åsa"}}');
SELECT * FROM received();
TRUNCATE recorder.events;
-- No more than it must have; no time and no type of the data come to it.
CALL send(event_with());
CALL send(event_with('{"data": {"a": 1}}'));
CALL send(event_with('{"data": null}'));
SELECT * FROM received();
TRUNCATE recorder.events;
-- A text of another type is a string in JSON, and itself alone; so is a JSON
-- string that is JSON.
CALL send(event_with('{"datacontenttype": "text/xml", "data": "<a b=\"å\"/>"}'));
CALL send(event_with('{"datacontenttype": "text/plain", "data": ""}'));
CALL send(event_with('{"datacontenttype": "application/x+json", "data": "text"}'));
SELECT * FROM received();
TRUNCATE recorder.events;
-- Extensions by option, to a given event, and to one of ours.
CALL send(event_with('{"x": "given"}'), '{"x": "option", "y": 1, "z": null}');
SELECT dispatch.publish('ours', 's', '{"a": 1}', 'recorder', options => '{"extensions": {"n": 5, "f": false, "s": "å"}}'),
	dispatch.publish('ours', 's', NULL, 'recorder', options => '{"extensions": {"n": 5}}'),
	dispatch.publish('ours', 's', NULL, 'recorder', options => '{"extensions": {}}') \g /dev/null
SELECT * FROM received();

DROP PROCEDURE send;
DROP FUNCTION received, verdict, event_with;
\set ECHO none
\i :remove_recorder
