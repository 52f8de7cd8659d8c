-- Templates: which there are, what becomes of them for an event, and that they
-- are rendered when the event is sent.
CREATE EXTENSION dispatch;

CREATE FUNCTION channel_of(template text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	why text;
BEGIN
	PERFORM dispatch.publish('order.paid', 'the shop', '{"n": 1.50, "t": "{key}", "b": false, "o": {"p": {"q": "deep"}, "x.y": "dot"}, "e": "", "z": null, "a": [1]}',
		'templates', 'the key', 'subject', jsonb_build_object('channel', template));
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS why = PG_EXCEPTION_DETAIL;
	RETURN why;
END $$;
BEGIN;
SELECT dispatch.create_backend('templates', 'notify');
SELECT dispatch.pause_backend('templates');
COMMIT;
SELECT t AS template, channel_of(t) FROM unnest(ARRAY['plain', '{event_type}', '{source}/{subject}/{key}', '{{{key}}}', '{{key}}',
	'{data.n}', '{data.t}', '{data.b}', '{data.o.p.q}', 'a{data.o.p.q}b{data.o.p.q}c', '{data.e}x',
	'{data.e}', '{data.z}', '{data.a}', '{data.a.0}', '{data.o}', '{data.o.x.y}', '{data.nothing}', '{data.n.x}',
	'{}', '{ key }', '{KEY}', '{id}', '{data}', '{data.}', '{data..x}', '{data.x.}', '{datax}', '{key', 'key}', '{key}}', '{{key}', '{a{key}}', '{', '}', '']) AS t;
DROP FUNCTION channel_of;
SELECT dispatch.drop_backend('templates', true);

-- What is sent.  psql tells the process of a notification, so it is left out.
\getenv directory PG_ABS_BUILDDIR
\set file :directory '/results/templates.notifications'
\setenv NOTIFICATIONS :file
BEGIN;
SELECT dispatch.create_backend('n', 'notify', '{"channel": "{event_type}", "envelope": "data"}');
SELECT dispatch.pause_backend('n');
COMMIT;
LISTEN "all: t s u k";
LISTEN "{key}";
LISTEN "data: {key} 1.50 false deep";
LISTEN "é t🐘";
LISTEN "mended";
SELECT count(dispatch.publish('t', 's', d, 'n', 'k', 'u', jsonb_build_object('channel', c)))
FROM (VALUES ('1'::jsonb, 'all: {event_type} {source} {subject} {key}'), ('2', '{{key}}'),
	('{"t": "{key}", "n": 1.50, "f": false, "o": {"p": "deep"}}', 'data: {data.t} {data.n} {data.f} {data.o.p}'),
	('{"é": "🐘"}', 'é {event_type}{data.é}')) AS v (d, c);
-- This one would go to a channel of its own type, but the backend is altered
-- while it waits.
SELECT dispatch.publish('mend me', 's', '5', 'n') IS NOT NULL AS published;
SELECT dispatch.alter_backend('n', '{"channel": "mended"}');
SELECT dispatch.resume_backend('n');
\o :file
SELECT dispatch.flush('5 s');
\o
\! sed 's/ from server process with PID [0-9]*//' "$NOTIFICATIONS"
-- A channel is as long as a name can be.
SELECT dispatch.publish('t', 's', backend => 'n', options => jsonb_build_object('channel', repeat('x', 64))) IS NOT NULL AS published;
SELECT dispatch.publish('t', 's', to_jsonb(repeat('x', 64)), 'n', repeat('x', 64), options => '{"channel": "{key}"}') IS NOT NULL AS published;
UNLISTEN *;

DROP EXTENSION dispatch;
