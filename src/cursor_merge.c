/*-------------------------------------------------------------------------
 *
 * cursor_merge.c
 *	  The rows of a backend between two ticks, merged by id.
 *
 * New events are a range of ids in each segment; late ones are a range for each
 * transaction.  All are sorted streams: the one whose row has the lowest id is next.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "compat.h"
#include "cursor_state.h"
#include "late.h"
#include "outbox.h"

static int
compare_sources(Datum a, Datum b, void *arg)
{
	int64		x = ((Source *) DatumGetPointer(a))->id;
	int64		y = ((Source *) DatumGetPointer(b))->id;

	return x < y ? 1 : x > y ? -1 : 0;	/* binaryheap has the largest first */
}

bool
source_take_row(const Cursor *cursor, Source *source)
{
	bool		isnull;

	source->xid = DatumGetFullTransactionId(slot_getattr(source->row, OUTBOX_XID, &isnull));
	source->id = DatumGetInt64(slot_getattr(source->row, OUTBOX_ID, &isnull));
	if (source->is_new && FullTransactionIdPrecedes(source->xid, cursor->before->next_xid))
		return false;			/* late, or of an earlier tick */
	return tick_sees(cursor->upto, source->xid);
}

bool
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

void
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

Source *
merge_first(const Merge *merge)
{
	if (binaryheap_empty(merge->heap))
		return NULL;
	return (Source *) DatumGetPointer(binaryheap_first(merge->heap));
}

void
merge_next(Merge *merge)
{
	Source	   *source = merge_first(merge);

	if (source_next(merge->cursor, source))
		binaryheap_replace_first(merge->heap, PointerGetDatum(source));
	else
		binaryheap_remove_first(merge->heap);
}

void
merge_close(Merge *merge)
{
	ListCell   *lc;

	foreach(lc, merge->sources)
		source_close(lfirst(lc));
	list_free(merge->sources);
	binaryheap_free(merge->heap);
}
