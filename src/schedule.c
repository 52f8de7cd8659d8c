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

/* Nothing moves in a copy of a database before it was adopted. */
#define ADOPTED \
	" WHERE EXISTS (SELECT FROM dispatch.backends AS b" \
	"  WHERE b.id OPERATOR(pg_catalog.=) s.backend_id" \
	"  AND b.identity OPERATOR(pg_catalog.=) dispatch.identity())"

static Datum
get_column(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

void
schedule_release(void *arg)
{
	static Oid	argtypes[] = {INT2OID, INT4OID};
	TimestampTz *next = arg;
	TimestampTz due;
	bool		isnull;

	SPI_connect();
	/* Not read-only: adopt() has put some aside in this very command. */
	SPI_execute("SELECT min(s.scheduled_at) FROM dispatch.scheduled AS s" ADOPTED, false, 1);
	due = DatumGetTimestampTz(get_column(0, 1, &isnull));
	if (isnull)
		due = 0;
	else if (due <= GetCurrentTimestamp())
	{
		Datum		args[2];

		/* Before any id: reading relies on that, see tick.c. */
		(void) GetTopTransactionId();
		args[0] = Int16GetDatum(database_current_segment(MyDatabaseId));
		args[1] = Int32GetDatum(RELEASE_MAX);
		SPI_execute_with_args("WITH due AS ("
							  " DELETE FROM dispatch.scheduled WHERE event_id IN ("
							  "  SELECT s.event_id FROM dispatch.scheduled AS s" ADOPTED
							  "  AND s.scheduled_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()"
							  "  ORDER BY s.scheduled_at, s.event_id LIMIT $2)"
							  " RETURNING *),"
							  " sorted AS (SELECT * FROM due ORDER BY scheduled_at, event_id)"
							  " INSERT INTO dispatch.outbox"
							  "  (xid, id, created_at, event_id, backend_id, max_retries, segment,"
							  "   event_type, source, subject, key, data, options, attributes, content)"
							  " SELECT pg_catalog.pg_current_xact_id(),"
							  "  pg_catalog.nextval('dispatch.outbox_id_seq'), created_at, event_id,"
							  "  backend_id, max_retries, $1, event_type, source, subject, key, data, options,"
							  "  attributes, content"
							  " FROM sorted RETURNING backend_id",
							  2, argtypes, args, NULL, false, 0);
		for (uint64 i = 0; i < SPI_processed; i++)
			wake_worker_at_commit(DatumGetInt32(get_column(i, 1, &isnull)));
		due = GetCurrentTimestamp();	/* there may be more */
	}
	SPI_finish();
	*next = due;
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
