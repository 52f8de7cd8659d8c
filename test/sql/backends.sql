-- Backends: the functions that configure them, the same by hand, and what is
-- refused.  dispatch.backends is the configuration, whoever writes it.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set wait_for :directory '/sql/include/wait_for.sql'
\set ECHO none
\i :wait_for
\set ECHO all

--
-- By functions
--
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.create_backend('other', 'notify', '{"channel": "a channel", "envelope": "data"}');
SELECT dispatch.alter_backend('other', '{"channel": "{event_type}"}');
SELECT dispatch.pause_backend('other');
SELECT dispatch.pause_backend('other');
SELECT name, transport, options, enabled, ordering, batch_size, sleep_time, max_retries,
	retry_backoff, retry_delay, retry_max_delay, owner = current_user AS mine, dropping
FROM dispatch.backends ORDER BY name;
-- An option that is null goes back to its default; the others stay.
SELECT dispatch.alter_backend('other', '{"channel": null}');
SELECT dispatch.alter_backend('other', '{}');
SELECT dispatch.alter_backend('other', '{"envelope": null, "channel": null}');
SELECT dispatch.resume_backend('other');
SELECT options, enabled FROM dispatch.backends WHERE name = 'other';
SELECT dispatch.drop_backend('other');
SELECT count(*) FROM dispatch.backends WHERE name = 'other' AND NOT dropping;

--
-- By hand
--
INSERT INTO dispatch.backends (name, transport) VALUES ('other', 'notify'), ('third', 'notify');
UPDATE dispatch.backends SET options = '{"channel": "x"}', enabled = false, ordering = 'strict',
	batch_size = 10, sleep_time = '1 min', max_retries = 0, retry_backoff = false,
	retry_delay = '2s', retry_max_delay = '3s'
WHERE name = 'other' AND NOT dropping;
UPDATE dispatch.backends SET name = 'fourth' WHERE name = 'third';
SELECT name, options, enabled, ordering, batch_size, sleep_time, max_retries, retry_backoff,
	retry_delay, retry_max_delay
FROM dispatch.backends WHERE NOT dropping ORDER BY name;
SELECT dispatch.publish('t', 's', backend => 'third');
SELECT dispatch.publish('t', 's', backend => 'fourth') IS NOT NULL AS published;
SELECT dispatch.flush(backend => 'fourth');
DELETE FROM dispatch.backends WHERE name IN ('other', 'fourth') AND NOT dropping;
SELECT name FROM dispatch.backends WHERE NOT dropping;
COPY dispatch.backends (name, transport, enabled) FROM stdin;
copied	notify	f
\.
SELECT name, transport, options, enabled FROM dispatch.backends WHERE name = 'copied';
TRUNCATE dispatch.backends;
SELECT dispatch.drop_backend('copied');
-- What the rows are completed with is not the writer's to choose.
INSERT INTO dispatch.backends (id, name, transport, dropping, force_drop, event_options)
VALUES (1, 'made up', 'notify', true, true, '[{"name": "x"}]');
SELECT id > 1 AS own_id, dropping, force_drop, identity = dispatch.identity() AS ours,
	event_options @> '[{"name": "channel"}]' AS own_options
FROM dispatch.backends WHERE name = 'made up';

--
-- Names
--
SELECT dispatch.create_backend(NULL, 'notify');
SELECT dispatch.create_backend('', 'notify');
SELECT dispatch.create_backend(repeat('x', 64), 'notify');
SELECT dispatch.create_backend(repeat('å', 32), 'notify');
SELECT dispatch.create_backend(E'two\nlines', 'notify');
SELECT dispatch.create_backend(E'\x7f', 'notify');
SELECT dispatch.create_backend('default', 'notify');
UPDATE dispatch.backends SET name = 'default' WHERE name = 'made up';
UPDATE dispatch.backends SET name = '' WHERE name = 'made up';
INSERT INTO dispatch.backends (name, transport) VALUES ('twin', 'notify'), ('twin', 'notify');
BEGIN;
SELECT dispatch.create_backend(repeat('x', 63), 'notify'), dispatch.create_backend('Ü "quoted" name; --', 'notify');
SELECT dispatch.pause_backend('Ü "quoted" name; --');
SELECT name, state FROM dispatch.backend_status WHERE name LIKE 'Ü%';
ROLLBACK;

--
-- Backends that are not there
--
SELECT dispatch.alter_backend('nowhere', '{}');
SELECT dispatch.pause_backend('nowhere');
SELECT dispatch.resume_backend('nowhere');
SELECT dispatch.drop_backend('nowhere');
SELECT dispatch.check_backend('nowhere');
SELECT dispatch.alter_backend(NULL, '{}');
SELECT dispatch.pause_backend(NULL);
SELECT dispatch.resume_backend(NULL);
SELECT dispatch.drop_backend(NULL);
SELECT dispatch.check_backend(NULL);

--
-- Transports
--
SELECT dispatch.create_backend('x', NULL);
SELECT dispatch.create_backend('x', '');
SELECT dispatch.create_backend('x', 'Notify');
SELECT dispatch.create_backend('x', '../x');
SELECT dispatch.create_backend('x', '/lib/x.so');
SELECT dispatch.create_backend('x', repeat('x', 33));
-- The detail has the path of this installation.
\set VERBOSITY terse
SELECT dispatch.create_backend('x', 'carrier_pigeon');
\set VERBOSITY default
\echo :LAST_ERROR_SQLSTATE

--
-- Options
--
SELECT dispatch.create_backend('x', 'notify', NULL);
SELECT dispatch.create_backend('x', 'notify', '[]');
SELECT dispatch.create_backend('x', 'notify', 'null');
SELECT dispatch.create_backend('x', 'notify', '{"chanel": "x"}');
SELECT dispatch.create_backend('x', 'notify', '{"host": "x"}');
SELECT dispatch.create_backend('x', 'notify', '{"channel": 1}');
SELECT dispatch.create_backend('x', 'notify', '{"channel": ""}');
SELECT dispatch.create_backend('x', 'notify', '{"channel": "{key"}');
SELECT dispatch.create_backend('x', 'notify', '{"channel": "{data}"}');
-- No channel is longer than 63 bytes: no event could ever be sent.
BEGIN;
SELECT dispatch.create_backend('x', 'notify', jsonb_build_object('channel', repeat('x', 64)));
ROLLBACK;
SELECT dispatch.create_backend('x', 'notify', '{"envelope": "xml"}');
INSERT INTO dispatch.backends (name, transport, options, owner) VALUES ('x', 'sql', '{"timeout": 1}', 'pg_monitor');
INSERT INTO dispatch.backends (name, transport, options, owner) VALUES ('x', 'sql', '{"function": null}', 'pg_monitor');
SELECT dispatch.alter_backend('default', NULL);
SELECT dispatch.alter_backend('default', '[]');
SELECT dispatch.alter_backend('default', 'null');
SELECT dispatch.alter_backend('default', '{"chanel": "x"}');
SELECT dispatch.alter_backend('default', '{"chanel": null}');
UPDATE dispatch.backends SET options = '{"chanel": "x"}' WHERE name = 'default';
UPDATE dispatch.backends SET options = '[]' WHERE name = 'default';
UPDATE dispatch.backends SET options = NULL WHERE name = 'default';

--
-- Columns
--
-- The detail has the number of this installation.
\set VERBOSITY terse
UPDATE dispatch.backends SET ordering = 'any' WHERE name = 'default';
UPDATE dispatch.backends SET batch_size = 0 WHERE name = 'default';
UPDATE dispatch.backends SET sleep_time = '0' WHERE name = 'default';
UPDATE dispatch.backends SET max_retries = -1 WHERE name = 'default';
UPDATE dispatch.backends SET retry_delay = '-1 s' WHERE name = 'default';
UPDATE dispatch.backends SET retry_max_delay = '24 days 1 ms' WHERE name = 'default';
\set VERBOSITY default
UPDATE dispatch.backends SET retry_max_delay = '24 days' WHERE name = 'default' RETURNING retry_max_delay;
UPDATE dispatch.backends SET id = id + 1000 WHERE name = 'default';
UPDATE dispatch.backends SET transport = 'sql' WHERE name = 'default';
UPDATE dispatch.backends SET identity = 'another/1' WHERE name = 'default';
UPDATE dispatch.backends SET identity = '' WHERE name = 'default';
UPDATE dispatch.backends SET owner = 'regress_nobody' WHERE name = 'default';
UPDATE dispatch.backends SET name = NULL WHERE name = 'default';
SELECT name, transport, options, ordering FROM dispatch.backends WHERE name = 'default';

--
-- Dropping
--
SELECT dispatch.pause_backend('default');
SELECT dispatch.publish('t', 's') IS NOT NULL AS published;
SELECT dispatch.drop_backend('default');
DELETE FROM dispatch.backends WHERE name = 'default';
UPDATE dispatch.backends SET dropping = true WHERE name = 'default';
SELECT dispatch.publish('later', 's', scheduled_at => '2999-01-01') IS NOT NULL AS published;
SELECT dispatch.resume_backend('default');
SELECT dispatch.flush();
-- A scheduled event is undelivered, too.
SELECT dispatch.drop_backend('default', false);
SELECT dispatch.drop_backend('default', NULL);
SELECT dispatch.drop_backend('default', true);
SELECT dispatch.drop_backend('default', true);
UPDATE dispatch.backends SET dropping = false WHERE name = 'default';
-- What is given up is nobody's to wait for.
SELECT dispatch.flush('10 s');
-- The name is free at once, and the events of the old one are not the new one's.
BEGIN;
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.pause_backend('default');
COMMIT;
SELECT dispatch.publish('for the new one', 's') IS NOT NULL AS published;
SELECT name, state, pending FROM dispatch.backend_status WHERE state <> 'dropping' ORDER BY name;
SELECT dispatch.drop_backend('default', true);
SELECT dispatch.drop_backend('made up');
-- In the end nothing is left of them but their events, and how far those were
-- delivered.
SELECT wait_for('NOT EXISTS (SELECT FROM dispatch.backends)');
SELECT (SELECT count(*) FROM dispatch.backend_secrets) AS secrets,
	(SELECT count(*) FROM dispatch.scheduled) AS scheduled,
	(SELECT count(*) FROM dispatch.positions WHERE published > 0) AS positions;
SELECT event_type, backend, status FROM dispatch.events ORDER BY created_at;

DROP FUNCTION wait_for;
DROP EXTENSION dispatch;
