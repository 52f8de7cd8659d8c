-- Waits until a condition holds, and returns whether it does: what it waits for
-- is done by other processes.  Each look has a snapshot of its own.  Tests
-- include this, and drop the function at their end.
CREATE FUNCTION wait_for(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	met boolean;
BEGIN
	FOR i IN 1..600 LOOP
		EXECUTE 'SELECT ' || condition INTO met;
		EXIT WHEN met;
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN coalesce(met, false);
END $$;
