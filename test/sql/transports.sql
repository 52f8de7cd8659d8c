-- transport_options(): every option of a transport, with its type, range,
-- default and a line of help; what it says is what create_backend() takes.
CREATE EXTENSION dispatch;
SELECT * FROM dispatch.transport_options('notify');
SELECT * FROM dispatch.transport_options('sql');
SELECT option, scope, type, default_value, required, secret FROM dispatch.transport_options('redis');
SELECT DISTINCT transport FROM dispatch.transport_options() WHERE transport IN ('notify', 'sql', 'redis') ORDER BY 1;
SELECT transport, option FROM dispatch.transport_options() WHERE coalesce(description, '') = '' OR type IS NULL OR scope IS NULL;
SELECT * FROM dispatch.transport_options('../x');
SELECT * FROM dispatch.transport_options('');
\set VERBOSITY terse
SELECT * FROM dispatch.transport_options('carrier_pigeon');
\set VERBOSITY default

-- Each type of option, and its errors.  The backend is never there for long.
CREATE FUNCTION try(options jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	what text; why text; hint text;
BEGIN
	PERFORM dispatch.create_backend('try', 'redis', options);
	RAISE EXCEPTION 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS what = MESSAGE_TEXT, why = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', what, nullif(why, ''), nullif(hint, ''));
END $$;
SELECT o AS options, try(o::jsonb) FROM unnest(ARRAY[
	-- integer
	'{"port": 6380}', '{"port": 6380.0}', '{"port": "6380"}', '{"port": 0}', '{"port": 65536}',
	'{"port": 6379.5}', '{"port": 1e99}', '{"port": -9999999999999999999999}', '{"port": true}',
	'{"max_len": 9007199254740992}', '{"max_len": 9007199254740993}',
	-- number
	'{"socket_timeout": 0.25}', '{"socket_timeout": 0}', '{"socket_timeout": 1e400}', '{"socket_timeout": "5"}',
	-- boolean
	'{"max_len_exact": true}', '{"max_len_exact": "true"}', '{"max_len_exact": 1}',
	-- text
	'{"host": ""}', '{"host": 1}', '{"username": ""}',
	-- enum
	'{"mode": "pubsub"}', '{"mode": "Stream"}', '{"mode": null}',
	-- template
	'{"stream_name": "{event_type}"}', '{"stream_name": "}"}', '{"stream_name": "{{}}"}',
	-- of events only
	'{"fields": {"a": 1}}',
	-- together
	'{"tls": false}', '{"tls": true}', '{"prot": 1}', '{"PORT": 1}']) AS o;

BEGIN;
SELECT dispatch.create_backend('default', 'redis', '{"port": 1}');
SELECT dispatch.pause_backend('default');
COMMIT;
SELECT dispatch.publish('t', 's', options => '{"fields": {"a": 1, "b": null, "c": "x", "d": false}, "max_len": 5, "max_len_exact": true, "stream_name": "x"}') IS NOT NULL AS published;
SELECT dispatch.publish('t', 's', options => '{"fields": {"a": {"b": 1}}}');
SELECT dispatch.publish('t', 's', options => '{"fields": {"a": [1]}}');
SELECT dispatch.publish('t', 's', options => '{"fields": [1]}');
SELECT dispatch.publish('t', 's', options => '{"max_len": 0}');
SELECT dispatch.publish('t', 's', options => '{"max_len": "5"}');
SELECT dispatch.publish('t', 's', options => '{"port": 5}');
-- Their own fields are not the event's to overwrite.
SELECT dispatch.publish('t', 's', options => '{"fields": {"event_id": "mine"}}') IS NOT NULL AS published;

DROP FUNCTION try;
DROP EXTENSION dispatch;
