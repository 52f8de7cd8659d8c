-- Rights: nothing is anybody's by itself; publishers can publish, monitors see
-- how backends fare, operators configure them; none sees a secret.
\set SHOW_CONTEXT never
CREATE EXTENSION dispatch;
CREATE ROLE regress_publisher;
CREATE ROLE regress_monitor;
CREATE ROLE regress_operator;
CREATE ROLE "regress odd ""name""";
CREATE ROLE regress_nobody;

-- No right is granted to PUBLIC, neither by us nor by default.
SELECT objoid, what, acl FROM (
	SELECT p.oid::regprocedure::text, 'function', coalesce(p.proacl, acldefault('f', p.proowner))
	FROM pg_proc AS p WHERE p.pronamespace = 'dispatch'::regnamespace
	UNION ALL
	SELECT c.oid::regclass::text, 'relation', coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
	FROM pg_class AS c WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
	UNION ALL
	SELECT t.oid::regtype::text, 'type', coalesce(t.typacl, acldefault('T', t.typowner))
	FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
	WHERE t.typnamespace = 'dispatch'::regnamespace AND t.typelem = 0
		AND (c.relkind = 'c' OR c.oid IS NULL)
	UNION ALL
	SELECT n.nspname::text, 'schema', n.nspacl FROM pg_namespace AS n WHERE n.nspname = 'dispatch'
) AS o (objoid, what, acl)
WHERE EXISTS (SELECT FROM aclexplode(acl) AS a WHERE a.grantee = 0);
-- What each of them may do.
CREATE VIEW rights AS
SELECT role, kind, object FROM (
	VALUES ('regress_publisher'), ('regress_monitor'), ('regress_operator'), ('regress_nobody')) AS r (role),
	LATERAL (
		SELECT 'execute', p.proname::text || CASE WHEN p.prosecdef THEN ' (definer)' ELSE '' END
		FROM pg_proc AS p
		WHERE p.pronamespace = 'dispatch'::regnamespace AND has_function_privilege(role, p.oid, 'EXECUTE')
			AND (p.prorettype <> 'trigger'::regtype OR p.proname LIKE 'publish%')
		UNION ALL
		SELECT lower(priv), c.relname
		FROM pg_class AS c, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS priv
		WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind IN ('r', 'p', 'v')
			AND has_table_privilege(role, c.oid, priv)
		UNION ALL
		SELECT lower(priv) || ' of ' || c.relname, a.attname
		FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0, unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS priv
		WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind IN ('r', 'p', 'v')
			AND has_column_privilege(role, c.oid, a.attnum, priv) AND NOT has_table_privilege(role, c.oid, priv)
		UNION ALL
		SELECT 'sequence', c.relname FROM pg_class AS c
		WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind = 'S'
			AND has_sequence_privilege(role, c.oid, 'USAGE, SELECT, UPDATE')
		UNION ALL
		SELECT 'usage', 'schema' WHERE has_schema_privilege(role, 'dispatch', 'USAGE')
		UNION ALL
		SELECT 'create', 'schema' WHERE has_schema_privilege(role, 'dispatch', 'CREATE')
		UNION ALL
		SELECT 'usage', t.typname FROM pg_type AS t JOIN pg_class AS c ON c.oid = t.typrelid
		WHERE t.typnamespace = 'dispatch'::regnamespace AND c.relkind = 'c' AND has_type_privilege(role, t.oid, 'USAGE')
	) AS g (kind, object);
TABLE rights;
SELECT dispatch.grant_publish('regress_publisher'), dispatch.grant_monitor('regress_monitor'), dispatch.grant_operate('regress_operator');
SELECT dispatch.grant_publish('regress_publisher');
SELECT role, kind, string_agg(object, ' ' ORDER BY object COLLATE "C") AS objects
FROM rights GROUP BY role, kind ORDER BY role, kind;
-- What is the owner's alone: with the list above, every object there is.
SELECT kind, object FROM (
	SELECT 'function', p.oid::regprocedure::text FROM pg_proc AS p
	WHERE p.pronamespace = 'dispatch'::regnamespace AND NOT EXISTS (
		SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner)
	UNION ALL
	SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'relation' END, c.oid::regclass::text
	FROM pg_class AS c
	WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind NOT IN ('i', 'I', 'c', 't')
		AND NOT EXISTS (SELECT FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner)
		AND NOT EXISTS (
			SELECT FROM pg_attribute AS t, aclexplode(t.attacl) AS a
			WHERE t.attrelid = c.oid AND a.grantee <> c.relowner)
	UNION ALL
	SELECT 'type', t.oid::regtype::text
	FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
	WHERE t.typnamespace = 'dispatch'::regnamespace AND t.typelem = 0
		AND (c.relkind = 'c' OR c.oid IS NULL) AND NOT EXISTS (
			SELECT FROM aclexplode(t.typacl) AS a WHERE a.grantee <> t.typowner)
) AS o (kind, object) ORDER BY kind, object COLLATE "C";
SELECT dispatch.grant_publish('regress odd "name"'), dispatch.revoke_publish('regress odd "name"');
SELECT dispatch.grant_publish('regress_missing');

BEGIN;
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.pause_backend('default');
COMMIT;

-- A publisher can publish, and read nothing.
SET ROLE regress_publisher;
SELECT dispatch.publish('t', 's', '{"x": 1}', key => 'k') IS NOT NULL AS published;
SELECT dispatch.publish('t', 's', scheduled_at => '2999-01-01') IS NOT NULL AS published;
SELECT dispatch.publish('t', 's', backend => 'nowhere');
SELECT * FROM dispatch.events;
SELECT * FROM dispatch.outbox;
SELECT * FROM dispatch.scheduled;
SELECT * FROM dispatch.backends;
SELECT * FROM dispatch.backend_status;
INSERT INTO dispatch.outbox_0 SELECT;
SELECT nextval('dispatch.outbox_id_seq');
SELECT dispatch.create_backend('x', 'notify');
SELECT dispatch.pause_backend('default');
SELECT dispatch.drop_backend('default', true);
SELECT dispatch.flush();
SELECT * FROM dispatch.check_backend('default');
SELECT dispatch.grant_operate('regress_publisher');

-- Nobody cannot even look.
SET ROLE regress_nobody;
SELECT dispatch.publish('t', 's');
SELECT * FROM dispatch.backend_status;

-- A monitor sees how backends fare, and no event.
SET ROLE regress_monitor;
SELECT name, state, pending FROM dispatch.backend_status;
SELECT count(*) > 2 AS options FROM dispatch.transport_options();
SELECT * FROM dispatch.events;
SELECT * FROM dispatch.backends;
SELECT dispatch.publish('t', 's');
SELECT dispatch.pause_backend('default');

-- An operator sees events, and configures backends.
SET ROLE regress_operator;
SELECT event_type, data, status FROM dispatch.events ORDER BY created_at;
SELECT name, state, pending FROM dispatch.backend_status;
SELECT dispatch.create_backend('own', 'notify');
SELECT dispatch.alter_backend('own', '{"channel": "x"}');
SELECT dispatch.pause_backend('own');
SELECT dispatch.resume_backend('own');
SELECT ok, detail FROM dispatch.check_backend('own');
SELECT dispatch.drop_backend('own');
INSERT INTO dispatch.backends (name, transport, enabled) VALUES ('by hand', 'notify', false);
DELETE FROM dispatch.backends WHERE name = 'by hand';
-- Also those of others: it is he who is called at night.
SELECT dispatch.resume_backend('default');
SELECT dispatch.flush('5 s');
SELECT dispatch.pause_backend('default');
-- Not everything, though.
SELECT dispatch.publish('t', 's');
SELECT * FROM dispatch.backend_secrets;
SELECT data FROM dispatch.outbox;
DELETE FROM dispatch.outbox;
DELETE FROM dispatch.positions;
DELETE FROM dispatch.scheduled;
TRUNCATE dispatch.backends;
ALTER TABLE dispatch.backends DISABLE TRIGGER ALL;
SELECT dispatch.grant_publish('regress_operator');
RESET ROLE;

-- All of it can be taken back, and then a role can go.
SELECT dispatch.revoke_publish('regress_publisher'), dispatch.revoke_monitor('regress_monitor'), dispatch.revoke_operate('regress_operator');
TABLE rights;
SET ROLE regress_publisher;
SELECT dispatch.publish('t', 's');
RESET ROLE;
DROP VIEW rights;
DROP ROLE regress_publisher, regress_monitor, regress_operator, regress_nobody, "regress odd ""name""";
DROP EXTENSION dispatch;
SET client_min_messages = error;
DROP ROLE IF EXISTS regress_publisher, regress_monitor, regress_operator, regress_nobody, "regress odd ""name""";
