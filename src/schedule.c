/*-------------------------------------------------------------------------
 *
 * schedule.c
 *	  Events that are to be sent later: the table dispatch.scheduled.
 *
 * publish() puts such an event aside with outbox_schedule(); the manager moves
 * it into the outbox in a transaction of its own when its time has come, so
 * that for workers it is an event like any other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "schedule.h"
#include "slots.h"
#include "wake.h"

/* Moved in one transaction, to keep it short. */
#define RELEASE_MAX 1000

/*
 * Nothing moves in a copy of a database before it was adopted.  Each backend's
 * events are looked up by themselves, for in the index they are in order: an
 * index over all of them would have those in front that may not move.
 */
#define OF_ADOPTED_BACKENDS(subquery) \
	" FROM dispatch.backends AS b CROSS JOIN LATERAL (" subquery ") AS d" \
	" WHERE b.identity OPERATOR(pg_catalog.=) dispatch.identity()"

/* Moves what the DELETE deletes to segment $1; a row for each backend. */
#define MOVE(delete) \
	"WITH due AS (" delete " RETURNING *)," \
	" sorted AS (SELECT * FROM due ORDER BY scheduled_at, event_id)," \
	" moved AS (" \
	"  INSERT INTO dispatch.outbox" \
	"   (xid, id, created_at, event_id, backend_id, max_retries, segment," \
	"    event_type, source, subject, key, data, options, attributes, content)" \
	"  SELECT pg_catalog.pg_current_xact_id()," \
	"   pg_catalog.nextval('dispatch.outbox_id_seq'), created_at, event_id," \
	"   backend_id, max_retries, $1, event_type, source, subject, key, data, options," \
	"   attributes, content" \
	"  FROM sorted RETURNING backend_id)" \
	" SELECT DISTINCT backend_id FROM moved"

static Datum
get_column(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

/* When the next one is due; 0: none is scheduled. */
static TimestampTz
next_due(void)
{
	bool		isnull;
	Datum		due;

	SPI_execute("SELECT min(d.scheduled_at)"
				OF_ADOPTED_BACKENDS("SELECT s.scheduled_at FROM dispatch.scheduled AS s"
									" WHERE s.backend_id OPERATOR(pg_catalog.=) b.id"
									" ORDER BY s.scheduled_at LIMIT 1"), false, 1);
	due = get_column(0, 1, &isnull);
	return isnull ? 0 : DatumGetTimestampTz(due);
}

/* Moves events that are due by now into the outbox, with one of the statements. */
static void
move_due(const char *statement, TimestampTz now, int maximum)
{
	static Oid	argtypes[] = {INT2OID, TIMESTAMPTZOID, INT4OID};
	Datum		args[3];
	bool		isnull;

	/* Before any id: reading relies on that, see tick.c. */
	(void) GetTopTransactionId();
	args[0] = Int16GetDatum(database_current_segment(MyDatabaseId));
	args[1] = TimestampTzGetDatum(now);
	args[2] = Int32GetDatum(maximum);
	SPI_execute_with_args(statement, lengthof(args), argtypes, args, NULL, false, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		wake_worker_at_commit(DatumGetInt32(get_column(i, 1, &isnull)));
}

void
schedule_release(void *arg)
{
	TimestampTz *next = arg;
	TimestampTz now = GetCurrentTimestamp();

	SPI_connect();
	*next = next_due();
	if (*next != 0 && *next <= now)
	{
		move_due(MOVE("DELETE FROM dispatch.scheduled"
					  " WHERE event_id OPERATOR(pg_catalog.=) ANY (ARRAY("
					  "  SELECT d.event_id"
					  OF_ADOPTED_BACKENDS("SELECT s.scheduled_at, s.event_id"
										  " FROM dispatch.scheduled AS s"
										  " WHERE s.backend_id OPERATOR(pg_catalog.=) b.id"
										  " AND s.scheduled_at OPERATOR(pg_catalog.<=) $2"
										  " ORDER BY s.scheduled_at, s.event_id LIMIT $3")
					  "  ORDER BY d.scheduled_at, d.event_id LIMIT $3))"), now, RELEASE_MAX);
		*next = now;			/* there may be more */
	}
	SPI_finish();
}

void
schedule_release_all(void)
{
	SPI_connect();
	/* Not in rounds: each would meet what those before it have deleted. */
	move_due(MOVE("DELETE FROM dispatch.scheduled AS s"
				  " WHERE s.scheduled_at OPERATOR(pg_catalog.<=) $2 AND $3 IS NOT NULL"
				  " AND EXISTS (SELECT FROM dispatch.backends AS b"
				  "  WHERE b.id OPERATOR(pg_catalog.=) s.backend_id"
				  "  AND b.identity OPERATOR(pg_catalog.=) dispatch.identity())"),
			 GetCurrentTimestamp(), 0);
	SPI_finish();
}

int64
schedule_count(int32 backend_id)
{
	Oid			argtype = INT4OID;
	Datum		arg = Int32GetDatum(backend_id);
	bool		isnull;
	int64		count;

	SPI_connect();
	SPI_execute_with_args("SELECT pg_catalog.count(*) FROM dispatch.scheduled"
						  " WHERE backend_id OPERATOR(pg_catalog.=) $1",
						  1, &argtype, &arg, NULL, true, 1);
	count = DatumGetInt64(get_column(0, 1, &isnull));
	SPI_finish();
	return count;
}
