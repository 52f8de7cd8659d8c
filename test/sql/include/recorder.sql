-- A backend "recorder" whose function keeps what it is given in a table, as an
-- ordinary role.  Tests include this after CREATE EXTENSION, and remove_recorder
-- at their end.
CREATE ROLE regress_recorder;
CREATE SCHEMA recorder AUTHORIZATION regress_recorder;
GRANT USAGE ON SCHEMA dispatch TO regress_recorder;
GRANT USAGE ON TYPE dispatch.event, dispatch.failure TO regress_recorder;
SET ROLE regress_recorder;
CREATE TABLE recorder.events (
	n serial, event_id uuid, event_type text, source text, subject text, key text,
	created_at timestamptz, body text, run_by name DEFAULT current_user);
CREATE FUNCTION recorder.record(events dispatch.event[]) RETURNS SETOF dispatch.failure
LANGUAGE sql AS $$
	INSERT INTO recorder.events (event_id, event_type, source, subject, key, created_at, body)
	SELECT * FROM unnest(events);
	SELECT NULL::uuid, NULL::text, NULL::boolean WHERE false;
$$;
RESET ROLE;
INSERT INTO dispatch.backends (name, transport, options, owner)
VALUES ('recorder', 'sql', '{"function": "recorder.record(dispatch.event[])"}', 'regress_recorder');
