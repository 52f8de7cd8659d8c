-- Event types: what is checked when one is defined, and what it does to the
-- events that are published.
CREATE EXTENSION dispatch;
\getenv directory PG_ABS_SRCDIR
\set recorder :directory '/sql/include/recorder.sql'
\set remove_recorder :directory '/sql/include/remove_recorder.sql'
\set ECHO none
\i :recorder
\set ECHO all
\set VERBOSITY default

-- The newest event, as it is stored.
CREATE VIEW newest AS
SELECT event_type, backend, key, options FROM dispatch.events ORDER BY event_id DESC LIMIT 1;

--
-- Definition
--

-- The default backend need not be there yet; then only its options cannot be
-- checked.
SELECT dispatch.define_event_type('early', topic => 'orders', options => '{"chanel": "x"}');
SELECT dispatch.publish('early', 's');
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.create_backend('audit', 'notify', '{"channel": "audit"}');
UPDATE dispatch.backends SET enabled = false WHERE transport = 'notify';
SELECT dispatch.publish('early', 's');
SELECT dispatch.drop_event_type('early');

SELECT dispatch.define_event_type('order.created', 'audit', 'orders.{data.country}', 'user.id',
	'{"envelope": "data"}');
SELECT event_type, backend, topic, partition_by, options FROM dispatch.event_types;
-- Defined anew, as a whole.
SELECT dispatch.define_event_type('order.created', topic => 'orders');
SELECT event_type, backend, topic, partition_by, options FROM dispatch.event_types;

-- Each argument is checked.
SELECT dispatch.define_event_type(NULL);
SELECT dispatch.define_event_type('');
SELECT dispatch.define_event_type(repeat('x', 256));
SELECT dispatch.define_event_type('t', backend => 'nowhere');
SELECT dispatch.define_event_type('t', topic => '');
SELECT dispatch.define_event_type('t', topic => 'orders.{data.country');
SELECT dispatch.define_event_type('t', topic => 'orders.{nothing}');
SELECT dispatch.define_event_type('t', topic => 'x', options => '{"channel": "y"}');
SELECT dispatch.define_event_type('t', backend => 'recorder', topic => 'x');
SELECT dispatch.define_event_type('t', partition_by => '');
SELECT dispatch.define_event_type('t', partition_by => '.');
SELECT dispatch.define_event_type('t', partition_by => '.user');
SELECT dispatch.define_event_type('t', partition_by => 'user.');
SELECT dispatch.define_event_type('t', partition_by => 'user..id');
SELECT dispatch.define_event_type('t', options => '[]');
SELECT dispatch.define_event_type('t', options => 'null');
SELECT dispatch.define_event_type('t', options => '{"chanel": "x"}');
SELECT dispatch.define_event_type('t', options => '{"envelope": "xml"}');
SELECT dispatch.define_event_type('t', backend => 'recorder', options => '{"channel": "x"}');
SELECT dispatch.define_event_type('t', options => '{"extensions": {"Tenant": "x"}}');
-- What is wrong without a backend to check it with is wrong all the same.
BEGIN;
SELECT dispatch.drop_backend('default');
SAVEPOINT s;
SELECT dispatch.define_event_type('t', options => '[]');
ROLLBACK TO s;
SELECT dispatch.define_event_type('t', topic => '{');
ROLLBACK;

-- The table is configuration: the same checks hold for whoever writes it.
INSERT INTO dispatch.event_types (event_type, backend) VALUES ('t', 'nowhere');
INSERT INTO dispatch.event_types (event_type) VALUES (NULL);
UPDATE dispatch.event_types SET partition_by = 'user.';
UPDATE dispatch.event_types SET event_type = '';
UPDATE dispatch.event_types SET topic = '{';
INSERT INTO dispatch.event_types (event_type, topic) VALUES ('order.created', 'again');
INSERT INTO dispatch.event_types (event_type, topic) VALUES ('by.insert', 'x')
RETURNING identity = dispatch.identity() AS is_ours;
UPDATE dispatch.event_types SET topic = 'y' WHERE event_type = 'by.insert';
SELECT dispatch.publish('by.insert', 's') IS NOT NULL AS published;
TABLE newest;
DELETE FROM dispatch.event_types WHERE event_type = 'by.insert';
SELECT dispatch.publish('by.insert', 's') IS NOT NULL AS published;
TABLE newest;

-- A row of a dump is taken as it is, for its backend may come after it; once
-- somebody edits it, it is checked.
INSERT INTO dispatch.event_types (event_type, backend, identity) VALUES ('restored', 'later', '1/1');
UPDATE dispatch.event_types SET topic = 'x' WHERE event_type = 'restored';
SELECT dispatch.publish('restored', 's');
SELECT dispatch.drop_event_type('restored');

SELECT dispatch.drop_event_type('nowhere');
SELECT dispatch.drop_event_type(NULL);
SELECT dispatch.drop_event_type('order.created');
SELECT dispatch.drop_event_type('order.created');

--
-- Precedence: publish() over event type over backend
--
SELECT dispatch.define_event_type('typed', 'audit', 'orders.{data.country}', 'user.id',
	'{"envelope": "data", "extensions": {"tenant": "a"}}');
SELECT dispatch.publish('typed', 's', '{"country": "se", "user": {"id": "u1"}}') IS NOT NULL AS published;
TABLE newest;
SELECT dispatch.publish('typed', 's', '{"country": "se", "user": {"id": "u1"}}',
	backend => 'default', key => 'k', options => '{"channel": "own", "envelope": "dispytch"}')
	IS NOT NULL AS published;
TABLE newest;
-- Option by option: one of publish()'s replaces the type's as a whole.
SELECT dispatch.publish('typed', 's', '{"country": "se", "user": {"id": "u1"}}',
	options => '{"extensions": {"region": "eu"}}') IS NOT NULL AS published;
TABLE newest;
-- One that is null is as if it were not there.
SELECT dispatch.publish('typed', 's', '{"country": "se", "user": {"id": "u1"}}',
	options => '{"channel": null}') IS NOT NULL AS published;
TABLE newest;
-- A key of the caller's own: the path need not lead anywhere.
SELECT dispatch.publish('typed', 's', '{"country": "se"}', key => 'k') IS NOT NULL AS published;
TABLE newest;
-- The topic is a template like any other.
SELECT dispatch.publish('typed', 's', '{"user": {"id": "u1"}}');
-- What does not fit the backend of publish() is an error, not left out.
SELECT dispatch.publish('typed', 's', '{"country": "se", "user": {"id": "u1"}}', backend => 'recorder');
SELECT dispatch.publish('typed', 's', '{"country": "se"}', key => 'k', options => '[]');
-- Other types are as ever, of any length; and so is a name that is like it.
SELECT dispatch.publish(t, 's') IS NOT NULL AS published
FROM unnest(ARRAY['Typed', 'typed ', repeat('x', 255), repeat('x', 256), repeat('x', 1000)]) AS t;
TABLE newest \gset n_
SELECT length(:'n_event_type'), :'n_backend' AS backend;

-- What was published does not change when its type does.
SELECT dispatch.define_event_type('typed');
SELECT DISTINCT options FROM dispatch.events WHERE event_type = 'typed' ORDER BY options;
-- A backend that is gone.
SELECT dispatch.create_backend('gone', 'notify');
SELECT dispatch.define_event_type('typed', 'gone');
SELECT dispatch.drop_backend('gone');
SELECT dispatch.publish('typed', 's');
SELECT dispatch.publish('typed', 's', backend => 'audit') IS NOT NULL AS published;
SELECT dispatch.drop_event_type('typed');

--
-- partition_by
--
CREATE FUNCTION key_of(path text, data jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	problem text;
	published uuid;
BEGIN
	PERFORM dispatch.define_event_type('keyed', partition_by => path);
	published := dispatch.publish('keyed', 's', data);
	RETURN (SELECT format('key %s', key) FROM dispatch.outbox WHERE event_id = published);
EXCEPTION WHEN invalid_parameter_value THEN
	GET STACKED DIAGNOSTICS problem = PG_EXCEPTION_DETAIL;
	RETURN format('%s (%s)', sqlerrm, problem);
END $$;
-- A field of the data itself, and one of an object in it.
SELECT path, data, key_of(path, data) FROM (VALUES
	('id', '{"id": "a"}'::jsonb),
	('user.id', '{"user": {"id": "user123"}}'),
	('a.b.c.d', '{"a": {"b": {"c": {"d": "deep"}}}}'),
	-- scalars, as text
	('id', '{"id": 42}'),
	('id', '{"id": -1.50}'),
	('id', '{"id": 1e3}'),
	('id', '{"id": 12345678901234567890123}'),
	('id', '{"id": true}'),
	('id', '{"id": false}'),
	('id', '{"id": "with \"quotes\" and å"}'),
	('id', '{"id": 0}'),
	-- missing, at any level
	('id', '{}'),
	('id', '{"Id": "a"}'),
	('user.id', '{}'),
	('user.id', '{"user": {}}'),
	('a.b.c', '{"a": {}}'),
	-- no scalar, or null
	('id', '{"id": null}'),
	('id', '{"id": {"x": 1}}'),
	('id', '{"id": {}}'),
	('id', '{"id": ["a"]}'),
	('id', '{"id": ""}'),
	-- through anything but an object
	('user.id', '{"user": "x"}'),
	('user.id', '{"user": 5}'),
	('user.id', '{"user": true}'),
	('user.id', '{"user": null}'),
	('user.id', '{"user": [{"id": "a"}]}'),
	('user.0', '{"user": ["a"]}'),
	('id', '["id"]'),
	('id', '"id"'),
	('id', 'null'),
	('id', NULL),
	-- a dot in a key cannot be written, and the envelope is no data
	('user.id', '{"user.id": "a"}'),
	('body.user.id', '{"user": {"id": "a"}}'),
	-- malformed
	('user.', '{"user": {"": "a"}}'),
	('.user', '{"": {"user": "a"}}'),
	('user..id', '{"user": {"": {"id": "a"}}}'),
	('', '{"": "a"}')) AS v (path, data);

--
-- A change is seen at once, also a session's own before it commits
--
SELECT dispatch.drop_event_type('keyed');
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
BEGIN;
SELECT dispatch.define_event_type('late', topic => 'first');
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
TABLE newest;
SAVEPOINT s;
SELECT dispatch.define_event_type('late', topic => 'second');
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
TABLE newest;
ROLLBACK TO s;
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
TABLE newest;
ROLLBACK;
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
TABLE newest;
-- In one transaction and one statement of PL/pgSQL.
DO $$
BEGIN
	PERFORM dispatch.publish('late', 's');
	PERFORM dispatch.define_event_type('late', topic => 'third');
	PERFORM dispatch.publish('late', 's');
END $$;
TABLE newest;
SELECT dispatch.drop_event_type('late');

-- Another session's, also by a transaction whose snapshot is older.
CREATE EXTENSION dblink;
SELECT dblink_connect('other', format('host=%s port=%s dbname=%s',
	split_part(current_setting('unix_socket_directories'), ',', 1),
	current_setting('port'), current_database()));
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
SELECT dblink_exec('other', $$SET client_min_messages = warning$$);
SELECT * FROM dblink('other', $$SELECT dispatch.define_event_type('late', topic => 'other')::text$$) AS t (x text);
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
TABLE newest;
SELECT * FROM dblink('other', $$SELECT dispatch.drop_event_type('late')::text$$) AS t (x text);
SELECT dispatch.publish('late', 's') IS NOT NULL AS published;
TABLE newest;
COMMIT;
SELECT dblink_disconnect('other');
DROP EXTENSION dblink;

-- A publisher that makes up a type for each event.
SELECT count(dispatch.publish('made.up.' || n, 's')) FROM generate_series(1, 3000) AS n;

--
-- On the wire
--
SELECT dispatch.define_event_type('wired', 'recorder', partition_by => 'user.id',
	options => '{"envelope": "data"}');
SELECT dispatch.publish('wired', 's', '{"user": {"id": 7}}') IS NOT NULL AS published;
SELECT dispatch.flush('30s', 'recorder');
SELECT event_type, key, body FROM recorder.events ORDER BY n;

--
-- Rights
--
CREATE ROLE regress_operator;
CREATE ROLE regress_publisher;
SELECT dispatch.grant_operate('regress_operator'), dispatch.grant_publish('regress_publisher');
SET ROLE regress_operator;
SELECT dispatch.define_event_type('by.operator', topic => 'x');
SELECT dispatch.drop_event_type('by.operator');
SELECT count(*) FROM dispatch.event_types;
RESET ROLE;
SET ROLE regress_publisher;
SELECT dispatch.publish('wired', 's', '{"user": {"id": 7}}') IS NOT NULL AS published;
SELECT dispatch.define_event_type('by.publisher');
SELECT dispatch.drop_event_type('wired');
SELECT count(*) FROM dispatch.event_types;
RESET ROLE;
SELECT dispatch.revoke_operate('regress_operator'), dispatch.revoke_publish('regress_publisher');
SET ROLE regress_operator;
SELECT count(*) FROM dispatch.event_types;
SELECT dispatch.define_event_type('by.operator');
RESET ROLE;
SELECT c.relname FROM pg_class AS c, aclexplode(c.relacl) AS a
WHERE c.oid = 'dispatch.event_types'::regclass AND a.grantee = 0;

DROP VIEW newest;
DROP FUNCTION key_of;
DROP OWNED BY regress_operator, regress_publisher;
DROP ROLE regress_operator, regress_publisher;
\set ECHO none
\i :remove_recorder
