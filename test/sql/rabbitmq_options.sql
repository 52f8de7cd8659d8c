-- The options of the rabbitmq transport: what create_backend() and publish()
-- take, and how they refuse the rest.  Nothing here connects.
CREATE EXTENSION dispatch;
SELECT option, scope, type, default_value, secret FROM dispatch.transport_options('rabbitmq');

CREATE FUNCTION why(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	what text; detail text; hint text;
BEGIN
	EXECUTE command;
	RAISE EXCEPTION 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS what = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', what, nullif(detail, ''), nullif(left(hint, 120), ''));
END $$;

-- Of a backend
SELECT left(o, 60) AS options, why(format('SELECT dispatch.create_backend(''try'', ''rabbitmq'', %L)', o))
  FROM unnest(ARRAY[
	'{}',
	'{"host": "a, b:5673,[::1]:5674,::1"}', '{"host": ""}', '{"host": "a,,b"}', '{"host": "a:0"}',
	'{"host": "a:65536"}', '{"host": "amqp://a"}', '{"host": "[::1"}', '{"host": "user@a"}',
	'{"vhost": ""}', '{"exchange": ""}', '{"exchange": "{source}.events", "routing_key": ""}',
	'{"delivery_mode": 0}', '{"delivery_mode": 3}', '{"priority": 255}', '{"priority": 256}',
	'{"heartbeat": 0}', '{"heartbeat": 2.5}', '{"socket_timeout": 0.5}', '{"cloudevents_prefix": "ce-"}',
	'{"cloudevents_prefix": "ce_"}', '{"message_id": "x"}', '{"headers": {}}',
	'{"tls": true}', '{"tls_ca": "x"}', '{"tls": true, "tls_ca": "x"}', '{"tls": true, "tls_ca": "/etc/passwd"}',
	'{"tls": true, "tls_key": "x"}', '{"tls": true, "tls_certificate": "x", "tls_key": "y"}']) AS o;

-- Of an event
SELECT dispatch.create_backend('default', 'rabbitmq');
SELECT dispatch.pause_backend('default');
SELECT left(o, 70) AS options, why(format('SELECT dispatch.publish(''t'', ''s'', options => %L)', o))
  FROM unnest(ARRAY[
	'{"exchange": "x", "routing_key": "a.b", "delivery_mode": 1, "priority": 0, "content_type": "text/plain",
	  "content_encoding": "gzip", "correlation_id": "c", "reply_to": "r", "message_id": "m", "type": "y",
	  "user_id": "guest", "app_id": "a"}',
	'{"exchange": "", "routing_key": ""}', '{"routing_key": "{data.id}"}', '{"mandatory": false}',
	-- spans and points in time
	'{"expiration": 0}', '{"expiration": 1.5}', '{"expiration": "90"}', '{"expiration": "01:00:00"}',
	'{"expiration": "1 day 2 hours"}', '{"expiration": "P1DT2H"}', '{"expiration": "2030-01-31T23:59:59.5Z"}',
	'{"expiration": "2030-01-31 23:59:59+02"}', '{"expiration": "2030-01-31T23:59:59-03:30"}',
	'{"expiration": -1}', '{"expiration": "-1 second"}', '{"expiration": "50 days"}', '{"expiration": "infinity"}',
	'{"expiration": "2030-01-31"}', '{"expiration": "2030-01-31T23:59:59"}', '{"expiration": "2030-02-30T00:00:00Z"}',
	'{"expiration": "soon"}', '{"expiration": ""}', '{"expiration": true}', '{"expiration": {}}',
	'{"timestamp": 1700000000}', '{"timestamp": "2023-11-14T22:13:20Z"}', '{"timestamp": -1}',
	-- headers
	'{"headers": {"n": -1, "d": 1.5, "t": true, "null": null, "s": "x", "table": {"a": [1, {"b": 2}]}, "empty": {}}}',
	'{"headers": {"at": {"$timestamp": 1700000000}, "bytes": {"$binary": "AAEC/w=="}}}',
	'{"headers": {"at": {"$timestamp": "now"}}}', '{"headers": {"at": {"$timestamp": 1.5}}}',
	'{"headers": {"at": {"$timestamp": [1]}}}', '{"headers": {"at": {"$timestamp": 1, "x": 2}}}',
	'{"headers": {"bytes": {"$binary": "***"}}}', '{"headers": {"list": [{"$binary": 5}]}}',
	'{"headers": {"ce-id": "x"}}', '{"headers": {"cloudEvents_id": "x"}}', '{"headers": {"cloudEvents:id": "x"}}',
	'{"headers": {"nested": {"ce-id": "x"}}}', '{"headers": [1]}', '{"headers": "x"}']) AS o;

-- Lengths are those of bytes: 127 letters of two bytes fit, 128 do not.
SELECT option, len, why(format('SELECT dispatch.publish(''t'', ''s'', options => %L)',
	jsonb_build_object(option, repeat('é', len / 2) || repeat('x', len % 2))))
  FROM unnest(ARRAY['exchange', 'routing_key', 'content_type', 'content_encoding', 'correlation_id', 'reply_to',
	'message_id', 'type', 'user_id', 'app_id']) AS option, unnest(ARRAY[255, 256]) AS len;
SELECT len, why(format('SELECT dispatch.publish(''t'', ''s'', options => %L)',
	jsonb_build_object('headers', jsonb_build_object('a', jsonb_build_object(repeat('x', len), 1)))))
  FROM unnest(ARRAY[255, 256]) AS len;
SELECT depth, why(format('SELECT dispatch.publish(''t'', ''s'', options => %L)',
	format('{"headers": {"a": %s1%s}}', repeat('[', depth), repeat(']', depth))))
  FROM unnest(ARRAY[31, 32, 2000]) AS depth;
SELECT why(format('SELECT dispatch.publish(''t'', ''s'', options => %L)',
	jsonb_build_object('headers', jsonb_build_object('a', repeat('x', 65536)))));
-- A routing key that is rendered too long
SELECT why(format('SELECT dispatch.publish(%L, ''s'')', repeat('t', 256)));

DROP FUNCTION why;
DROP EXTENSION dispatch CASCADE;
