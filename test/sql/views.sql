-- What the views and flush() tell: how each event and each backend fares.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set wait_for :directory '/sql/include/wait_for.sql'
\set ECHO none
\i :wait_for
\set ECHO all

-- No backend at all
SELECT * FROM dispatch.events;
SELECT * FROM dispatch.dead_letters;
SELECT * FROM dispatch.backend_status;
SELECT dispatch.flush();

-- pending, published, scheduled
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.publish('1', 's') IS NOT NULL AS published;
SELECT dispatch.flush();
SELECT dispatch.publish('2', 's', scheduled_at => '2999-01-01') IS NOT NULL AS published;
SELECT event_type, backend, status FROM dispatch.events ORDER BY event_type;
SELECT name, transport, state, pid IS NOT NULL AS pid, pending, oldest_pending IS NOT NULL AS oldest, published,
	in_flight, latency_p50 > '0' AS p50, latency_p50 <= latency_p95 AND latency_p95 <= latency_p99 AS ordered,
	last_error, last_error_at, next_attempt_at, last_published_at > now() - interval '1 minute' AS lately
FROM dispatch.backend_status;
SELECT dispatch.pause_backend('default');
SELECT wait_for($$NOT EXISTS (SELECT FROM dispatch.workers())$$);
SELECT dispatch.publish('3', 's') IS NOT NULL AS published;
SELECT event_type, backend, status FROM dispatch.events ORDER BY event_type;
SELECT name, state, pid, pending, published, last_published_at IS NOT NULL AS lately, latency_p50 FROM dispatch.backend_status;
SELECT oldest_pending = (SELECT min(created_at) FROM dispatch.events WHERE status <> 'published') AS oldest FROM dispatch.backend_status;
SELECT dispatch.resume_backend('default');
SELECT dispatch.flush();
SELECT event_type, status FROM dispatch.events ORDER BY event_type;

-- What a transaction has published is pending to itself, and to nobody else.
BEGIN;
SELECT dispatch.publish('4', 's') IS NOT NULL AS published;
SELECT event_type, status FROM dispatch.events WHERE event_type = '4';
SELECT pending FROM dispatch.backend_status;
ROLLBACK;
SELECT count(*) FROM dispatch.events WHERE event_type = '4';

-- A scheduled event moves when it is due, and is the same event.
SELECT dispatch.publish('5', 's', '{"x": 1}', NULL, 'k', 'u', '{"envelope": "data"}', clock_timestamp() + interval '0.3 s', 7) AS event_id \gset
SELECT status FROM dispatch.events WHERE event_id = :'event_id';
SELECT wait_for($$EXISTS (SELECT FROM dispatch.events WHERE event_type = '5' AND status = 'published')$$);
SELECT e.event_type, e.source, e.data, e.key, e.subject, e.options, e.status, o.max_retries
FROM dispatch.events AS e JOIN dispatch.outbox AS o USING (event_id) WHERE event_id = :'event_id';

-- flush() waits for what was committed before; for one backend, or all.
SELECT dispatch.flush(NULL);
SELECT dispatch.flush('-1 s');
SELECT dispatch.flush('1 s', 'nowhere');
SELECT dispatch.flush('1 s', '');
SELECT dispatch.create_backend('paused', 'notify');
SELECT dispatch.pause_backend('paused');
SELECT wait_for($$(SELECT count(*) = 1 FROM dispatch.workers())$$);
SELECT dispatch.publish('6', 's') IS NOT NULL AS published;
-- All is settled, so that this need not wait for a worker that is not there.
SELECT dispatch.flush('2 s');
SELECT dispatch.publish('7', 's', backend => 'paused') IS NOT NULL AS published;
SELECT dispatch.flush('0.1 s'), dispatch.flush('0.1 s', 'paused'), dispatch.flush('5 s', 'default');
BEGIN;
SELECT dispatch.publish('8', 's') IS NOT NULL AS published;
SELECT dispatch.flush(backend => 'default');
COMMIT;
SELECT dispatch.flush(backend => 'default');
SET statement_timeout = '0.3 s';
SELECT dispatch.flush('1 min', 'paused');
RESET statement_timeout;

-- Other states
SELECT dispatch.create_backend('outage', 'redis', '{"host": "127.0.0.1", "port": 1}');
SELECT wait_for($$(SELECT state = 'outage' FROM dispatch.backend_status WHERE name = 'outage')$$);
SELECT dispatch.publish('9', 's', backend => 'outage') IS NOT NULL AS published;
SELECT name, state, pid IS NOT NULL AS pid, pending, published, last_error IS NOT NULL AS error,
	last_error_at IS NOT NULL AS error_at, next_attempt_at IS NOT NULL AS next
FROM dispatch.backend_status WHERE name = 'outage';
SELECT dispatch.flush('0.1 s', 'outage');
-- check_backend() says the same now.
SELECT ok, detail <> '' AS detail, elapsed < '10 s' AS elapsed FROM dispatch.check_backend('outage');
SELECT ok, detail, elapsed < '10 s' AS elapsed FROM dispatch.check_backend('default');
SELECT ok, detail FROM dispatch.check_backend('paused');
SELECT dispatch.drop_backend('outage', true);

-- An event that can never be delivered is a dead letter at once, with the
-- reason; the others go on, also those of its key.
SELECT dispatch.create_backend('failing', 'notify');
SELECT dispatch.publish('10', 's', to_jsonb(repeat('x', 10000)), 'failing', 'k') AS event_id \gset
SELECT dispatch.publish('10 after', 's', backend => 'failing', key => 'k') IS NOT NULL AS published;
SELECT dispatch.flush('10 s', 'failing');
SELECT wait_for($$(SELECT pending = 0 FROM dispatch.backend_status WHERE name = 'failing')$$);
SELECT state, pending, oldest_pending, retrying, failed, published, retried, last_error,
	last_error_at IS NOT NULL AS error_at, next_attempt_at
FROM dispatch.backend_status WHERE name = 'failing';
SELECT event_type, status, attempts, next_attempt_at, last_error
FROM dispatch.events WHERE backend = 'failing' ORDER BY event_type;
SELECT event_id = :'event_id' AS id, backend, event_type, source, subject, key, length(data #>> '{}') AS data,
	options, attempts, first_error = last_error AS error, first_failed_at = last_failed_at AS time,
	last_failed_at >= created_at AS later, attributes, content
FROM dispatch.dead_letters;
-- Tried again, it fails again; given up, it is no dead letter any more.
SELECT dispatch.retry_failed('paused'), dispatch.retry_failed('failing', 'no type');
\set VERBOSITY sqlstate
SELECT dispatch.retry(:'event_id', 'paused');
\set VERBOSITY default
SELECT dispatch.retry(:'event_id');
SELECT wait_for($$EXISTS (SELECT FROM dispatch.dead_letters)$$);
SELECT dispatch.retry_failed('failing', '10');
SELECT wait_for($$EXISTS (SELECT FROM dispatch.dead_letters)$$);
SELECT event_type, attempts FROM dispatch.dead_letters;
SELECT dispatch.discard(:'event_id');
SELECT event_type, status, attempts FROM dispatch.events WHERE event_id = :'event_id';
SELECT count(*) FROM dispatch.dead_letters;
SELECT failed, pending, retrying FROM dispatch.backend_status WHERE name = 'failing';
\set VERBOSITY sqlstate
SELECT dispatch.retry(:'event_id');
SELECT dispatch.discard(:'event_id');
\set VERBOSITY default
SELECT dispatch.retry_failed();

-- It can be delivered once the backend is altered: it goes on in its new form.
-- (Too large in its envelope, but not alone.)
SELECT dispatch.publish('10 large', 's', to_jsonb(repeat('x', 7900)), 'failing') AS event_id \gset
SELECT dispatch.flush('10 s', 'failing');
SELECT status FROM dispatch.events WHERE event_id = :'event_id';
SELECT dispatch.alter_backend('failing', '{"envelope": "data"}');
SELECT dispatch.retry_failed('failing');
SELECT wait_for($$NOT EXISTS (SELECT FROM dispatch.events WHERE event_type = '10 large' AND status <> 'published')$$);
SELECT status, attempts, last_error FROM dispatch.events WHERE event_id = :'event_id';

-- A dead letter is not undelivered: it is in the way of nothing, and is given
-- up with its backend.
SELECT dispatch.publish('10 dead', 's', to_jsonb(repeat('x', 10000)), 'failing') IS NOT NULL AS published;
SELECT dispatch.flush('10 s', 'failing');
SELECT status FROM dispatch.events WHERE event_type = '10 dead';
SELECT dispatch.drop_backend('failing');
-- The name of a backend whose dropping is not over can be in use again.
SELECT dispatch.create_backend('failing', 'notify');
SELECT dispatch.flush('5 s', 'failing');
SELECT wait_for($$(SELECT count(*) = 1 FROM dispatch.backend_status WHERE name = 'failing')$$);

-- What was delivered remains so, and what was given up shows as such, when the
-- backend is gone.
SELECT dispatch.publish('11', 's', backend => 'failing') IS NOT NULL AS published;
SELECT dispatch.flush(backend => 'failing');
SELECT dispatch.drop_backend('failing'), dispatch.drop_backend('paused', true);
SELECT wait_for($$(SELECT count(*) = 1 FROM dispatch.backends)$$);
SELECT event_type, backend, status FROM dispatch.events WHERE event_type IN ('7', '9', '10', '10 after', '10 dead', '11') ORDER BY event_type;

-- Many: exact up to 10000
SELECT dispatch.pause_backend('default');
SELECT wait_for($$NOT EXISTS (SELECT FROM dispatch.workers())$$);
SELECT count(dispatch.publish('many', 's')) FROM generate_series(1, 9999) AS n;
SELECT pending FROM dispatch.backend_status;
SELECT count(dispatch.publish('many', 's')) FROM generate_series(1, 10000) AS n;
ANALYZE dispatch.outbox;
SELECT pending BETWEEN 15000 AND 25000 AS estimate FROM dispatch.backend_status;
SELECT dispatch.resume_backend('default');
SELECT dispatch.flush();
SELECT state, pending FROM dispatch.backend_status;

DROP FUNCTION wait_for;
DROP EXTENSION dispatch;
