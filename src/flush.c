/*-------------------------------------------------------------------------
 *
 * flush.c
 *	  dispatch.flush(): waits until what has been committed is settled.
 *
 * Each worker is asked for a tick that is taken after the request, and answers
 * when all that this tick sees is settled: no position is compared, and no
 * table is read while waiting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends.h"
#include "position.h"
#include "session.h"
#include "slots.h"
#include "steady.h"

PG_FUNCTION_INFO_V1(dispatch_flush);

#define POLL_MS 2

/* Where there is no worker, tables are read: so much less often. */
#define TABLES_POLL_MS 50

/* A backend that has to answer. */
typedef struct Request
{
	int32		backend_id;
	uint32		generation;		/* of the slot that was asked */
	uint32		number;			/* of the request; 0: nobody was asked yet */
	SteadyTime	looked_at;		/* in the tables; 0: never */
} Request;

/* A restored backend that was not adopted yet: its position says nothing here. */
static bool
is_foreign(int32 backend_id)
{
	Oid			argtypes[] = {INT4OID, TEXTOID};
	Datum		args[] = {
		Int32GetDatum(backend_id), CStringGetTextDatum(backends_identity())
	};
	bool		foreign;

	SPI_connect();
	SPI_execute_with_args("SELECT FROM dispatch.backends WHERE id OPERATOR(pg_catalog.=) $1"
						  " AND identity OPERATOR(pg_catalog.<>) $2",
						  2, argtypes, args, NULL, true, 1);
	foreign = SPI_processed > 0;
	SPI_finish();
	return foreign;
}

/* A backend without a worker, as a paused one, may have nothing to settle. */
static bool
has_nothing_left(Request *request)
{
	MemoryContext context;
	MemoryContext old;
	Position	position;
	TimestampTz oldest;
	bool		nothing;

	if (request->looked_at != 0 && !steady_is_past(request->looked_at, TABLES_POLL_MS))
		return false;
	request->looked_at = steady_now();
	context = AllocSetContextCreate(CurrentMemoryContext, "dispatch flush",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	PushActiveSnapshot(GetLatestSnapshot());
	position_current(request->backend_id, &position);
	nothing = !is_foreign(request->backend_id) &&
		position_count_pending(request->backend_id, &position, 1, &oldest) == 0;
	PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return nothing;
}

/*
 * Asks a worker, unless it has been asked, and says whether it has answered.
 * One that ended meanwhile is replaced by another, which is asked anew.
 */
static bool
is_flushed(Request *request)
{
	WorkerSlot *slot;
	bool		done = false;

	LWLockAcquire(Slots->lock, LW_SHARED);
	slot = worker_slot_find(MyDatabaseId, request->backend_id);
	if (slot == NULL || slot->generation != request->generation)
		request->number = 0;
	if (slot != NULL && request->number == 0)
	{
		request->generation = slot->generation;
		request->number = pg_atomic_add_fetch_u32(&slot->flush_requested, 1);
		slots_wake_worker(MyDatabaseId, request->backend_id);
	}
	else if (slot != NULL)
		done = (int32) (pg_atomic_read_u32(&slot->flush_done) - request->number) >= 0;
	LWLockRelease(Slots->lock);
	return done || (slot == NULL && has_nothing_left(request));
}

/* One request a backend, or for the one of that name only. */
static List *
make_requests(const char *name)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			argtype = TEXTOID;
	Datum		arg = name ? CStringGetTextDatum(name) : (Datum) 0;
	List	   *requests = NIL;

	SPI_connect();
	SPI_execute_with_args("SELECT id FROM dispatch.backends"
						  " WHERE ($1 IS NULL AND NOT force_drop)"
						  " OR (name OPERATOR(pg_catalog.=) $1 AND NOT dropping)",
						  1, &argtype, &arg, name ? " " : "n", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Request    *request = palloc0_object(Request);
		bool		isnull;

		request->backend_id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
														  SPI_tuptable->tupdesc, 1, &isnull));
		requests = lappend(requests, request);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	if (name != NULL && requests == NIL)
		backends_report_missing(name);
	return requests;
}

/* When to give up; what is further away than 24 days is taken for that. */
static SteadyTime
deadline_of(FunctionCallInfo fcinfo)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("timeout must not be null")));
	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(now),
													   PG_GETARG_DATUM(0)));
	if (deadline < now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must not be negative")));
	return steady_in(TimestampDifferenceMilliseconds(now, deadline));
}

/*
 * True as soon as all that was committed before the call is settled; false if
 * that has not come about within the timeout.
 */
Datum
dispatch_flush(PG_FUNCTION_ARGS)
{
	SteadyTime	deadline = deadline_of(fcinfo);
	List	   *requests = make_requests(PG_ARGISNULL(1) ? NULL :
										 text_to_cstring(PG_GETARG_TEXT_PP(1)));

	slots_require();
	for (;;)
	{
		ListCell   *lc;

		foreach(lc, requests)
			if (is_flushed(lfirst(lc)))
				requests = foreach_delete_current(requests, lc);
		if (requests == NIL)
			PG_RETURN_BOOL(true);
		if (steady_ms_until(deadline) == 0)
			PG_RETURN_BOOL(false);
		session_pause(POLL_MS);
	}
}
