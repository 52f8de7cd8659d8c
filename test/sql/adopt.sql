-- Backends of another installation, as a restored dump has them: nothing is
-- sent for them, and nothing is lost, until dispatch.adopt().  (Whole dumps and
-- copies are tried elsewhere: this is about the rules.)
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set wait_for :directory '/sql/include/wait_for.sql'
\set ECHO none
\i :wait_for
\set ECHO all
CREATE ROLE regress_operator;
SELECT dispatch.grant_operate('regress_operator');

-- Nothing to adopt is no error.
SELECT dispatch.adopt();

-- Only the owner of the tables can restore: such a row is not checked.
SET ROLE regress_operator;
INSERT INTO dispatch.backends (id, name, transport, identity, owner)
VALUES (1000, 'default', 'notify', 'another/1', 'regress_operator');
SELECT dispatch.adopt();
RESET ROLE;
INSERT INTO dispatch.backends (id, name, transport, identity, owner)
SELECT 1000, 'default', 'notify', 'another/1', current_user;
INSERT INTO dispatch.backends (id, name, transport, identity, owner)
VALUES (1001, 'carried', 'carrier_pigeon', 'another/1', 'regress_gone');
SELECT dispatch.create_backend('own', 'notify');
SELECT name, transport, state, pid, pending FROM dispatch.backend_status WHERE name <> 'own' ORDER BY name;

-- What it has cannot be told here, so it is not dropped as an empty one, not
-- even if the original had begun to.
INSERT INTO dispatch.backends (id, name, transport, identity, owner, dropping)
SELECT 1002, 'going', 'notify', 'another/1', current_user, true;
SELECT dispatch.drop_backend('default');
DELETE FROM dispatch.backends WHERE name = 'default';
SELECT dispatch.flush('0 s', 'default');
SELECT pg_sleep(2);
SELECT name, state FROM dispatch.backend_status WHERE name = 'going';
UPDATE dispatch.backends SET force_drop = true WHERE name = 'going';
SELECT wait_for($$NOT EXISTS (SELECT FROM dispatch.backends WHERE name = 'going')$$);

-- It takes events, which are put aside.
SELECT dispatch.publish('first', 's', '{"n": 1}', key => 'k') AS event_id \gset
SELECT dispatch.publish('later', 's', key => 'k', scheduled_at => '2999-01-01') IS NOT NULL AS published;
SELECT dispatch.publish('own', 's', backend => 'own') IS NOT NULL AS published;
SELECT dispatch.flush('10 s', 'own');
SELECT event_type, backend, status, attempts FROM dispatch.events ORDER BY event_type;
SELECT name, state, pid, pending FROM dispatch.backend_status WHERE name <> 'own' ORDER BY name;

-- Neither it nor whose it is can be changed by hand.
UPDATE dispatch.backends SET identity = dispatch.identity() WHERE name = 'default';
SELECT dispatch.pause_backend('default'), dispatch.resume_backend('default');
SELECT name, state FROM dispatch.backend_status WHERE name = 'default';

-- Adopted, it delivers them, each when it is due.
SELECT dispatch.adopt();
SELECT bool_and(identity = dispatch.identity()) AS ours FROM dispatch.backends;
SELECT wait_for($$(SELECT status = 'published' FROM dispatch.events WHERE event_type = 'first')$$);
SELECT event_id = :'event_id' AS same, event_type, data, key FROM dispatch.events WHERE event_type = 'first';
SELECT event_type, status, next_attempt_at = '2999-01-01' AS then FROM dispatch.events WHERE event_type = 'later';
SELECT dispatch.publish('new', 's', key => 'k') IS NOT NULL AS published;
SELECT dispatch.flush('10 s', 'default'), dispatch.flush('10 s', 'own');
SELECT event_type, backend, status FROM dispatch.events WHERE event_type IN ('new', 'own') ORDER BY event_type;
SELECT dispatch.adopt();

DROP FUNCTION wait_for;
DROP EXTENSION dispatch;
DROP ROLE regress_operator;
