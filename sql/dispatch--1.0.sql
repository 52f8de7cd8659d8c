/* dispatch--1.0.sql: install script of the dispatch extension */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION dispatch" to load this file. \quit

-- The script creates the schema itself, so that one which somebody else owns
-- is never adopted.
CREATE SCHEMA dispatch;
COMMENT ON SCHEMA dispatch IS 'transactional outbox: events go from publish() to the backends in dispatch.backends';

/*
 * Tables.  What a dump must take along is marked at the end.
 *
 * No table of a dump gets a row here: the rows of a restored database must
 * not meet rows of this script.
 */

CREATE SEQUENCE dispatch.outbox_id_seq AS bigint;
COMMENT ON SEQUENCE dispatch.outbox_id_seq IS 'position of an event in the outbox; workers rely on CACHE 1';

CREATE SEQUENCE dispatch.backend_id_seq AS integer;
COMMENT ON SEQUENCE dispatch.backend_id_seq IS 'numbers of backends; a number is never used again';

-- xid comes first and is taken before id: see src/tick.c.
CREATE TABLE dispatch.outbox (
	xid          xid8        NOT NULL,
	id           bigint      NOT NULL,
	created_at   timestamptz NOT NULL,
	event_id     uuid        NOT NULL,
	backend_id   integer     NOT NULL,
	max_retries  integer,
	segment      smallint    NOT NULL,
	event_type   text        NOT NULL,
	source       text        NOT NULL,
	subject      text,
	key          text,
	data         jsonb,
	options      jsonb,
	attributes   jsonb,
	content      bytea
) PARTITION BY LIST (segment);
DO $$
BEGIN
	FOR i IN 0..7 LOOP
		EXECUTE format('CREATE TABLE dispatch.outbox_%s PARTITION OF dispatch.outbox FOR VALUES IN (%s)', i, i);
		EXECUTE format('CREATE INDEX outbox_%s_new_idx ON dispatch.outbox_%s (backend_id, id)', i, i);
		EXECUTE format('CREATE INDEX outbox_%s_late_idx ON dispatch.outbox_%s (backend_id, xid, id)', i, i);
		EXECUTE format('COMMENT ON TABLE dispatch.outbox_%s IS %L', i, format('segment %s of the outbox', i));
	END LOOP;
END
$$;
CREATE INDEX outbox_new_idx  ON dispatch.outbox (backend_id, id);
CREATE INDEX outbox_late_idx ON dispatch.outbox (backend_id, xid, id);
COMMENT ON TABLE dispatch.outbox IS 'every published event, append-only; a ring of segments that retention empties';
COMMENT ON COLUMN dispatch.outbox.xid IS 'top-level transaction that published the event';
COMMENT ON COLUMN dispatch.outbox.id IS 'from outbox_id_seq, taken after xid';
COMMENT ON COLUMN dispatch.outbox.created_at IS 'wall clock when publish() was called';
COMMENT ON COLUMN dispatch.outbox.event_id IS 'UUIDv7; the identity of the event on the wire, for ever';
COMMENT ON COLUMN dispatch.outbox.max_retries IS 'of this event; NULL: the backend''s';
COMMENT ON COLUMN dispatch.outbox.segment IS 'the partition';
COMMENT ON COLUMN dispatch.outbox.options IS 'the event''s own, and under them those of its type when it was published';
COMMENT ON COLUMN dispatch.outbox.attributes IS 'of the CloudEvent, where it has more than its columns say; with an id: a given one';
COMMENT ON COLUMN dispatch.outbox.content IS 'binary payload, instead of data';

CREATE TABLE dispatch.backends (
	id               integer  NOT NULL PRIMARY KEY,
	name             text     NOT NULL COLLATE "C",
	transport        text     NOT NULL COLLATE "C",
	options          jsonb    NOT NULL DEFAULT '{}',
	enabled          boolean  NOT NULL DEFAULT true,
	ordering         text     NOT NULL DEFAULT 'key' CHECK (ordering IN ('key', 'strict', 'none')),
	batch_size       integer  CHECK (batch_size BETWEEN 1 AND 100000),
	sleep_time       interval CHECK (sleep_time BETWEEN '1 ms' AND '1 day'),
	max_retries      integer  CHECK (max_retries BETWEEN 0 AND 1000000),
	retry_backoff    boolean,
	retry_delay      interval CHECK (retry_delay BETWEEN '1 ms' AND '1 day'),
	retry_max_delay  interval CHECK (retry_max_delay BETWEEN '1 ms' AND '24 days'),
	owner            name     NOT NULL DEFAULT current_user,
	dropping         boolean  NOT NULL DEFAULT false,
	force_drop       boolean  NOT NULL DEFAULT false,
	event_options    jsonb    NOT NULL DEFAULT '[]',
	identity         text     NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX backends_name_idx ON dispatch.backends (name) WHERE NOT dropping;
COMMENT ON TABLE dispatch.backends IS 'destinations; INSERT, UPDATE and DELETE configure them';
COMMENT ON COLUMN dispatch.backends.transport IS 'driver: see dispatch.transport_options()';
COMMENT ON COLUMN dispatch.backends.options IS 'of the transport; secrets show as ********';
COMMENT ON COLUMN dispatch.backends.enabled IS 'false: paused, events wait';
COMMENT ON COLUMN dispatch.backends.ordering IS 'key: events of a key in order; strict: never overtaken either; none';
COMMENT ON COLUMN dispatch.backends.batch_size IS 'an eighth of the events that may be in flight; NULL: dispatch.batch_size';
COMMENT ON COLUMN dispatch.backends.sleep_time IS 'safety net between two looks; NULL: dispatch.sleep_time';
COMMENT ON COLUMN dispatch.backends.max_retries IS 'attempts after the first; NULL: dispatch.max_retries';
COMMENT ON COLUMN dispatch.backends.retry_backoff IS 'false: constant retry_delay; NULL: dispatch.retry_backoff';
COMMENT ON COLUMN dispatch.backends.retry_delay IS 'before the first retry; NULL: dispatch.retry_delay';
COMMENT ON COLUMN dispatch.backends.retry_max_delay IS 'cap of the growing delay; NULL: dispatch.retry_max_delay';
COMMENT ON COLUMN dispatch.backends.owner IS 'role that a "sql" backend''s function runs as';
COMMENT ON COLUMN dispatch.backends.dropping IS 'being dropped: takes no more events';
COMMENT ON COLUMN dispatch.backends.force_drop IS 'being dropped with its undelivered events';
COMMENT ON COLUMN dispatch.backends.event_options IS 'what publish() needs to know of the transport''s event options';
COMMENT ON COLUMN dispatch.backends.identity IS 'installation (system identifier and database) that may deliver: see adopt()';

CREATE TABLE dispatch.event_types (
	event_type    text   NOT NULL COLLATE "C" PRIMARY KEY,
	backend       text   COLLATE "C",
	topic         text,
	partition_by  text,
	options       jsonb,
	identity      text   NOT NULL DEFAULT ''
);
COMMENT ON TABLE dispatch.event_types IS 'what events of a type have in common; INSERT, UPDATE and DELETE define it';
COMMENT ON COLUMN dispatch.event_types.backend IS 'where they go; NULL: to the backend named default';
COMMENT ON COLUMN dispatch.event_types.topic IS 'template of the destination: stream, topic, routing key or channel';
COMMENT ON COLUMN dispatch.event_types.partition_by IS 'dot path into data, to the field that is the key';
COMMENT ON COLUMN dispatch.event_types.options IS 'of the transport, for these events; those that publish() is given come first';
COMMENT ON COLUMN dispatch.event_types.identity IS 'installation that the row was checked in; a dump keeps it';

CREATE TABLE dispatch.backend_secrets (
	backend_id  integer NOT NULL PRIMARY KEY,
	options     jsonb   NOT NULL
);
COMMENT ON TABLE dispatch.backend_secrets IS 'secret options of backends; never in a dump';

-- One row a backend, moved at most every 100 ms; see src/position.c.
CREATE TABLE dispatch.positions (
	backend_id   integer     NOT NULL PRIMARY KEY,
	before_snapshot pg_snapshot NOT NULL,
	before_id    bigint      NOT NULL,
	before_xid   xid8        NOT NULL,
	upto_snapshot pg_snapshot NOT NULL,
	upto_id      bigint      NOT NULL,
	upto_xid     xid8        NOT NULL,
	settled_id   bigint      NOT NULL,
	published    bigint      NOT NULL,
	retried      bigint      NOT NULL,
	last_published_at timestamptz,
	running      boolean     NOT NULL,
	unclean_ends integer     NOT NULL,
	suspect      uuid,
	dropped      boolean     NOT NULL DEFAULT false
) WITH (fillfactor = 50);
COMMENT ON TABLE dispatch.positions IS 'how far each backend is settled; no row: nothing is';
COMMENT ON COLUMN dispatch.positions.before_snapshot IS 'all events of transactions that it sees are settled';
COMMENT ON COLUMN dispatch.positions.upto_snapshot IS 'of those that it sees besides, the events up to settled_id are settled';
COMMENT ON COLUMN dispatch.positions.published IS 'events delivered so far';
COMMENT ON COLUMN dispatch.positions.running IS 'a worker runs, or has ended without a word';
COMMENT ON COLUMN dispatch.positions.unclean_ends IS 'workers in a row that ended without a word at this position';
COMMENT ON COLUMN dispatch.positions.suspect IS 'after two of them: the event that is being sent';
COMMENT ON COLUMN dispatch.positions.dropped IS 'the backend was dropped: what it has not delivered was given up';

CREATE TABLE dispatch.scheduled (
	event_id     uuid        NOT NULL PRIMARY KEY,
	scheduled_at timestamptz NOT NULL,
	created_at   timestamptz NOT NULL,
	backend_id   integer     NOT NULL,
	max_retries  integer,
	event_type   text        NOT NULL,
	source       text        NOT NULL,
	subject      text,
	key          text,
	data         jsonb,
	options      jsonb,
	attributes   jsonb,
	content      bytea
);
CREATE INDEX scheduled_due_idx ON dispatch.scheduled (backend_id, scheduled_at, event_id);
COMMENT ON TABLE dispatch.scheduled IS 'events that are not due yet; they move to the outbox when they are';

-- A whole copy of an event, and what has become of it.
CREATE TABLE dispatch.exceptions (
	LIKE dispatch.outbox,
	status          text        NOT NULL
		CHECK (status IN ('retrying', 'parked', 'failed', 'discarded', 'expired')),
	attempts        integer     NOT NULL,
	next_attempt_at timestamptz,
	first_error     text,
	last_error      text,
	first_failed_at timestamptz,
	last_failed_at  timestamptz,
	PRIMARY KEY (event_id)
);
CREATE INDEX exceptions_open_idx ON dispatch.exceptions (backend_id, id)
	WHERE status IN ('retrying', 'parked');
CREATE INDEX exceptions_failed_idx ON dispatch.exceptions (backend_id, last_failed_at)
	WHERE status = 'failed';
COMMENT ON TABLE dispatch.exceptions IS 'events that need another attempt, and dead letters';
COMMENT ON COLUMN dispatch.exceptions.status IS 'retrying; parked: waits behind one of its key; failed: dead letter; discarded, expired: given up';
COMMENT ON COLUMN dispatch.exceptions.attempts IS 'attempts that failed';

CREATE TABLE dispatch.segments (
	segment      smallint    NOT NULL PRIMARY KEY,
	opened_at    timestamptz NOT NULL,
	closed_at    timestamptz,
	blocked_by   text
);
COMMENT ON TABLE dispatch.segments IS 'segments of the outbox that are in use; of this installation, not in a dump';
COMMENT ON COLUMN dispatch.segments.closed_at IS 'since when nothing is appended to it; NULL: it is the current one';
COMMENT ON COLUMN dispatch.segments.blocked_by IS 'why it is not emptied yet, although its time has come';

/*
 * Publish
 */

CREATE FUNCTION dispatch.publish(
	event_type   text,
	source       text,
	data         jsonb       DEFAULT NULL,
	backend      text        DEFAULT NULL,
	key          text        DEFAULT NULL,
	subject      text        DEFAULT NULL,
	options      jsonb       DEFAULT NULL,
	scheduled_at timestamptz DEFAULT NULL,
	max_retries  integer     DEFAULT NULL)
RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dispatch_publish';
COMMENT ON FUNCTION dispatch.publish IS 'publishes an event with the current transaction, and returns its id';

CREATE FUNCTION dispatch.publish_binary(
	event_type   text,
	source       text,
	content      bytea,
	content_type text,
	backend      text        DEFAULT NULL,
	key          text        DEFAULT NULL,
	subject      text        DEFAULT NULL,
	options      jsonb       DEFAULT NULL,
	scheduled_at timestamptz DEFAULT NULL,
	max_retries  integer     DEFAULT NULL)
RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dispatch_publish_binary';
COMMENT ON FUNCTION dispatch.publish_binary IS 'publishes an event whose data is binary, such as Avro or Protobuf';

CREATE FUNCTION dispatch.publish_cloudevent(
	event        jsonb,
	backend      text        DEFAULT NULL,
	key          text        DEFAULT NULL,
	options      jsonb       DEFAULT NULL,
	scheduled_at timestamptz DEFAULT NULL,
	max_retries  integer     DEFAULT NULL)
RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dispatch_publish_cloudevent';
COMMENT ON FUNCTION dispatch.publish_cloudevent IS 'publishes a CloudEvent with its own id, time and attributes';

-- The settings are those that decide how a value is spelled: an event, and
-- above all its key, must not depend on the session that writes the row.
CREATE FUNCTION dispatch.publish_row() RETURNS trigger
LANGUAGE C
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
SET DateStyle = 'ISO'
SET IntervalStyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = 1
SET lc_monetary = 'C'
AS 'MODULE_PATHNAME', 'dispatch_publish_row';
COMMENT ON FUNCTION dispatch.publish_row IS 'trigger function that publishes the changes of rows';

/*
 * Backends
 */

CREATE FUNCTION dispatch.check_backend_row() RETURNS trigger
LANGUAGE C
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dispatch_check_backend_row';
COMMENT ON FUNCTION dispatch.check_backend_row IS 'checks and completes rows of dispatch.backends';

CREATE FUNCTION dispatch.announce_change() RETURNS trigger
LANGUAGE C
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dispatch_announce_change';
COMMENT ON FUNCTION dispatch.announce_change IS 'tells sessions and workers that the configuration has changed';

CREATE TRIGGER check_backend_row
	BEFORE INSERT OR UPDATE OR DELETE ON dispatch.backends
	FOR EACH ROW EXECUTE FUNCTION dispatch.check_backend_row();
CREATE TRIGGER refuse_truncate
	BEFORE TRUNCATE ON dispatch.backends
	FOR EACH STATEMENT EXECUTE FUNCTION dispatch.check_backend_row();
CREATE TRIGGER announce_change
	AFTER INSERT OR UPDATE OR DELETE ON dispatch.backends
	FOR EACH STATEMENT EXECUTE FUNCTION dispatch.announce_change();

CREATE FUNCTION dispatch.create_backend(name text, transport text, options jsonb DEFAULT '{}')
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dispatch.backends (name, transport, options)
	VALUES (create_backend.name, create_backend.transport, create_backend.options)
$$;
COMMENT ON FUNCTION dispatch.create_backend IS 'creates a destination of events';

CREATE FUNCTION dispatch.missing_backend(name text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF missing_backend.name IS NULL THEN
		RAISE EXCEPTION 'name of the backend must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	RAISE EXCEPTION 'backend "%" does not exist', missing_backend.name
		USING ERRCODE = 'undefined_object',
		      HINT = coalesce('Backends are: ' ||
			      (SELECT string_agg(b.name, ', ' ORDER BY b.name)
			       FROM dispatch.backends AS b WHERE NOT b.dropping) || '.',
			      'Create one with dispatch.create_backend().');
END
$$;
COMMENT ON FUNCTION dispatch.missing_backend IS 'raises the error for a backend that does not exist';

CREATE FUNCTION dispatch.alter_backend(name text, options jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF jsonb_typeof(alter_backend.options) IS DISTINCT FROM 'object' THEN
		RAISE EXCEPTION 'options must be a JSON object'
			USING ERRCODE = 'invalid_parameter_value',
			      HINT = 'For example: {"port": 6380}. An option that is null goes back to its default.';
	END IF;
	UPDATE dispatch.backends AS b
	SET options = b.options || alter_backend.options
	WHERE b.name = alter_backend.name AND NOT b.dropping;
	IF NOT FOUND THEN
		PERFORM dispatch.missing_backend(alter_backend.name);
	END IF;
END
$$;
COMMENT ON FUNCTION dispatch.alter_backend IS 'changes some options of a backend; null sets one back to its default';

CREATE FUNCTION dispatch.drop_backend(name text, force boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE dispatch.backends AS b
	SET dropping = true, force_drop = coalesce(drop_backend.force, false)
	WHERE b.name = drop_backend.name AND NOT b.dropping;
	IF NOT FOUND THEN
		PERFORM dispatch.missing_backend(drop_backend.name);
	END IF;
END
$$;
COMMENT ON FUNCTION dispatch.drop_backend IS 'drops a backend; one with undelivered events only if forced';

CREATE FUNCTION dispatch.pause_backend(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE dispatch.backends AS b SET enabled = false
	WHERE b.name = pause_backend.name AND NOT b.dropping;
	IF NOT FOUND THEN
		PERFORM dispatch.missing_backend(pause_backend.name);
	END IF;
END
$$;
COMMENT ON FUNCTION dispatch.pause_backend IS 'stops delivery to a backend; its events wait';

CREATE FUNCTION dispatch.resume_backend(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE dispatch.backends AS b SET enabled = true
	WHERE b.name = resume_backend.name AND NOT b.dropping;
	IF NOT FOUND THEN
		PERFORM dispatch.missing_backend(resume_backend.name);
	END IF;
END
$$;
COMMENT ON FUNCTION dispatch.resume_backend IS 'resumes delivery to a backend, at once even if it was backing off';

CREATE FUNCTION dispatch.check_backend(
	name text, OUT ok boolean, OUT detail text, OUT elapsed interval)
RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dispatch_check_backend';
COMMENT ON FUNCTION dispatch.check_backend IS 'connects to a backend''s broker now, and says how that went';

CREATE FUNCTION dispatch.transport_options(transport text DEFAULT NULL)
RETURNS TABLE (transport text, option text, scope text, type text,
	default_value text, required boolean, secret boolean, description text)
LANGUAGE C STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dispatch_transport_options';
COMMENT ON FUNCTION dispatch.transport_options IS 'options that transports take';

/*
 * Event types
 */

CREATE FUNCTION dispatch.check_event_type_row() RETURNS trigger
LANGUAGE C
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dispatch_check_event_type_row';
COMMENT ON FUNCTION dispatch.check_event_type_row IS 'checks rows of dispatch.event_types';

CREATE TRIGGER check_event_type_row
	BEFORE INSERT OR UPDATE ON dispatch.event_types
	FOR EACH ROW EXECUTE FUNCTION dispatch.check_event_type_row();
CREATE TRIGGER announce_change
	AFTER INSERT OR UPDATE OR DELETE ON dispatch.event_types
	FOR EACH STATEMENT EXECUTE FUNCTION dispatch.announce_change();

CREATE FUNCTION dispatch.define_event_type(
	event_type   text,
	backend      text  DEFAULT NULL,
	topic        text  DEFAULT NULL,
	partition_by text  DEFAULT NULL,
	options      jsonb DEFAULT NULL)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO dispatch.event_types AS t (event_type, backend, topic, partition_by, options)
	VALUES (define_event_type.event_type, define_event_type.backend, define_event_type.topic,
		define_event_type.partition_by, define_event_type.options)
	ON CONFLICT ON CONSTRAINT event_types_pkey DO UPDATE
	SET backend = excluded.backend, topic = excluded.topic,
		partition_by = excluded.partition_by, options = excluded.options
$$;
COMMENT ON FUNCTION dispatch.define_event_type IS 'defines what events of a type have in common, or defines it anew';

CREATE FUNCTION dispatch.drop_event_type(event_type text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM dispatch.event_types AS t WHERE t.event_type = drop_event_type.event_type;
	IF FOUND THEN
		RETURN;
	END IF;
	IF drop_event_type.event_type IS NULL THEN
		RAISE EXCEPTION 'name of the event type must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	RAISE EXCEPTION 'event type "%" is not defined', drop_event_type.event_type
		USING ERRCODE = 'undefined_object',
		      HINT = coalesce('Defined are: ' ||
			      (SELECT string_agg(t.event_type, ', ')
			       FROM (SELECT d.event_type FROM dispatch.event_types AS d
			             ORDER BY d.event_type LIMIT 20) AS t) || '.',
			      'No event type is.');
END
$$;
COMMENT ON FUNCTION dispatch.drop_event_type IS 'forgets what was defined for events of a type; they can be published all the same';

/*
 * Operate
 */

CREATE FUNCTION dispatch.flush(timeout interval DEFAULT '30s', backend text DEFAULT NULL)
RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dispatch_flush';
COMMENT ON FUNCTION dispatch.flush IS 'waits until all that was committed before is settled; false when the time is up';

CREATE FUNCTION dispatch.workers()
RETURNS TABLE (backend_id integer, pid integer, state text, in_flight integer,
	rate double precision, published bigint, retried bigint, last_published_at timestamptz,
	latency_p50 interval, latency_p95 interval, latency_p99 interval,
	last_error text, last_error_at timestamptz, next_attempt_at timestamptz)
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dispatch_workers';
COMMENT ON FUNCTION dispatch.workers IS 'workers of this database, from shared memory';

CREATE FUNCTION dispatch.pending(backend_id integer, OUT pending bigint, OUT oldest timestamptz)
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dispatch_pending';
COMMENT ON FUNCTION dispatch.pending IS 'number of events not settled: exact to 10000, above that an estimate';

CREATE FUNCTION dispatch.position(backend_id integer,
	OUT before_snapshot pg_snapshot, OUT upto_snapshot pg_snapshot, OUT settled_id bigint)
LANGUAGE C STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dispatch_position';
COMMENT ON FUNCTION dispatch.position IS 'how far a backend is settled, by its worker if it has one';

CREATE FUNCTION dispatch.identity() RETURNS text
LANGUAGE C STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'dispatch_identity';
COMMENT ON FUNCTION dispatch.identity IS 'this installation: system identifier and database';

CREATE FUNCTION dispatch.why_no_worker() RETURNS text
LANGUAGE C VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'dispatch_why_no_worker';
COMMENT ON FUNCTION dispatch.why_no_worker IS 'why backends of this database that should have a worker have none';

CREATE VIEW dispatch.backend_status AS
SELECT b.name,
       b.transport,
       CASE WHEN b.dropping THEN 'dropping'
            WHEN b.identity <> dispatch.identity() THEN 'not adopted'
            WHEN NOT b.enabled THEN 'paused'
            ELSE coalesce(w.state, dispatch.why_no_worker())
       END AS state,
       w.pid,
       n.pending + s.waiting + x.retrying AS pending,
       least(n.oldest, s.oldest, x.oldest) AS oldest_pending,
       x.retrying,
       x.failed,
       coalesce(w.published, p.published, 0) AS published,
       coalesce(w.retried, p.retried, 0) AS retried,
       coalesce(w.in_flight, 0) AS in_flight,
       round(coalesce(w.rate, 0)::numeric, 1) AS rate,
       w.latency_p50,
       w.latency_p95,
       w.latency_p99,
       w.last_error,
       w.last_error_at,
       w.next_attempt_at,
       coalesce(w.last_published_at, p.last_published_at) AS last_published_at
FROM dispatch.backends AS b
LEFT JOIN dispatch.workers() AS w ON w.backend_id = b.id
LEFT JOIN dispatch.positions AS p ON p.backend_id = b.id
CROSS JOIN LATERAL (
	SELECT q.pending, q.oldest FROM dispatch.pending(b.id) AS q
	WHERE b.identity = dispatch.identity()
	UNION ALL
	SELECT count(*), min(o.created_at) FROM dispatch.outbox AS o
	WHERE o.backend_id = b.id
	  AND (p.backend_id IS NULL OR NOT (pg_visible_in_snapshot(o.xid, p.before_snapshot)
	       OR (pg_visible_in_snapshot(o.xid, p.upto_snapshot) AND o.id <= p.settled_id)))
	HAVING b.identity <> dispatch.identity()
) AS n
CROSS JOIN LATERAL (
	SELECT count(*) AS waiting, min(c.created_at) AS oldest
	FROM dispatch.scheduled AS c WHERE c.backend_id = b.id
) AS s
CROSS JOIN LATERAL (
	SELECT count(*) FILTER (WHERE e.status <> 'failed') AS retrying,
	       count(*) FILTER (WHERE e.status = 'failed') AS failed,
	       min(e.created_at) FILTER (WHERE e.status <> 'failed') AS oldest
	FROM dispatch.exceptions AS e
	WHERE e.backend_id = b.id AND e.status IN ('retrying', 'parked', 'failed')
) AS x;
COMMENT ON VIEW dispatch.backend_status IS 'how each backend fares';
COMMENT ON COLUMN dispatch.backend_status.pending IS 'events not delivered yet: exact to 10000, above that an estimate';
COMMENT ON COLUMN dispatch.backend_status.retrying IS 'of those, the ones that have failed or wait behind one that has';
COMMENT ON COLUMN dispatch.backend_status.failed IS 'dead letters: see dispatch.dead_letters';
COMMENT ON COLUMN dispatch.backend_status.retried IS 'attempts that failed and were or will be repeated';
COMMENT ON COLUMN dispatch.backend_status.rate IS 'events delivered a second, lately';
COMMENT ON COLUMN dispatch.backend_status.latency_p50 IS 'from publish() to the reply of the broker, in the last minute or two';

CREATE VIEW dispatch.events AS
SELECT o.event_id, b.name AS backend, o.event_type, o.source, o.subject, o.key, o.data,
       o.options, o.created_at,
       CASE WHEN x.status IS NOT NULL THEN x.status
            WHEN pg_visible_in_snapshot(o.xid, p.before_snapshot)
              OR (pg_visible_in_snapshot(o.xid, p.upto_snapshot) AND o.id <= p.settled_id)
            THEN 'published'
            WHEN b.id IS NULL THEN 'discarded'
            ELSE 'pending'
       END AS status,
       coalesce(x.attempts, 0) AS attempts,
       x.next_attempt_at,
       x.last_error,
       o.attributes,
       o.content
FROM dispatch.outbox AS o
LEFT JOIN dispatch.backends AS b ON b.id = o.backend_id
LEFT JOIN (
	SELECT q.backend_id, r.before_snapshot, r.upto_snapshot, r.settled_id
	FROM (SELECT id AS backend_id FROM dispatch.backends
	      UNION SELECT backend_id FROM dispatch.positions) AS q
	CROSS JOIN LATERAL dispatch.position(q.backend_id) AS r
) AS p ON p.backend_id = o.backend_id
LEFT JOIN dispatch.exceptions AS x ON x.event_id = o.event_id
UNION ALL
SELECT x.event_id, b.name, x.event_type, x.source, x.subject, x.key, x.data,
       x.options, x.created_at, x.status, x.attempts, x.next_attempt_at, x.last_error,
       x.attributes, x.content
FROM dispatch.exceptions AS x
LEFT JOIN dispatch.backends AS b ON b.id = x.backend_id
WHERE NOT EXISTS (SELECT FROM dispatch.outbox AS o
                  WHERE o.backend_id = x.backend_id AND o.id = x.id AND o.event_id = x.event_id)
UNION ALL
SELECT c.event_id, b.name, c.event_type, c.source, c.subject, c.key, c.data,
       c.options, c.created_at, 'scheduled', 0, c.scheduled_at, NULL,
       c.attributes, c.content
FROM dispatch.scheduled AS c
LEFT JOIN dispatch.backends AS b ON b.id = c.backend_id;
COMMENT ON VIEW dispatch.events IS 'every event that is kept, and what has become of it';

CREATE VIEW dispatch.dead_letters AS
SELECT x.event_id, b.name AS backend, x.event_type, x.source, x.subject, x.key, x.data,
       x.options, x.created_at, x.attempts, x.first_error, x.last_error,
       x.first_failed_at, x.last_failed_at, x.attributes, x.content
FROM dispatch.exceptions AS x
LEFT JOIN dispatch.backends AS b ON b.id = x.backend_id
WHERE x.status = 'failed';
COMMENT ON VIEW dispatch.dead_letters IS 'events that were given up after their last attempt: see retry() and discard()';

CREATE FUNCTION dispatch.adopt() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dispatch_adopt';
COMMENT ON FUNCTION dispatch.adopt IS 'lets this copy of the database deliver events, beginning with those that the original had not';

CREATE FUNCTION dispatch.announce_exceptions() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'dispatch_announce_exceptions';
COMMENT ON FUNCTION dispatch.announce_exceptions IS 'tells workers that rows of dispatch.exceptions were changed';

CREATE FUNCTION dispatch.missing_dead_letter(event_id uuid, backend text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF missing_dead_letter.event_id IS NULL THEN
		RAISE EXCEPTION 'event_id must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF missing_dead_letter.backend IS NOT NULL AND NOT EXISTS (
		SELECT FROM dispatch.backends AS b WHERE b.name = missing_dead_letter.backend AND NOT b.dropping) THEN
		PERFORM dispatch.missing_backend(missing_dead_letter.backend);
	END IF;
	RAISE EXCEPTION 'event % is no dead letter', missing_dead_letter.event_id
		USING ERRCODE = 'undefined_object',
		      HINT = 'Dead letters are in dispatch.dead_letters; dispatch.events tells what became of others.';
END
$$;
COMMENT ON FUNCTION dispatch.missing_dead_letter IS 'raises the error for an event that is no dead letter of the backend';

CREATE FUNCTION dispatch.retry(event_id uuid, backend text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE dispatch.exceptions AS x
	SET status = 'retrying', attempts = 0, next_attempt_at = clock_timestamp()
	WHERE x.event_id = retry.event_id AND x.status = 'failed'
	  AND EXISTS (SELECT FROM dispatch.backends AS b WHERE b.id = x.backend_id
	              AND NOT b.dropping AND (retry.backend IS NULL OR b.name = retry.backend));
	IF NOT FOUND THEN
		PERFORM dispatch.missing_dead_letter(retry.event_id, retry.backend);
	END IF;
	PERFORM dispatch.announce_exceptions();
END
$$;
COMMENT ON FUNCTION dispatch.retry IS 'tries a dead letter again, its attempts counted from 0';

CREATE FUNCTION dispatch.retry_failed(backend text DEFAULT NULL, event_type text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	retried bigint;
BEGIN
	IF retry_failed.backend IS NOT NULL AND NOT EXISTS (
		SELECT FROM dispatch.backends AS b WHERE b.name = retry_failed.backend AND NOT b.dropping) THEN
		PERFORM dispatch.missing_backend(retry_failed.backend);
	END IF;
	UPDATE dispatch.exceptions AS x
	SET status = 'retrying', attempts = 0, next_attempt_at = clock_timestamp()
	FROM dispatch.backends AS b
	WHERE x.status = 'failed' AND b.id = x.backend_id AND NOT b.dropping
	  AND (retry_failed.backend IS NULL OR b.name = retry_failed.backend)
	  AND (retry_failed.event_type IS NULL OR x.event_type = retry_failed.event_type);
	GET DIAGNOSTICS retried = ROW_COUNT;
	PERFORM dispatch.announce_exceptions();
	RETURN retried;
END
$$;
COMMENT ON FUNCTION dispatch.retry_failed IS 'tries all dead letters again, or those of a backend or an event type; returns how many';

CREATE FUNCTION dispatch.discard(event_id uuid, backend text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE dispatch.exceptions AS x SET status = 'discarded'
	WHERE x.event_id = discard.event_id AND x.status = 'failed'
	  AND (discard.backend IS NULL
	       OR EXISTS (SELECT FROM dispatch.backends AS b
	                  WHERE b.id = x.backend_id AND b.name = discard.backend));
	IF NOT FOUND THEN
		PERFORM dispatch.missing_dead_letter(discard.event_id, discard.backend);
	END IF;
	RAISE LOG 'dispatch: dead letter % was discarded by %', discard.event_id, session_user;
END
$$;
COMMENT ON FUNCTION dispatch.discard IS 'gives a dead letter up';

/*
 * The "sql" transport: one's own transport in any language.
 */

CREATE TYPE dispatch.event AS (
	event_id    uuid,
	event_type  text,
	source      text,
	subject     text,
	key         text,
	created_at  timestamptz,
	body        text
);
COMMENT ON TYPE dispatch.event IS 'an event as the function of an "sql" backend gets it; body is its envelope';

CREATE TYPE dispatch.failure AS (
	event_id    uuid,
	error       text,
	permanent   boolean
);
COMMENT ON TYPE dispatch.failure IS 'an event that the function of an "sql" backend could not deliver';

/*
 * Rights.  Nothing is granted to anybody here.
 */

CREATE FUNCTION dispatch.revoke_usage(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (
		SELECT FROM pg_class AS c, aclexplode(c.relacl) AS a
		WHERE c.relnamespace = 'dispatch'::regnamespace AND a.grantee = to_regrole(quote_ident(role))
		UNION ALL
		SELECT FROM pg_proc AS p, aclexplode(p.proacl) AS a
		WHERE p.pronamespace = 'dispatch'::regnamespace AND a.grantee = to_regrole(quote_ident(role))) THEN
		EXECUTE format('REVOKE USAGE ON SCHEMA dispatch FROM %I', role);
	END IF;
END
$$;
COMMENT ON FUNCTION dispatch.revoke_usage IS 'takes USAGE of the schema from a role that has no other right in it any more';

CREATE FUNCTION dispatch.grant_publish(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA dispatch TO %I', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION dispatch.publish, dispatch.publish_row,'
		' dispatch.publish_binary, dispatch.publish_cloudevent TO %I', role);
END
$$;
COMMENT ON FUNCTION dispatch.grant_publish IS 'lets a role publish events';

CREATE FUNCTION dispatch.revoke_publish(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('REVOKE EXECUTE ON FUNCTION dispatch.publish, dispatch.publish_row,'
		' dispatch.publish_binary, dispatch.publish_cloudevent FROM %I', role);
	PERFORM dispatch.revoke_usage(role);
END
$$;
COMMENT ON FUNCTION dispatch.revoke_publish IS 'takes back what grant_publish() gave';

CREATE FUNCTION dispatch.grant_monitor(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA dispatch TO %I', role);
	EXECUTE format('GRANT SELECT ON dispatch.backend_status, dispatch.positions, dispatch.segments TO %I', role);
	EXECUTE format('GRANT SELECT ON SEQUENCE dispatch.outbox_id_seq TO %I', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION dispatch.workers, dispatch.pending, dispatch.identity,'
		' dispatch.why_no_worker, dispatch.transport_options TO %I', role);
END
$$;
COMMENT ON FUNCTION dispatch.grant_monitor IS 'lets a role see how backends fare, but no event and no option';

CREATE FUNCTION dispatch.revoke_monitor(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('REVOKE SELECT ON dispatch.backend_status, dispatch.positions, dispatch.segments FROM %I', role);
	EXECUTE format('REVOKE SELECT ON SEQUENCE dispatch.outbox_id_seq FROM %I', role);
	EXECUTE format('REVOKE EXECUTE ON FUNCTION dispatch.workers, dispatch.pending, dispatch.identity,'
		' dispatch.why_no_worker, dispatch.transport_options FROM %I', role);
	PERFORM dispatch.revoke_usage(role);
END
$$;
COMMENT ON FUNCTION dispatch.revoke_monitor IS 'takes back what grant_monitor() gave';

CREATE FUNCTION dispatch.grant_operate(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dispatch.grant_monitor(role);
	EXECUTE format('GRANT SELECT ON dispatch.events, dispatch.dead_letters TO %I', role);
	EXECUTE format('GRANT SELECT, UPDATE (status, attempts, next_attempt_at) ON dispatch.exceptions TO %I', role);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON dispatch.backends,'
		' dispatch.event_types TO %I', role);
	EXECUTE format('GRANT EXECUTE ON FUNCTION dispatch.create_backend, dispatch.alter_backend,'
		' dispatch.define_event_type, dispatch.drop_event_type,'
		' dispatch.drop_backend, dispatch.pause_backend, dispatch.resume_backend,'
		' dispatch.missing_backend, dispatch.check_backend, dispatch.flush, dispatch.position,'
		' dispatch.retry, dispatch.retry_failed, dispatch.discard, dispatch.missing_dead_letter,'
		' dispatch.announce_exceptions TO %I', role);
	EXECUTE format('GRANT USAGE ON TYPE dispatch.event, dispatch.failure TO %I', role);
END
$$;
COMMENT ON FUNCTION dispatch.grant_operate IS 'lets a role configure backends and see events, but no secret';

CREATE FUNCTION dispatch.revoke_operate(role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM dispatch.revoke_monitor(role);
	EXECUTE format('REVOKE SELECT ON dispatch.events, dispatch.dead_letters FROM %I', role);
	EXECUTE format('REVOKE SELECT, UPDATE (status, attempts, next_attempt_at) ON dispatch.exceptions FROM %I', role);
	EXECUTE format('REVOKE SELECT, INSERT, UPDATE, DELETE ON dispatch.backends,'
		' dispatch.event_types FROM %I', role);
	EXECUTE format('REVOKE EXECUTE ON FUNCTION dispatch.create_backend, dispatch.alter_backend,'
		' dispatch.define_event_type, dispatch.drop_event_type,'
		' dispatch.drop_backend, dispatch.pause_backend, dispatch.resume_backend,'
		' dispatch.missing_backend, dispatch.check_backend, dispatch.flush, dispatch.position,'
		' dispatch.retry, dispatch.retry_failed, dispatch.discard, dispatch.missing_dead_letter,'
		' dispatch.announce_exceptions FROM %I', role);
	EXECUTE format('REVOKE USAGE ON TYPE dispatch.event, dispatch.failure FROM %I', role);
	PERFORM dispatch.revoke_usage(role);
END
$$;
COMMENT ON FUNCTION dispatch.revoke_operate IS 'takes back what grant_operate() gave';

REVOKE ALL ON SCHEMA dispatch FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA dispatch FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA dispatch FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA dispatch FROM PUBLIC;
REVOKE ALL ON TYPE dispatch.event, dispatch.failure FROM PUBLIC;

/*
 * What pg_dump takes along: configuration, events and how far they are
 * settled.  Not the secrets.  The partitioned table alone would dump nothing.
 */

SELECT pg_catalog.pg_extension_config_dump('dispatch.outbox_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('dispatch.backend_id_seq', '');
DO $$
BEGIN
	FOR i IN 0..7 LOOP
		PERFORM pg_catalog.pg_extension_config_dump(format('dispatch.outbox_%s', i)::regclass, '');
	END LOOP;
END
$$;
SELECT pg_catalog.pg_extension_config_dump('dispatch.backends', '');
SELECT pg_catalog.pg_extension_config_dump('dispatch.event_types', '');
SELECT pg_catalog.pg_extension_config_dump('dispatch.positions', '');
SELECT pg_catalog.pg_extension_config_dump('dispatch.scheduled', '');
SELECT pg_catalog.pg_extension_config_dump('dispatch.exceptions', '');
