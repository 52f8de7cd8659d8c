-- Secrets: options such as a password are kept where only the owner of the
-- extension can read them, and show as ******** everywhere else.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set wait_for :directory '/sql/include/wait_for.sql'
\set ECHO none
\i :wait_for
\set ECHO all
CREATE ROLE regress_operator;
SELECT dispatch.grant_operate('regress_operator');
CREATE VIEW secrets AS
	SELECT b.name, b.options AS shown, s.options AS secret
	FROM dispatch.backends AS b LEFT JOIN dispatch.backend_secrets AS s ON s.backend_id = b.id
	WHERE NOT b.dropping ORDER BY b.name;

-- Nothing listens there; and it is paused.
BEGIN;
SELECT dispatch.create_backend('a', 'redis', '{"host": "127.0.0.1", "port": 1, "password": "swordfish"}');
SELECT dispatch.pause_backend('a');
COMMIT;
TABLE secrets;

-- They stay when something else changes, and when the mask comes back.
SELECT dispatch.alter_backend('a', '{"port": 2}');
UPDATE dispatch.backends SET options = options || '{"port": 3}' WHERE name = 'a';
SELECT dispatch.alter_backend('a', '{"password": "********"}');
SELECT dispatch.alter_backend('a', '{"username": "u"}');
UPDATE dispatch.backends SET name = 'b' WHERE name = 'a';
TABLE secrets;

-- They change, and they go.
SELECT dispatch.alter_backend('b', '{"password": "marlin"}');
TABLE secrets;
SELECT dispatch.alter_backend('b', '{"password": null}');
SELECT shown, coalesce(secret, '{}') AS secret FROM secrets;
-- The mask of a secret that is not there is not a secret.
SELECT dispatch.alter_backend('b', '{"password": "********"}');
SELECT dispatch.create_backend('c', 'redis', '{"password": "********"}');

-- A change that is rolled back, or refused, leaves the old one.
SELECT dispatch.alter_backend('b', '{"password": "trout"}');
BEGIN;
SELECT dispatch.alter_backend('b', '{"password": "salmon"}');
ROLLBACK;
SELECT dispatch.alter_backend('b', '{"password": "salmon", "port": 0}');
TABLE secrets;

-- No error repeats them, wrong as they may be.
SELECT dispatch.alter_backend('b', '{"password": 12345}');
SELECT dispatch.alter_backend('b', '{"password": ["hunter2"]}');
SELECT dispatch.alter_backend('b', '{"password": {"x": "hunter2"}}');
SELECT dispatch.alter_backend('b', '{"pasword": "hunter2"}');
SELECT dispatch.create_backend('c', 'redis', '{"password": "hunter2", "tls": true}');

-- It does not come with an event: that would be stored with it.
SELECT dispatch.publish('t', 's', backend => 'b', options => '{"password": "x"}');

-- Two backends do not share them.
BEGIN;
SELECT dispatch.create_backend('d', 'redis', '{"port": 1, "password": "perch"}');
SELECT dispatch.pause_backend('d');
COMMIT;
TABLE secrets;

-- Who configures backends may set them, and keep them, but not read them.
SET ROLE regress_operator;
SELECT * FROM dispatch.backend_secrets;
SELECT options FROM dispatch.backends WHERE name = 'b';
BEGIN;
SELECT dispatch.create_backend('mine', 'redis', '{"port": 1, "password": "eel"}');
SELECT dispatch.pause_backend('mine');
SELECT dispatch.alter_backend('mine', '{"port": 2}');
COMMIT;
SELECT options FROM dispatch.backends WHERE name = 'mine';
INSERT INTO dispatch.backend_secrets VALUES (1, '{}');
DELETE FROM dispatch.backend_secrets;
-- Nor may they send them to a broker of their own: the backend of somebody else
-- is not theirs to change, nor to take.  (The message has the superuser's name.)
\set VERBOSITY sqlstate
SELECT dispatch.alter_backend('b', '{"host": "127.0.0.2"}');
UPDATE dispatch.backends SET owner = 'regress_operator' WHERE name = 'b';
UPDATE dispatch.backends SET owner = 'regress_operator', options = options || '{"host": "127.0.0.2"}'
WHERE name = 'b';
\set VERBOSITY default
RESET ROLE;
SELECT name, options ->> 'host' AS host, owner = current_user AS mine FROM dispatch.backends WHERE name = 'b';
SELECT secret FROM secrets WHERE name = 'mine';

-- They go with the backend.
SELECT dispatch.drop_backend('b'), dispatch.drop_backend('d'), dispatch.drop_backend('mine');
SELECT wait_for('NOT EXISTS (SELECT FROM dispatch.backends)');
SELECT count(*) FROM dispatch.backend_secrets;

DROP VIEW secrets;
DROP FUNCTION wait_for;
SELECT dispatch.revoke_operate('regress_operator');
DROP EXTENSION dispatch;
DROP ROLE regress_operator;
