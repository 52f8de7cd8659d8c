/*-------------------------------------------------------------------------
 *
 * position.c
 *	  How far a backend is settled: the table dispatch.positions.
 *
 * A worker keeps its position in memory, and stores it at most ten times a
 * second.  A transaction somewhere that holds back vacuum makes each of those
 * updates leave a dead row behind, so finding the row must not depend on how
 * many there are: it is looked up by where it was stored last, and by its key
 * only when that fails.  For the same reason views take positions from shared
 * memory, where each worker shares its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "cursor.h"
#include "position.h"

/* Columns after backend_id, in the order of the parameters $2 ... */
#define COLUMNS \
	"before_snapshot, before_id, before_xid, upto_snapshot, upto_id, upto_xid," \
	" settled_id, published, retried, last_published_at, running, unclean_ends, suspect"
#define PARAMETERS "$2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14"

/* After them: where the row was stored last. */
#define PLACE "$15"

#define UPDATE_BY(condition) \
	"UPDATE dispatch.positions SET (" COLUMNS ") = ROW (" PARAMETERS ")" \
	" WHERE " condition " RETURNING ctid"

#define BY_KEY "backend_id OPERATOR(pg_catalog.=) $1"

static Datum
get_column(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

void
position_load(int32 backend_id, Position *position)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			argtype = INT4OID;
	Datum		arg = Int32GetDatum(backend_id);

	memset(position, 0, sizeof(Position));
	ItemPointerSetInvalid(&position->row);

	SPI_connect();
	SPI_execute_with_args("SELECT " COLUMNS ", ctid FROM dispatch.positions WHERE " BY_KEY,
						  1, &argtype, &arg, NULL, true, 1);
	if (SPI_processed == 1)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;
		Datum		at;
		Datum		suspect;

		position->before = tick_make(get_column(1, &isnull),
									 DatumGetInt64(get_column(2, &isnull)),
									 DatumGetFullTransactionId(get_column(3, &isnull)));
		position->upto = tick_make(get_column(4, &isnull),
								   DatumGetInt64(get_column(5, &isnull)),
								   DatumGetFullTransactionId(get_column(6, &isnull)));
		position->settled_id = DatumGetInt64(get_column(7, &isnull));
		position->published = DatumGetInt64(get_column(8, &isnull));
		position->retried = DatumGetInt64(get_column(9, &isnull));
		at = get_column(10, &isnull);
		position->last_published_at = isnull ? 0 : DatumGetTimestampTz(at);
		position->running = DatumGetBool(get_column(11, &isnull));
		position->unclean_ends = DatumGetInt32(get_column(12, &isnull));
		suspect = get_column(13, &isnull);
		position->has_suspect = !isnull;
		if (!isnull)
			position->suspect = *DatumGetUUIDP(suspect);
		position->row = *(ItemPointer) DatumGetPointer(get_column(14, &isnull));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();

	if (position->before == NULL)
	{
		position->before = tick_of_nothing();
		position->upto = tick_of_nothing();
	}
}

/*
 * Runs one of the statements that store a position; false if it met no row.
 * The plan is kept for the life of the process.
 */
static bool
run_save(SPIPlanPtr *plan, const char *statement, Datum *args, const char *nulls,
		 ItemPointer row)
{
	static Oid	argtypes[] = {
		INT4OID, PG_SNAPSHOTOID, INT8OID, XID8OID, PG_SNAPSHOTOID, INT8OID, XID8OID,
		INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, BOOLOID, INT4OID, UUIDOID, TIDOID
	};
	bool		isnull;

	if (*plan == NULL)
	{
		SPIPlanPtr	made = SPI_prepare(statement, lengthof(argtypes), argtypes);

		if (made == NULL || SPI_keepplan(made) != 0)
			elog(ERROR, "could not prepare a statement: %s", SPI_result_code_string(SPI_result));
		*plan = made;
	}
	SPI_execute_plan(*plan, args, nulls, false, 0);
	if (SPI_processed == 0)
		return false;
	*row = *(ItemPointer) DatumGetPointer(get_column(1, &isnull));
	return true;
}

void
position_save(int32 backend_id, Position *position)
{
	static SPIPlanPtr update_by_place = NULL;
	static SPIPlanPtr update_by_key = NULL;
	static SPIPlanPtr insert = NULL;
	Datum		args[15];
	char		nulls[] = "               ";

	SPI_connect();
	args[0] = Int32GetDatum(backend_id);
	args[1] = tick_get_snapshot(position->before);
	args[2] = Int64GetDatum(position->before->last_id);
	args[3] = FullTransactionIdGetDatum(position->before->next_xid);
	args[4] = tick_get_snapshot(position->upto);
	args[5] = Int64GetDatum(position->upto->last_id);
	args[6] = FullTransactionIdGetDatum(position->upto->next_xid);
	args[7] = Int64GetDatum(position->settled_id);
	args[8] = Int64GetDatum(position->published);
	args[9] = Int64GetDatum(position->retried);
	args[10] = TimestampTzGetDatum(position->last_published_at);
	args[11] = BoolGetDatum(position->running);
	args[12] = Int32GetDatum(position->unclean_ends);
	args[13] = UUIDPGetDatum(&position->suspect);
	if (!position->has_suspect)
		nulls[13] = 'n';
	args[14] = PointerGetDatum(&position->row);
	if (position->last_published_at == 0)
		nulls[10] = 'n';

	if (!ItemPointerIsValid(&position->row) ||
		!run_save(&update_by_place, UPDATE_BY(BY_KEY " AND ctid OPERATOR(pg_catalog.=) " PLACE),
				  args, nulls, &position->row))
	{
		ItemPointerSetInvalid(&position->row);
		if (!run_save(&update_by_key, UPDATE_BY(BY_KEY " AND " PLACE " IS NOT NULL"),
					  args, nulls, &position->row) &&
			!run_save(&insert,
					  "INSERT INTO dispatch.positions (backend_id, " COLUMNS ")"
					  " SELECT $1, " PARAMETERS " WHERE " PLACE " IS NOT NULL"
					  " RETURNING ctid",
					  args, nulls, &position->row))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_EXCEPTION),
					 errmsg("a row of dispatch.positions could not be written"),
					 errhint("Look for a trigger on dispatch.positions that suppresses it.")));
	}
	SPI_finish();
}

/* ------------------------------------------------------------------------
 * Shared memory
 * ------------------------------------------------------------------------
 */

static void
share_tick(const Tick *tick, SharedTick *shared)
{
	shared->xmin = U64FromFullTransactionId(tick->xmin);
	shared->xmax = U64FromFullTransactionId(tick->xmax);
	shared->next_xid = U64FromFullTransactionId(tick->next_xid);
	shared->last_id = tick->last_id;
	shared->nxip = tick->nxip;
	memcpy(shared->xip, tick->xip,
		   Min(tick->nxip, SLOT_POSITION_XIPS) * sizeof(FullTransactionId));
}

static Tick *
tick_from_shared(const SharedTick *shared)
{
	Tick	   *tick = palloc0(offsetof(Tick, xip) + shared->nxip * sizeof(FullTransactionId));

	tick->refcount = 1;
	tick->xmin = FullTransactionIdFromU64(shared->xmin);
	tick->xmax = FullTransactionIdFromU64(shared->xmax);
	tick->next_xid = FullTransactionIdFromU64(shared->next_xid);
	tick->last_id = shared->last_id;
	tick->nxip = shared->nxip;
	memcpy(tick->xip, shared->xip, shared->nxip * sizeof(FullTransactionId));
	return tick;
}

void
position_share(const Position *position, SharedPosition *shared)
{
	share_tick(position->before, &shared->before);
	share_tick(position->upto, &shared->upto);
	shared->settled_id = position->settled_id;
	shared->outcomes_xid = U64FromFullTransactionId(position->outcomes_xid);
	shared->valid = shared->before.nxip <= SLOT_POSITION_XIPS &&
		shared->upto.nxip <= SLOT_POSITION_XIPS;
}

static bool
position_from_shared(const SharedPosition *shared, Position *position)
{
	if (!shared->valid)
		return false;
	memset(position, 0, sizeof(Position));
	position->before = tick_from_shared(&shared->before);
	position->upto = tick_from_shared(&shared->upto);
	position->settled_id = shared->settled_id;
	return true;
}

/*
 * A position that is newer than the snapshot must not be mixed with rows that
 * the snapshot does not see yet: an event that has failed would look delivered.
 */
static bool
is_of_snapshot(const SharedPosition *shared)
{
	FullTransactionId xid = FullTransactionIdFromU64(shared->outcomes_xid);

	return !shared->valid || !FullTransactionIdIsValid(xid) ||
		!XidInMVCCSnapshot(XidFromFullTransactionId(xid), GetActiveSnapshot());
}

void
position_current(int32 backend_id, Position *position)
{
	SharedPosition shared;
	WorkerSlot *slot = NULL;

	shared.valid = false;
	shared.outcomes_xid = 0;
	if (Slots != NULL)
	{
		LWLockAcquire(Slots->lock, LW_SHARED);
		slot = worker_slot_find(MyDatabaseId, backend_id);
		if (slot != NULL)
		{
			SpinLockAcquire(&slot->mutex);
			memcpy(&shared, &slot->report.position, sizeof(shared));
			SpinLockRelease(&slot->mutex);
		}
		LWLockRelease(Slots->lock);
	}
	if (!is_of_snapshot(&shared) || !position_from_shared(&shared, position))
		position_load(backend_id, position);
}

/* ------------------------------------------------------------------------
 * What is left
 * ------------------------------------------------------------------------
 */

int64
position_count_pending(int32 backend_id, const Position *position,
					   int64 maximum, TimestampTz *oldest)
{
	Tick	   *now = tick_take(GetActiveSnapshot(), catalog_get()->outbox_sequence);
	Cursor	   *cursor;
	TimestampTz oldest_later = 0;
	int64		count;

	*oldest = 0;
	cursor = cursor_open(backend_id, position->before, position->upto, position->settled_id);
	count = cursor_count(cursor, maximum, oldest);
	cursor = cursor_open(backend_id, position->upto, now, PG_INT64_MIN);
	/* Enough to extrapolate from, where many are asked for. */
	maximum = Max(maximum - count, Min(maximum, CURSOR_LEAST_ESTIMATED));
	count += cursor_count(cursor, maximum, &oldest_later);
	if (*oldest == 0)
		*oldest = oldest_later;
	return count;
}
