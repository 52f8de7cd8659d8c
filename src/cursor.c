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

#include "access/xact.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "cursor_state.h"
#include "durability.h"
#include "outbox.h"

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
