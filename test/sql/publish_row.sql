-- publish_row(): what happens to a row becomes an event of the transaction.
CREATE EXTENSION dispatch;
BEGIN;
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.create_backend('audit=1', 'notify');
SELECT dispatch.create_backend('audit', 'notify');
UPDATE dispatch.backends SET enabled = false;
COMMIT;

-- What was published, in that order; and then, none of it any more.
\set show 'SELECT backend, event_type, source, key, data FROM dispatch.events ORDER BY event_id;'
\set take :show ' TRUNCATE dispatch.outbox;'

--
-- Rows
--
CREATE TABLE users (id int PRIMARY KEY, email text, password text);
CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON users
	FOR EACH ROW EXECUTE FUNCTION dispatch.publish_row('user', 'user-service');
INSERT INTO users VALUES (1, 'a@example.com', 'x'), (2, NULL, NULL);
UPDATE users SET email = 'b@example.com' WHERE id = 1;
-- The key is that of the row as it is now.
UPDATE users SET id = 3 WHERE id = 1;
DELETE FROM users WHERE id = 2;
:take

-- With the statement that changed the row, or not at all.
BEGIN;
INSERT INTO users VALUES (4, 'c@example.com', 'x');
SAVEPOINT a;
UPDATE users SET email = 'undone';
ROLLBACK TO a;
COMMIT;
INSERT INTO users VALUES (5, 'd', 'x'), (4, 'twice', 'x');
INSERT INTO users VALUES (4, 'e@example.com', 'y')
	ON CONFLICT (id) DO UPDATE SET email = excluded.email;
INSERT INTO users VALUES (4, 'f', 'z') ON CONFLICT DO NOTHING;
COPY users FROM stdin;
6	copied	\N
\.
MERGE INTO users USING (VALUES (6), (7)) AS v (n) ON id = n
	WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (n);
UPDATE users SET email = 'nobody' WHERE false;
:take
DROP TABLE users;

\set each_row 'FOR EACH ROW EXECUTE FUNCTION dispatch.publish_row'

--
-- Only some changes, only some columns
--
CREATE TABLE users (id int PRIMARY KEY, email text, "Password" text, "a,b" int, old text,
	seen timestamptz);
CREATE TRIGGER publish AFTER UPDATE ON users FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*)
	EXECUTE FUNCTION dispatch.publish_row('user', 's');
CREATE TRIGGER publish_email AFTER UPDATE OF email ON users
	FOR EACH ROW WHEN (OLD.email IS DISTINCT FROM NEW.email)
	EXECUTE FUNCTION dispatch.publish_row('user.email', 's', 'audit', 'columns=email');
CREATE TRIGGER publish_some AFTER INSERT OR DELETE ON users
	:each_row('user', 's', 'exclude="Password", "a,b",SEEN');
INSERT INTO users VALUES (1, 'a', 'p', 2, 'o', '2020-01-01');
UPDATE users SET email = 'a', old = 'o';
UPDATE users SET email = 'b';
UPDATE users SET seen = NULL;
DELETE FROM users;
:take

-- Columns come in the order of the table; the key need not be among them.
DROP TRIGGER publish_some ON users;
CREATE TRIGGER publish_some AFTER INSERT ON users
	:each_row('user', 's', 'columns=old,email,old', 'backend=audit=1');
INSERT INTO users VALUES (1, 'a', 'p', 2, 'o', '2020-01-01');
:take
DROP TABLE users;

--
-- Primary keys
--
CREATE TABLE pair (b text, x int, a int, PRIMARY KEY (a, b));
CREATE TRIGGER t AFTER INSERT OR DELETE ON pair :each_row('pair', 's', 'columns=x');
INSERT INTO pair VALUES ('two', 1, 1), ('"', 1, -5), ('', 1, 1), ('1", "2', 1, 3);
DELETE FROM pair WHERE b = 'two';
:take
DROP TABLE pair;

-- None: no key, also where a column is unique; an empty one.
CREATE TABLE no_key (a int NOT NULL UNIQUE);
CREATE TRIGGER t AFTER INSERT ON no_key :each_row('no_key', 's');
INSERT INTO no_key VALUES (1);
CREATE TABLE empty_key (a text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, b int);
CREATE TRIGGER t AFTER INSERT ON empty_key :each_row('empty_key', 's', 'columns=b');
INSERT INTO empty_key VALUES ('');
CREATE TABLE covering (b int, a int, PRIMARY KEY (a) INCLUDE (b));
CREATE TRIGGER t AFTER INSERT ON covering :each_row('covering', 's');
INSERT INTO covering VALUES (1, 2);
:take
DROP TABLE no_key, empty_key, covering;

-- A key is the same text whatever the session's settings are; so is the data.
CREATE TYPE mood AS ENUM ('ok');
CREATE TABLE spelled (at timestamptz, d date, i interval, b bytea, f float8, u uuid, m mood,
	c regclass, t bool, r tstzrange, p money, PRIMARY KEY (at, d, i, b, f, u, m, c, t, r));
CREATE TRIGGER t AFTER INSERT OR DELETE ON spelled :each_row('spelled', 's');
SET TimeZone = 'UTC';
INSERT INTO spelled VALUES ('2020-01-02 03:04:05+00', '2020-01-02', '1 day 2 hours', '\x00ff',
	0.1 + 0.2::float8, '00000000-0000-0000-0000-000000000001', 'ok', 'spelled', true,
	'[2020-01-02 03:04:05+00,)', 1);
SET TimeZone = 'Asia/Tokyo';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SET bytea_output = 'escape';
SET extra_float_digits = -10;
SET search_path = public, pg_temp;
DELETE FROM spelled;
RESET ALL;
SELECT count(*), count(DISTINCT key) AS keys,
	count(DISTINCT coalesce(data -> 'new', data -> 'old')) AS rows
FROM dispatch.events;
SELECT key FROM dispatch.events LIMIT 1;
SELECT jsonb_pretty(data) FROM dispatch.events WHERE event_type = 'spelled.inserted';
TRUNCATE dispatch.outbox;
DROP TABLE spelled;

--
-- JSON of every type: what to_jsonb() makes of the row
--
CREATE TYPE point3 AS (x int, "y z" text);
CREATE DOMAIN positive AS numeric CHECK (value > 0);
CREATE TABLE every (id bigint PRIMARY KEY, n numeric, nan numeric, f float8, i float8, b bool,
	t text, v varchar(3), c char(3), nm name,
	ts timestamp, tz timestamptz, d date, tm time, iv interval,
	by bytea, u uuid, j json, jb jsonb,
	ia int[], ta text[], m int[][], r int4range, mr int4multirange, p point,
	comp point3, comps point3[], dom positive, bits bit(3), ip inet, x xml, e mood, nul text);
CREATE TRIGGER t AFTER INSERT OR UPDATE ON every :each_row('every', 's');
INSERT INTO every VALUES (9007199254740993, 12345678901234567890.12345678901234567890, 'NaN', 0.1,
	'-infinity', false, E'å☃🐘"\\\n\x01', 'abc', 'a', 'nm',
	'2020-01-02 03:04:05.678901', '2020-01-02 03:04:05.678901+02', '0044-03-15 BC', '03:04:05',
	'1 year -2 days', '\xdeadbeef', '00000000-0000-0000-0000-000000000001',
	'{"a": 1, "a": [1.50, null]}', '{"b": {"c": [1.50, null, "x"]}}',
	'{1,NULL,3}', '{"a","b c",NULL,""}', '{{1,2},{3,4}}', '[1,5)', '{[1,2),[5,)}', '(1,2)',
	'(1,"a b")', ARRAY['(1,a)', NULL, '(,)']::point3[], 1.50, '101', '10.0.0.0/8',
	NULL, 'ok', NULL);
SELECT jsonb_pretty(data -> 'new') FROM dispatch.events;
SET TimeZone = 'UTC';
SET IntervalStyle = 'postgres';
SELECT data -> 'new' = to_jsonb(every) AS is_to_jsonb FROM dispatch.events, every;
RESET TimeZone;
RESET IntervalStyle;
TRUNCATE dispatch.outbox;
-- Values that lie out of line, the unchanged ones of an update as well.
UPDATE every SET t = repeat('x', 3000000),
	ta = ARRAY(SELECT md5(n::text) FROM generate_series(1, 10000) AS n);
UPDATE every SET nul = 'changed';
SELECT event_type, length(data #>> '{new,t}') AS t, jsonb_array_length(data #> '{new,ta}') AS ta,
	data #> '{old,ta}' = data #> '{new,ta}' AS same
FROM dispatch.events ORDER BY event_id;
TRUNCATE dispatch.outbox;
DROP TABLE every;

--
-- Tables of every kind
--
-- Generated and dropped columns, columns that came later, no column at all
CREATE TABLE odd (gone1 int, old int, double int GENERATED ALWAYS AS (old * 2) STORED, gone2 text,
	"new" jsonb);
ALTER TABLE odd DROP COLUMN gone1, DROP COLUMN gone2,
	ADD COLUMN id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
INSERT INTO odd (old, "new") VALUES (1, '{"old": 1}');
ALTER TABLE odd ADD COLUMN late text DEFAULT 'default';
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON odd :each_row('odd', 's', 'exclude=new');
UPDATE odd SET old = 2;
DELETE FROM odd;
CREATE TABLE bare ();
CREATE TRIGGER t AFTER INSERT ON bare :each_row('bare', 's');
INSERT INTO bare DEFAULT VALUES;
:take
DROP TABLE odd, bare;

-- Altered between two statements of a session, and in one transaction
CREATE TABLE altered (id int, a int);
CREATE TRIGGER t AFTER INSERT ON altered :each_row('altered', 's', 'exclude=a');
PREPARE add(int) AS INSERT INTO altered (id) VALUES ($1);
EXECUTE add(1);
ALTER TABLE altered ADD COLUMN b int DEFAULT 5, ADD PRIMARY KEY (id);
EXECUTE add(2);
BEGIN;
EXECUTE add(3);
ALTER TABLE altered RENAME COLUMN b TO c;
EXECUTE add(4);
COMMIT;
ALTER TABLE altered RENAME COLUMN a TO d;
EXECUTE add(5);
:take
DROP TABLE altered;

-- Partitions: columns in another order, keys in the order of the whole;
-- a row that moves is deleted here and inserted there.
CREATE TABLE whole (a int, b text, x int, PRIMARY KEY (b, a)) PARTITION BY LIST (a);
CREATE TABLE part_1 PARTITION OF whole FOR VALUES IN (1);
CREATE TABLE part_2 (x int, gone int, b text NOT NULL, a int NOT NULL);
ALTER TABLE part_2 DROP COLUMN gone;
ALTER TABLE whole ATTACH PARTITION part_2 FOR VALUES IN (2);
CREATE TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON whole :each_row('whole', 's', 'exclude=x');
INSERT INTO whole VALUES (1, 'k', 1), (2, 'k', 1);
UPDATE whole SET b = 'm' WHERE a = 2;
UPDATE whole SET a = 2 WHERE a = 1;
INSERT INTO part_2 VALUES (1, 'direct', 2);
:take
DROP TABLE whole;

-- Deferred, temporary
CREATE TABLE later (id int PRIMARY KEY);
CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE ON later DEFERRABLE INITIALLY DEFERRED
	:each_row('later', 's');
BEGIN;
INSERT INTO later VALUES (1), (2);
UPDATE later SET id = id + 10;
SELECT count(*) AS before_commit FROM dispatch.events;
COMMIT;
CREATE TEMP TABLE temporary (id int PRIMARY KEY);
CREATE TRIGGER t AFTER INSERT ON temporary :each_row('temporary', 's');
INSERT INTO temporary VALUES (1);
:take
DROP TABLE temporary;

-- TRUNCATE
CREATE TRIGGER truncated AFTER TRUNCATE ON later
	FOR EACH STATEMENT EXECUTE FUNCTION dispatch.publish_row('later', 's', 'audit');
TRUNCATE later;
SELECT data IS NULL AS no_data FROM dispatch.events;
:take
DROP TABLE later;

--
-- Roles: who creates the trigger needs the right to publish; who writes to the
-- table needs none.
--
CREATE ROLE regress_row_owner;
CREATE ROLE regress_row_writer;
CREATE SCHEMA regress_row AUTHORIZATION regress_row_owner;
SET ROLE regress_row_owner;
CREATE TABLE regress_row.t (id int PRIMARY KEY);
CREATE TRIGGER t AFTER INSERT ON regress_row.t :each_row('t', 's');
RESET ROLE;
GRANT USAGE ON SCHEMA dispatch TO regress_row_owner;
SET ROLE regress_row_owner;
CREATE TRIGGER t AFTER INSERT ON regress_row.t :each_row('t', 's');
RESET ROLE;
SELECT dispatch.grant_publish('regress_row_owner');
SET ROLE regress_row_owner;
CREATE TRIGGER t AFTER INSERT ON regress_row.t :each_row('t', 's');
GRANT USAGE ON SCHEMA regress_row TO regress_row_writer;
GRANT INSERT ON regress_row.t TO regress_row_writer;
SET ROLE regress_row_writer;
SET search_path = '';
INSERT INTO regress_row.t VALUES (1);
SELECT dispatch.publish('t', 's');
RESET search_path;
RESET ROLE;
:take
SELECT dispatch.revoke_publish('regress_row_owner');
GRANT USAGE ON SCHEMA dispatch TO regress_row_owner;
SET ROLE regress_row_owner;
CREATE TRIGGER u AFTER INSERT ON regress_row.t :each_row('t', 's');
RESET ROLE;
REVOKE ALL ON SCHEMA dispatch FROM regress_row_owner;
DROP SCHEMA regress_row CASCADE;
DROP ROLE regress_row_owner, regress_row_writer;

--
-- Wrong use: an error of the statement that fires the trigger, and no event
--
CREATE TABLE t (id int PRIMARY KEY, a int, gone int);
ALTER TABLE t DROP COLUMN gone;
CREATE FUNCTION try(trigger text, arguments text DEFAULT $$'t', 's'$$,
	statement text DEFAULT 'INSERT INTO t VALUES (1)') RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	what text; why text; hint text;
BEGIN
	EXECUTE format('CREATE TRIGGER wrong %s EXECUTE FUNCTION dispatch.publish_row(%s)',
		trigger, arguments);
	EXECUTE statement;
	RAISE EXCEPTION 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS what = MESSAGE_TEXT, why = PG_EXCEPTION_DETAIL,
		hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', sqlstate || ' ' || what, nullif(why, ''), nullif(hint, ''));
END $$;
\pset format unaligned
\pset tuples_only on
SELECT try('BEFORE INSERT ON t FOR EACH ROW');
SELECT try('AFTER INSERT ON t');
SELECT try('BEFORE TRUNCATE ON t', statement => 'TRUNCATE t');
CREATE VIEW seen AS SELECT * FROM t;
SELECT try('INSTEAD OF INSERT ON seen FOR EACH ROW', statement => 'INSERT INTO seen VALUES (1)');
DROP VIEW seen;
SELECT a, try('AFTER INSERT ON t FOR EACH ROW', a) FROM unnest(ARRAY[
	-- name and source
	$$$$, $$'t'$$, $$'', 's'$$, $$'t', ''$$, $$NULL, 's'$$, $$'t', NULL$$,
	-- backend
	$$'t', 's', 'nowhere'$$, $$'t', 's', ''$$, $$'t', 's', NULL$$,
	$$'t', 's', 'audit', 'default'$$, $$'t', 's', 'audit', 'backend=audit'$$,
	$$'t', 's', 'columns=a', 'audit'$$,
	-- columns
	$$'t', 's', 'exlude=a'$$, $$'t', 's', 'exclude=b'$$, $$'t', 's', 'exclude=A,"A"'$$,
	$$'t', 's', 'exclude=gone'$$, $$'t', 's', 'exclude=........pg.dropped.3........'$$,
	$$'t', 's', 'exclude=ctid'$$, $$'t', 's', 'columns='$$, $$'t', 's', 'columns=a,,id'$$,
	$$'t', 's', 'columns=a b'$$, $$'t', 's', 'columns=a', 'exclude=id'$$,
	$$'t', 's', 'columns=a', 'columns=id'$$]) AS a;
-- Not a trigger at all
SELECT dispatch.publish_row();
\pset format aligned
\pset tuples_only off
SELECT count(*) FROM dispatch.events;

DROP FUNCTION try;
DROP TABLE t;
DROP TYPE point3;
DROP DOMAIN positive;
DROP TYPE mood;
DROP EXTENSION dispatch;
