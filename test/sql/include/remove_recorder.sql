-- Undoes what recorder.sql did, the extension included.
SET client_min_messages = warning;
DROP EXTENSION dispatch CASCADE;
DROP SCHEMA recorder CASCADE;
DROP ROLE regress_recorder;
RESET client_min_messages;
