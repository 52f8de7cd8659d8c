/*-------------------------------------------------------------------------
 *
 * cursor.c
 *	  Reading the events of a backend in order, each exactly once.
 *
 * A cursor stands between two ticks (see tick.c) and hands out, by id, what
 * the newer one sees and the older one does not; then a new tick is taken.
 *
 * Invariants
 *	 1. Each event that commits is between exactly one pair of neighbouring
 *		ticks.
 *	 2. Between two ticks events come in the order of their ids, and all of an
 *		earlier pair come before any of a later one.  So if A had committed
 *		before B got hold of a lock and published, A's event is first.
 *	 3. (before, upto, id of the last event) is all that a cursor is: one that
 *		is opened with them reads on where the other stopped, also after a
 *		crash, for the commit that stores them comes after everything that
 *		they call finished.
 *	 4. What was read once is not looked at again: new events are a range of
 *		the index (backend_id, id); late ones are looked up one transaction at
 *		a time in the index (backend_id, xid, id).  An hour-long transaction
 *		costs one probe a tick, not an hour of events.
 *
 * The indexes are read through the index access method, not by a query: a
 * plan that was made while the outbox was empty is a sequential scan with a
 * sort, and stays one for as long as the plan is kept.
 *
 * If somebody set the sequence back, the ids of the new events may be
 * anything: that once the whole index is read for them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "lib/binaryheap.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "compat.h"
#include "cursor.h"
#include "durability.h"
#include "late.h"
#include "outbox.h"

struct Cursor
{
	MemoryContext context;
	int32		backend_id;
	Tick	   *before;
	Tick	   *upto;
	int64		read_id;		/* of the last event handed out since "before" */
	bool		at_end;
	int64		next_read_id;	/* these two as they are once accepted */
	bool		next_at_end;
	bool		late_known;		/* is this set? */
	List	   *late;			/* of LateRun */
};

/* One of the sorted streams that are merged. */
typedef struct Source
{
	Relation	heap;
	Relation	index;
	IndexScanDesc scan;
	TupleTableSlot *row;
	bool		is_new;
	int64		id;				/* of the current row */
	FullTransactionId xid;
} Source;

typedef struct Merge
{
	Cursor	   *cursor;
	List	   *sources;
	binaryheap *heap;			/* of Source, the lowest id first */
} Merge;

Cursor *
cursor_open(int32 backend_id, Tick *before, Tick *upto, int64 after_id)
{
	Cursor	   *cursor = palloc0(sizeof(Cursor));

	cursor->context = CurrentMemoryContext;
	cursor->backend_id = backend_id;
	cursor->before = before;
	cursor->upto = upto;
	cursor->read_id = after_id;
	return cursor;
}

void
cursor_close(Cursor *cursor)
{
	tick_free(cursor->before);
	tick_free(cursor->upto);
	list_free_deep(cursor->late);
	pfree(cursor);
}

Tick *
cursor_before(const Cursor *cursor)
{
	return cursor->before;
}

Tick *
cursor_upto(const Cursor *cursor)
{
	return cursor->upto;
}

bool
cursor_at_end(const Cursor *cursor)
{
	return cursor->at_end;
}

bool
cursor_advance(Cursor *cursor, uint32 flush_request)
{
	MemoryContext old = MemoryContextSwitchTo(cursor->context);
	Tick	   *tick;

	Assert(cursor->at_end);
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		elog(ERROR, "a cursor must not be moved by a transaction with an xid");

	tick = tick_take(GetActiveSnapshot(), catalog_get()->outbox_sequence);
	tick->flush_request = flush_request;
	MemoryContextSwitchTo(old);

	if (tick_equal(tick, cursor->upto))
	{
		cursor->upto->flush_request = flush_request;
		tick_free(tick);
		return false;
	}

	if (tick->last_id < cursor->upto->last_id)
		ereport(WARNING,
				(errmsg("sequence \"dispatch.outbox_id_seq\" went back from %lld to %lld",
						(long long) cursor->upto->last_id, (long long) tick->last_id),
				 errdetail("No event is lost by this, but reading takes long this time.")));

	tick_free(cursor->before);
	cursor->before = cursor->upto;
	cursor->upto = tick;
	cursor->read_id = PG_INT64_MIN;
	cursor->at_end = false;
	cursor->late_known = false;
	return true;
}

/* ------------------------------------------------------------------------
 * Merging
 * ------------------------------------------------------------------------
 */

static int
compare_sources(Datum a, Datum b, void *arg)
{
	int64		x = ((Source *) DatumGetPointer(a))->id;
	int64		y = ((Source *) DatumGetPointer(b))->id;

	return x < y ? 1 : x > y ? -1 : 0;	/* binaryheap has the largest first */
}

/* Takes in the row of a source.  Is it one for this cursor to hand out? */
static bool
source_take_row(const Cursor *cursor, Source *source)
{
	bool		isnull;

	source->xid = DatumGetFullTransactionId(slot_getattr(source->row, OUTBOX_XID, &isnull));
	source->id = DatumGetInt64(slot_getattr(source->row, OUTBOX_ID, &isnull));
	if (source->is_new && FullTransactionIdPrecedes(source->xid, cursor->before->next_xid))
		return false;			/* late, or of an earlier tick */
	return tick_sees(cursor->upto, source->xid);
}

/* Moves to the next row of a source; false at its end. */
static bool
source_next(const Cursor *cursor, Source *source)
{
	while (index_getnext_slot(source->scan, ForwardScanDirection, source->row))
	{
		CHECK_FOR_INTERRUPTS();
		if (source_take_row(cursor, source))
			return true;
	}
	return false;
}

static void
source_close(Source *source)
{
	ExecDropSingleTupleTableSlot(source->row);
	index_endscan(source->scan);
	index_close(source->index, AccessShareLock);
	table_close(source->heap, AccessShareLock);
	pfree(source);
}

/* Adds a source, unless it is empty. */
static void
merge_add(Merge *merge, int segment, bool is_new, ScanKey keys, int nkeys)
{
	const Catalog *catalog = catalog_get();
	Relation	heap = table_open(catalog->segments[segment], AccessShareLock);
	Source	   *source;

	if (RelationGetNumberOfBlocks(heap) == 0)
	{
		table_close(heap, AccessShareLock);
		return;
	}
	source = palloc0_object(Source);
	source->heap = heap;
	source->index = index_open(is_new ? catalog->new_indexes[segment] :
							   catalog->late_indexes[segment], AccessShareLock);
	source->is_new = is_new;
	source->row = table_slot_create(heap, NULL);
	source->scan = index_beginscan(heap, source->index, GetActiveSnapshot(), NULL, nkeys, 0);
	index_rescan(source->scan, keys, nkeys, NULL, 0);
	if (source_next(merge->cursor, source))
		merge->sources = lappend(merge->sources, source);
	else
		source_close(source);
}

static void
learn_late(Cursor *cursor)
{
	MemoryContext old = MemoryContextSwitchTo(cursor->context);

	list_free_deep(cursor->late);
	cursor->late = NIL;
	cursor->late = late_find(cursor->backend_id, cursor->before, cursor->upto);
	cursor->late_known = true;
	MemoryContextSwitchTo(old);
}

static void
merge_open(Merge *merge, Cursor *cursor)
{
	int64		after = cursor->read_id;
	int64		last = cursor->upto->last_id;
	ScanKeyData keys[3];
	ListCell   *lc;

	if (!cursor->late_known)
		learn_late(cursor);
	merge->cursor = cursor;
	merge->sources = NIL;

	if (last < cursor->before->last_id)
		last = PG_INT64_MAX;	/* set back: ids tell nothing, xids do */
	else
		after = Max(after, cursor->before->last_id);

	ScanKeyInit(&keys[0], NEW_INDEX_BACKEND_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(cursor->backend_id));
	ScanKeyInit(&keys[1], NEW_INDEX_ID, BTGreaterStrategyNumber,
				F_INT8GT, Int64GetDatum(after));
	ScanKeyInit(&keys[2], NEW_INDEX_ID, BTLessEqualStrategyNumber,
				F_INT8LE, Int64GetDatum(last));
	if (after < last)
		for (int i = 0; i < OUTBOX_SEGMENTS; i++)
			merge_add(merge, i, true, keys, 3);

	foreach(lc, cursor->late)
	{
		LateRun    *run = lfirst(lc);

		ScanKeyInit(&keys[1], LATE_INDEX_XID, BTEqualStrategyNumber,
					F_XID8EQ, FullTransactionIdGetDatum(run->xid));
		ScanKeyInit(&keys[2], LATE_INDEX_ID, BTGreaterStrategyNumber,
					F_INT8GT, Int64GetDatum(cursor->read_id));
		merge_add(merge, run->segment, false, keys, 3);
	}

	merge->heap = binaryheap_allocate(Max(list_length(merge->sources), 1),
									  compare_sources, NULL);
	foreach(lc, merge->sources)
		binaryheap_add_unordered(merge->heap, PointerGetDatum(lfirst(lc)));
	binaryheap_build(merge->heap);
}

/* The source whose current row is next; NULL at the end. */
static Source *
merge_first(Merge *merge)
{
	if (binaryheap_empty(merge->heap))
		return NULL;
	return (Source *) DatumGetPointer(binaryheap_first(merge->heap));
}

/* Goes past the first row. */
static void
merge_next(Merge *merge)
{
	Source	   *source = merge_first(merge);

	if (source_next(merge->cursor, source))
		binaryheap_replace_first(merge->heap, PointerGetDatum(source));
	else
		binaryheap_remove_first(merge->heap);
}

static void
merge_close(Merge *merge)
{
	ListCell   *lc;

	foreach(lc, merge->sources)
		source_close(lfirst(lc));
	list_free(merge->sources);
	binaryheap_free(merge->heap);
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

void
cursor_read(Cursor *cursor, bool (*take) (Event *event, void *arg), void *arg,
			XLogRecPtr *lsn)
{
	Merge		merge;
	Source	   *source;
	FullTransactionId xid = InvalidFullTransactionId;
	bool		wants_more = true;

	merge_open(&merge, cursor);
	cursor->next_read_id = cursor->read_id;
	while ((source = merge_first(&merge)) != NULL)
	{
		/* Equal ids exist if the sequence was set back: never part them. */
		if (!wants_more && source->id != cursor->next_read_id)
			break;

		cursor->next_read_id = source->id;
		if (!FullTransactionIdEquals(xid, source->xid))
		{
			xid = source->xid;
			*lsn = Max(*lsn, durability_commit_lsn(xid));
		}
		wants_more = take(outbox_read_event(source->row), arg);
		merge_next(&merge);
	}
	cursor->next_at_end = source == NULL;
	merge_close(&merge);
}

void
cursor_accept(Cursor *cursor)
{
	cursor->read_id = cursor->next_read_id;
	cursor->at_end = cursor->next_at_end;
}

/* ------------------------------------------------------------------------
 * Counting
 * ------------------------------------------------------------------------
 */

/*
 * Of so many entries of an index, one row is looked at.  A prime number, or it might
 * keep step with what every second or tenth event has in common.
 */
#define SAMPLE_INTERVAL 61

/* Entries of the index from one event on, as they were counted. */
typedef struct Sample
{
	int64		entries;
	int64		rows;			/* looked at */
	int64		hits;			/* of them, events that are left */
	int64		first_id;
	int64		last_id;
} Sample;

/* Counts the entries behind the current row of a source, but not for ever. */
static void
sample_source(Sample *sample, const Cursor *cursor, Source *source, int64 maximum)
{
	while (sample->entries < maximum &&
		   index_getnext_tid(source->scan, ForwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (++sample->entries % SAMPLE_INTERVAL != 0)
			continue;
		sample->rows++;
		if (!index_fetch_heap(source->scan, source->row) || !source_take_row(cursor, source))
			continue;
		sample->hits++;
		sample->last_id = source->id;
	}
}

/* From the density of so many events between these ids, how many there are up to the last. */
static int64
extrapolate(const Cursor *cursor, double count, int64 first_id, int64 id)
{
	int64		rest = Max(cursor->upto->last_id - id, 0);

	return (int64) (count + rest * (count / (id - first_id + 1)));
}

/*
 * An estimate, or -1 if there may be no more than the maximum.  To go through the
 * index costs a tenth of what the rows cost.  Those of an open transaction, or of
 * one that was rolled back, have entries, too: if the rows that are looked at show
 * many of them, there is no saying.
 */
static int64
estimate_count(Cursor *cursor, int64 maximum, TimestampTz *oldest)
{
	Merge		merge;
	Source	   *source;
	Sample		sample = {0};
	int64		enough = maximum + maximum / 2;
	bool		isnull;

	merge_open(&merge, cursor);
	source = merge_first(&merge);
	if (source != NULL)
	{
		*oldest = DatumGetTimestampTz(slot_getattr(source->row, OUTBOX_CREATED_AT, &isnull));
		sample.first_id = sample.last_id = source->id;
	}
	/* One segment after the other: they were filled in turn. */
	while (sample.entries < enough && (source = merge_first(&merge)) != NULL)
	{
		sample_source(&sample, cursor, source, enough);
		binaryheap_remove_first(merge.heap);
	}
	merge_close(&merge);
	if (sample.entries < enough || sample.rows == 0 || sample.hits * 4 < sample.rows * 3)
		return -1;
	return extrapolate(cursor, (double) sample.entries * sample.hits / sample.rows,
					   sample.first_id, sample.last_id);
}

/* Exactly, up to the maximum. */
static int64
count_rows(Cursor *cursor, int64 maximum, TimestampTz *oldest)
{
	Merge		merge;
	Source	   *source;
	int64		count = 0;
	int64		first_id = 0;
	int64		id = 0;

	merge_open(&merge, cursor);
	while (count < maximum && (source = merge_first(&merge)) != NULL)
	{
		bool		isnull;

		if (count++ == 0)
		{
			first_id = source->id;
			*oldest = DatumGetTimestampTz(slot_getattr(source->row, OUTBOX_CREATED_AT, &isnull));
		}
		id = source->id;
		merge_next(&merge);
	}
	/* Above the maximum: as many more as there would be at the same density. */
	if (merge_first(&merge) != NULL)
		count = extrapolate(cursor, count, first_id, id);
	merge_close(&merge);
	return count;
}

int64
cursor_count(Cursor *cursor, int64 maximum, TimestampTz *oldest)
{
	int64		count = estimate_count(cursor, maximum, oldest);

	return count >= 0 ? count : count_rows(cursor, maximum, oldest);
}
