-- What the extension consists of.  A new function, table or column must show
-- up here as a difference: each is a promise to users.
CREATE EXTENSION dispatch;
\dx dispatch

SELECT p.oid::regprocedure AS function, p.prorettype::regtype AS returns,
	p.provolatile AS volatility, p.proparallel AS parallel, p.prosecdef AS definer
FROM pg_proc AS p WHERE p.pronamespace = 'dispatch'::regnamespace
ORDER BY p.oid::regprocedure::text COLLATE "C";

SELECT c.relkind AS kind, c.relname AS name,
	(SELECT string_agg(a.attname, ' ' ORDER BY a.attnum) FROM pg_attribute AS a
	 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_class AS c
WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'c')
	AND c.relname !~ '^outbox_[1-9]'
ORDER BY c.relkind, c.relname COLLATE "C";

-- Arguments are named in calls, and left out: names and defaults count, too.
SELECT p.proname AS function, pg_get_function_arguments(p.oid) AS arguments
FROM pg_proc AS p WHERE p.pronamespace = 'dispatch'::regnamespace AND p.pronargs > 0
ORDER BY p.proname COLLATE "C";

-- Everything is in the schema of the extension, and belongs to it: the schema
-- goes with it, and nothing in it is the user's.
SELECT pg_describe_object(d.classid, d.objid, 0) AS elsewhere
FROM pg_depend AS d, pg_identify_object(d.classid, d.objid, 0) AS i
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'dispatch')
	AND i.identity !~ '^dispatch(\.|$)' AND i.identity !~ ' on dispatch\.';
SELECT c.relname AS not_a_member
FROM pg_class AS c
WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind NOT IN ('i', 'I', 'c') AND NOT EXISTS (
	SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass
		AND d.objid = c.oid AND d.deptype = 'e');

-- Everything has a comment.
SELECT pg_describe_object(d.classid, d.objid, 0) AS without_comment
FROM pg_depend AS d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'dispatch')
	AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass, 'pg_namespace'::regclass)
	AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (
		SELECT FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
		WHERE t.oid = d.objid AND (t.typelem <> 0 OR c.relkind <> 'c')))
	AND obj_description(d.objid, d.classid::regclass::text) IS NULL
ORDER BY 1;

-- Every table that is updated has a primary key, or a publication FOR ALL
-- TABLES would make its updates fail.
SELECT c.relname AS without_primary_key
FROM pg_class AS c
WHERE c.relnamespace = 'dispatch'::regnamespace AND c.relkind = 'r' AND c.relname !~ '^outbox_'
	AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary);

-- What a dump takes along.  Secrets never are.
SELECT c.relname AS dumped, extcondition[n] AS condition
FROM pg_extension AS e, generate_subscripts(e.extconfig, 1) AS n, pg_class AS c
WHERE e.extname = 'dispatch' AND c.oid = e.extconfig[n]
ORDER BY c.relname COLLATE "C";

-- Settings, and their defaults.
SELECT name, setting, unit, context, vartype, min_val, max_val, enumvals
FROM pg_settings WHERE name LIKE 'dispatch.%' ORDER BY name COLLATE "C";
SET dispatch.batch_size = 1;
SET dispatch.bach_size = 1;

-- It goes without a trace, with backends and events in it, and comes again.
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.publish('t', 's') IS NOT NULL AS published;
SELECT dispatch.flush();
DROP EXTENSION dispatch;
SELECT count(*) FROM pg_namespace WHERE nspname = 'dispatch';
CREATE EXTENSION dispatch;
SELECT count(*) FROM dispatch.backends;
SELECT dispatch.create_backend('default', 'notify');
SELECT dispatch.publish('t', 's') IS NOT NULL AS published;
SELECT dispatch.flush();
SELECT name, state, pending, published FROM dispatch.backend_status;
DROP EXTENSION dispatch;

-- The schema is its own: one that is there already is not taken over, and it
-- cannot be put into another or moved.
CREATE SCHEMA dispatch;
CREATE EXTENSION dispatch;
DROP SCHEMA dispatch;
CREATE EXTENSION dispatch SCHEMA public;
CREATE EXTENSION dispatch;
ALTER EXTENSION dispatch SET SCHEMA public;
DROP SCHEMA dispatch CASCADE;
DROP EXTENSION dispatch;

-- Only a superuser may create it.
CREATE ROLE regress_ordinary;
SELECT current_database() AS this \gset
GRANT CREATE ON DATABASE :"this" TO regress_ordinary;
SET ROLE regress_ordinary;
CREATE EXTENSION dispatch;
RESET ROLE;
REVOKE CREATE ON DATABASE :"this" FROM regress_ordinary;
DROP ROLE regress_ordinary;
