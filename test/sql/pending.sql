-- backend_status.pending: exact to 10,000, and above that an estimate, which takes
-- it that the first events are as dense among all as those behind them.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
CREATE FUNCTION publish_many(backend text, number int) RETURNS bigint LANGUAGE sql AS $$
	SELECT count(dispatch.publish('t', 's', backend => $1)) FROM generate_series(1, $2);
$$;
CREATE VIEW pending AS
	SELECT name, pending, pending BETWEEN 36000 AND 44000 AS about_40000,
		oldest_pending = (SELECT min(created_at) FROM dispatch.outbox WHERE backend_id = b.id) AS oldest
	FROM dispatch.backend_status AS s JOIN dispatch.backends AS b USING (name);
SELECT dispatch.create_backend('exact', 'notify');
SELECT dispatch.pause_backend('exact');

SELECT name, pending, oldest FROM pending;
SELECT publish_many('exact', 9999);
SELECT name, pending, oldest FROM pending;
SELECT publish_many('exact', 1);
SELECT name, pending, oldest FROM pending;

-- What was rolled back does not count, even if it is most of all; nor what is gone.
BEGIN;
SELECT publish_many('exact', 30000);
ROLLBACK;
SELECT name, pending, oldest FROM pending;
BEGIN;
DELETE FROM dispatch.outbox WHERE id % 2 = 0;
SELECT name, pending, oldest FROM pending;
ROLLBACK;

-- One of three backends
SELECT dispatch.create_backend('one', 'notify'), dispatch.create_backend('two', 'notify');
SELECT dispatch.pause_backend('one'), dispatch.pause_backend('two');
SELECT sum(publish_many('one', 50) + publish_many('two', 100)) FROM generate_series(1, 800);
SELECT name, about_40000, oldest FROM pending WHERE name = 'one';
-- While others are being published, and every fourth one is gone
BEGIN;
DELETE FROM dispatch.outbox WHERE id % 4 = 0;
SELECT sum(publish_many('one', 37) + publish_many('two', 100)) FROM generate_series(1, 266);
SELECT name, about_40000, oldest FROM pending WHERE name = 'one';
ROLLBACK;

DROP VIEW pending;
DROP FUNCTION publish_many;
SELECT dispatch.drop_backend(name, true) FROM dispatch.backends;
DROP EXTENSION dispatch CASCADE;
