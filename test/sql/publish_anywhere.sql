-- publish() works wherever SQL runs, belongs to the transaction that called it,
-- and does nothing to it besides its own insert.
CREATE EXTENSION dispatch;
BEGIN;
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.pause_backend('default');
COMMIT;

-- What was published, in that order; and then, none of it any more.
CREATE FUNCTION take_events() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(event_type, ' ' ORDER BY id) FROM dispatch.outbox
$$;
\set take 'SELECT take_events(); TRUNCATE dispatch.outbox;'

-- With the transaction or not at all
BEGIN;
SELECT dispatch.publish('rolled back', 's') \g /dev/null
ROLLBACK;
BEGIN;
SELECT dispatch.publish('failed', 's') \g /dev/null
SELECT 1 / 0;
COMMIT;
SELECT dispatch.publish('failed, too', 's'), 1 / (length('x') - 1);
BEGIN;
SELECT dispatch.publish('committed', 's') \g /dev/null
COMMIT;
:take

-- Savepoints
BEGIN;
SELECT dispatch.publish('before', 's') \g /dev/null
SAVEPOINT a;
SELECT dispatch.publish('undone', 's') \g /dev/null
SAVEPOINT b;
SELECT dispatch.publish('undone, too', 's') \g /dev/null
RELEASE b;
ROLLBACK TO a;
SELECT dispatch.publish('after', 's') \g /dev/null
SAVEPOINT c;
SELECT dispatch.publish('released', 's') \g /dev/null
RELEASE c;
COMMIT;
:take

-- The events of subtransactions are those of the whole transaction: readers
-- know no other.
BEGIN;
SAVEPOINT a;
CREATE TEMP TABLE gets_an_xid (x int);
SAVEPOINT b;
SELECT dispatch.publish('nested', 's') \g /dev/null
SELECT xid = pg_current_xact_id() AS is_top_level, xmin::text <> xid::text AS is_nested
FROM dispatch.outbox;
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT dispatch.publish('first of all', 's') \g /dev/null
SELECT xid = pg_current_xact_id() AS is_top_level FROM dispatch.outbox WHERE event_type = 'first of all';
ROLLBACK;
:take

-- DO, exception blocks, procedures that commit on the way
DO $$
BEGIN
	PERFORM dispatch.publish('do', 's');
	BEGIN
		PERFORM dispatch.publish('undone by an exception', 's');
		PERFORM 1 / 0;
	EXCEPTION WHEN division_by_zero THEN
		PERFORM dispatch.publish('handler', 's');
	END;
	BEGIN
		PERFORM dispatch.publish('', 's');
	EXCEPTION WHEN invalid_parameter_value THEN
		PERFORM dispatch.publish('its own error', 's');
	END;
END $$;
CREATE PROCEDURE in_steps() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1..4 LOOP
		PERFORM dispatch.publish('step ' || i, 's');
		IF i % 2 = 0 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END $$;
CALL in_steps();
DROP PROCEDURE in_steps;
:take

-- Triggers: before and after, of rows and statements, and at the end of the
-- transaction
CREATE TABLE orders (id int PRIMARY KEY);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dispatch.publish(tg_argv[0], 's', CASE tg_level WHEN 'ROW' THEN to_jsonb(NEW) END);
	RETURN NEW;
END $$;
CREATE TRIGGER a BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell('before');
CREATE TRIGGER b AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell('after');
CREATE TRIGGER c AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION tell('statement');
CREATE CONSTRAINT TRIGGER d AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION tell('deferred');
BEGIN;
INSERT INTO orders VALUES (1), (2);
SELECT dispatch.publish('last statement', 's') \g /dev/null
COMMIT;
SELECT string_agg(event_type || coalesce(' ' || (data ->> 'id'), ''), ', ' ORDER BY id)
FROM dispatch.outbox;
TRUNCATE dispatch.outbox;
COPY orders FROM stdin;
3
\.
INSERT INTO orders VALUES (3);
INSERT INTO orders VALUES (3) ON CONFLICT DO NOTHING;
:take
DROP TABLE orders;
DROP FUNCTION tell;

-- Two-phase commit
BEGIN;
SELECT dispatch.publish('prepared', 's') \g /dev/null
PREPARE TRANSACTION 'regress_kept';
BEGIN;
SELECT dispatch.publish('prepared in vain', 's') \g /dev/null
PREPARE TRANSACTION 'regress_given_up';
SELECT count(*) FROM dispatch.outbox;
COMMIT PREPARED 'regress_kept';
ROLLBACK PREPARED 'regress_given_up';
:take

-- Other ways to run it
PREPARE p(text) AS SELECT dispatch.publish($1, 's') IS NOT NULL AS published;
EXECUTE p('prepared statement 1');
EXECUTE p('prepared statement 2');
DEALLOCATE p;
WITH published AS MATERIALIZED (SELECT dispatch.publish('with', 's') AS event_id)
SELECT count(event_id) FROM published;
CREATE FUNCTION wrapped(text) RETURNS uuid LANGUAGE sql AS $$ SELECT dispatch.publish($1, 's') $$;
SELECT wrapped('function') IS NOT NULL AS published;
DROP FUNCTION wrapped;
BEGIN;
DECLARE c CURSOR FOR SELECT dispatch.publish('cursor ' || n, 's') IS NOT NULL AS published
	FROM generate_series(1, 3) AS n;
FETCH 2 FROM c;
COMMIT;
SET search_path = '';
SELECT dispatch.publish('empty search_path', 's') IS NOT NULL AS published;
RESET search_path;
SET session_replication_role = replica;
SELECT dispatch.publish('replica role', 's') IS NOT NULL AS published;
RESET session_replication_role;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT dispatch.publish('serializable', 's') IS NOT NULL AS published;
COMMIT;
:take

-- Where nothing may be written, nothing is published.
BEGIN READ ONLY;
SELECT dispatch.publish('read only', 's');
ROLLBACK;
SET default_transaction_read_only = on;
SELECT dispatch.publish('read only', 's');
RESET default_transaction_read_only;
CREATE TABLE many AS SELECT n FROM generate_series(1, 100) AS n;
ALTER TABLE many SET (parallel_workers = 2);
CREATE FUNCTION says_it_is_safe(int) RETURNS uuid LANGUAGE plpgsql PARALLEL SAFE AS $$
BEGIN
	RETURN dispatch.publish('in parallel', 's');
END $$;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off;
\set VERBOSITY terse
SELECT count(says_it_is_safe(n)) FROM many WHERE says_it_is_safe(n) IS NOT NULL;
\set VERBOSITY default
SELECT count(dispatch.publish('not in parallel', 's')) FROM many;
SELECT event_type, count(*) FROM dispatch.outbox GROUP BY event_type;
TRUNCATE dispatch.outbox;
DROP FUNCTION says_it_is_safe;
DROP TABLE many;

-- A backend that this very transaction has made, or has made and undone
BEGIN;
SELECT dispatch.create_backend('mine', 'notify');
SELECT dispatch.publish('to mine', 's', backend => 'mine') IS NOT NULL AS published;
SAVEPOINT a;
SELECT dispatch.create_backend('undone', 'notify');
SELECT dispatch.publish('to undone', 's', backend => 'undone') IS NOT NULL AS published;
SELECT dispatch.alter_backend('mine', '{"channel": "{key}"}');
SAVEPOINT b;
SELECT dispatch.publish('to mine', 's', backend => 'mine');
ROLLBACK TO a;
SELECT dispatch.publish('to mine', 's', backend => 'mine') IS NOT NULL AS published;
SELECT dispatch.publish('to undone', 's', backend => 'undone');
ROLLBACK;
SELECT dispatch.publish('to mine', 's', backend => 'mine');

-- A name that was unknown a moment ago; one that is not any more
SELECT dispatch.create_backend('mine', 'notify');
SELECT dispatch.publish('to mine', 's', backend => 'mine') IS NOT NULL AS published;
BEGIN;
SELECT dispatch.drop_backend('mine', force => true);
SAVEPOINT a;
SELECT dispatch.publish('to mine', 's', backend => 'mine');
ROLLBACK;
SELECT dispatch.publish('to mine', 's', backend => 'mine') IS NOT NULL AS published;
SELECT dispatch.drop_backend('mine', force => true);
SELECT dispatch.publish('to mine', 's', backend => 'mine');
TRUNCATE dispatch.outbox;

-- Only an insert: no other row changes, no lock outlives the call that anybody
-- else could wait for, and nothing is held on the table of backends.  (Which
-- segment is the current one depends on when the manager opened it.)
\c -
BEGIN;
SELECT dispatch.publish('first', 's'), dispatch.publish('second', 's', key => 'k') \g /dev/null
SELECT regexp_replace(relname, '\d', 'N') AS relname, n_tup_ins AS inserted, n_tup_upd AS updated, n_tup_del AS deleted
FROM pg_stat_xact_user_tables WHERE n_tup_ins + n_tup_upd + n_tup_del > 0;
SELECT locktype, regexp_replace(relation::regclass::text, '_\d', '_N') AS relation, mode FROM pg_locks
WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'
	AND (relation IS NULL OR relation::regclass::text LIKE 'dispatch.%')
	AND mode NOT IN ('AccessShareLock')
ORDER BY locktype, pg_locks.relation::regclass::text COLLATE "C", mode;
COMMIT;

DROP FUNCTION take_events;
DROP EXTENSION dispatch;
