-- publish(): what it takes, what it returns, what it refuses.  Everything that
-- can be known to be wrong is an error of the call, not of the worker later.
CREATE EXTENSION dispatch;

-- No backend at all: the hint says what to do.
SELECT dispatch.publish('order.created', 'shop');

-- Events stay where they are while their backend is paused.
BEGIN;
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.create_backend('audit', 'notify',
	'{"channel": "{source}.{data.user.country}"}');
UPDATE dispatch.backends SET enabled = false;
COMMIT;

--
-- What is stored is what was given
--
SELECT dispatch.publish('order.created', 'shop') AS event_id \gset
SELECT backend, event_type, source, subject, key, data, options, status, next_attempt_at
FROM dispatch.events WHERE event_id = :'event_id';

SELECT dispatch.publish(event_type => 'order.paid', source => 'shop',
	data => '{"user": {"country": "se"}}', backend => 'audit', key => 'order-1',
	subject => 'orders/1', options => '{"envelope": "data"}',
	scheduled_at => '2020-01-01', max_retries => 5) AS event_id \gset
SELECT backend, event_type, source, subject, key, data, options, status, next_attempt_at
FROM dispatch.events WHERE event_id = :'event_id';
SELECT max_retries FROM dispatch.outbox WHERE event_id = :'event_id';

-- The same by position, and with every default spelled out.
SELECT dispatch.publish('order.paid', 'shop', '{"user": {"country": "no"}}', 'audit', 'order-1',
	'orders/1', '{"envelope": "data"}', '-infinity', 0) AS event_id \gset
SELECT e.backend, e.data, e.key, e.subject, e.options, e.status, o.max_retries
FROM dispatch.events AS e JOIN dispatch.outbox AS o USING (event_id)
WHERE event_id = :'event_id';
SELECT dispatch.publish('t', 's', NULL, NULL, NULL, NULL, NULL, NULL, NULL) IS NOT NULL AS published;

-- An event that is not due waits aside; one that was due long ago does not.
SELECT dispatch.publish('later', 's', scheduled_at => '2999-01-01 00:00+00') AS event_id \gset
SELECT backend, event_type, status, next_attempt_at = '2999-01-01 00:00+00' AS due
FROM dispatch.events WHERE event_id = :'event_id';
SELECT count(*) FROM dispatch.outbox WHERE event_id = :'event_id';

-- No data is not JSON null.
SELECT dispatch.publish('no data', 's'), dispatch.publish('null', 's', 'null') \g /dev/null
SELECT event_type, data IS NULL AS no_data, jsonb_typeof(data)
FROM dispatch.events WHERE event_type IN ('no data', 'null') ORDER BY event_type DESC;

-- Any JSON is data, of any size; texts are Unicode.
SELECT dispatch.publish('scalar', 's', d) FROM unnest('{1,"\"x\"",true,"[]","{}"}'::jsonb[]) AS d \g /dev/null
SELECT data FROM dispatch.events WHERE event_type = 'scalar' ORDER BY data::text COLLATE "C";
SELECT dispatch.publish('big', 's', jsonb_build_object('x', repeat('x', 8000000))) IS NOT NULL AS published;
SELECT length(data ->> 'x') FROM dispatch.events WHERE event_type = 'big';
SELECT dispatch.publish('åäö.☃', '源', '{"🐘": "\u00e5\n\t\"\\"}', key => 'ключ', subject => '🐘') AS event_id \gset
SELECT event_type, source, data, key, subject FROM dispatch.events WHERE event_id = :'event_id';
SELECT dispatch.publish(repeat('t', 100000), repeat('s', 100000),
	key => repeat('k', 100000), subject => repeat('j', 100000)) AS event_id \gset
SELECT length(event_type), length(source), length(key), length(subject)
FROM dispatch.events WHERE event_id = :'event_id';

--
-- Identity: a UUID of version 7, with the time of the event; ids ascend
--
TRUNCATE dispatch.outbox;
SELECT count(DISTINCT dispatch.publish('many', 's', to_jsonb(n))) FROM generate_series(1, 1000) AS n;
SELECT count(DISTINCT event_id) AS ids,
	bool_and(event_id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$') AS version_7,
	bool_and(('x' || substr(replace(event_id::text, '-', ''), 1, 12))::bit(48)::bigint
		= floor(extract(epoch FROM created_at) * 1000)) AS has_time,
	bool_and(created_at BETWEEN now() - interval '1 minute' AND clock_timestamp()) AS is_now
FROM dispatch.outbox;
SELECT bool_and(id_order = n AND uuid_order = n) AS in_order_of_call
FROM (SELECT data::int AS n, rank() OVER (ORDER BY id) AS id_order,
		rank() OVER (ORDER BY event_id) AS uuid_order
	FROM dispatch.outbox) AS o;

--
-- Bad arguments
--
SELECT dispatch.publish(NULL, 's');
SELECT dispatch.publish('', 's');
SELECT dispatch.publish('t', NULL);
SELECT dispatch.publish('t', '');
SELECT dispatch.publish('t', 's', key => '');
SELECT dispatch.publish('t', 's', subject => '');
SELECT dispatch.publish('t', 's', scheduled_at => 'infinity');
SELECT dispatch.publish('t', 's', max_retries => -1);
SELECT dispatch.publish('t', 's', max_retries => 1000001);
SELECT dispatch.publish('t');
SELECT dispatch.publish('t', 's', 'not json');
SELECT dispatch.publish('t', 's', bakend => 'default');

-- backend
SELECT dispatch.publish('t', 's', backend => 'nowhere');
SELECT dispatch.publish('t', 's', backend => '');
SELECT dispatch.publish('t', 's', backend => 'DEFAULT');
SELECT dispatch.publish('t', 's', backend => 'default ');
SELECT dispatch.publish('t', 's', backend => repeat('x', 63));
SELECT dispatch.publish('t', 's', backend => repeat('x', 64));

-- options
SELECT dispatch.publish('t', 's', options => '[]');
SELECT dispatch.publish('t', 's', options => '"channel"');
SELECT dispatch.publish('t', 's', options => 'null');
SELECT dispatch.publish('t', 's', options => '{"chanel": "x"}');
SELECT dispatch.publish('t', 's', options => '{"stream_name": "x"}');
SELECT dispatch.publish('t', 's', options => '{"": "x"}');
SELECT dispatch.publish('t', 's', options => '{"channel": 5}');
SELECT dispatch.publish('t', 's', options => '{"channel": ["x"]}');
SELECT dispatch.publish('t', 's', options => '{"channel": ""}');
SELECT dispatch.publish('t', 's', options => '{"envelope": "xml"}');
SELECT dispatch.publish('t', 's', options => '{"envelope": true}');
-- One that is null is as if it were not there.
SELECT dispatch.publish('t', 's', options => '{"channel": null, "envelope": null}') IS NOT NULL AS published;

-- templates, the event's own and the backend's
SELECT dispatch.publish('t', 's', options => '{"channel": "{subject}"}');
SELECT dispatch.publish('t', 's', options => '{"channel": "{key}"}');
SELECT dispatch.publish('t', 's', options => '{"channel": "{nothing}"}');
SELECT dispatch.publish('t', 's', options => '{"channel": "{data.x"}');
SELECT dispatch.publish('t', 's', backend => 'audit');
SELECT dispatch.publish('t', 's', backend => 'audit', data => '{"user": "x"}');
SELECT dispatch.publish('t', 's', backend => 'audit', data => '{"user": {}}');
SELECT dispatch.publish('t', 's', backend => 'audit', data => '{"user": {"country": null}}');
SELECT dispatch.publish('t', 's', backend => 'audit', data => '{"user": {"country": ["se"]}}');
SELECT dispatch.publish('t', 's', backend => 'audit', data => '[{"user": {"country": "se"}}]');
-- The event's own template comes first, so the backend's need not fit.
SELECT dispatch.publish('t', 's', backend => 'audit', options => '{"channel": "x"}') IS NOT NULL AS published;

-- SQLSTATEs: a client can tell what it did wrong from what is not there.
CREATE FUNCTION sqlstate_of(arguments text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'SELECT dispatch.publish(' || arguments || ')';
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate;
END $$;
SELECT a AS arguments, sqlstate_of(a) FROM unnest(ARRAY[
	$$NULL, 's'$$, $$'', 's'$$, $$'t', 's', backend => 'nowhere'$$, $$'t', 's', max_retries => -1$$,
	$$'t', 's', scheduled_at => 'infinity'$$, $$'t', 's', options => '{"x": 1}'$$,
	$$'t', 's', options => '{"channel": "{key}"}'$$, $$'t', 's'$$]) AS a;

-- What was refused left nothing behind.
SELECT event_type, count(*) FROM dispatch.outbox WHERE event_type <> 'many' GROUP BY event_type;

DROP FUNCTION sqlstate_of;
DROP EXTENSION dispatch;
