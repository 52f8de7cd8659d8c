-- What the views and flush() tell: how each event and each backend fares.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
CREATE FUNCTION wait_for(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	met boolean;
BEGIN
	FOR i IN 1..200 LOOP
		EXECUTE 'SELECT ' || condition INTO met;
		EXIT WHEN met;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN met;
END $$;

-- No backend at all
SELECT * FROM dispatch.events;
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
-- An event that is too large for the transport stops it, and says why.
SELECT dispatch.create_backend('failing', 'notify');
SELECT dispatch.publish('10', 's', to_jsonb(repeat('x', 10000)), 'failing') IS NOT NULL AS published;
SELECT wait_for($$(SELECT state = 'event failed' FROM dispatch.backend_status WHERE name = 'failing')$$);
SELECT state, pending, published, last_error, last_error_at IS NOT NULL AS error_at FROM dispatch.backend_status WHERE name = 'failing';
SELECT dispatch.drop_backend('failing', true);
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
SELECT event_type, backend, status FROM dispatch.events WHERE event_type IN ('7', '9', '10', '11') ORDER BY event_type;

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
