/*-------------------------------------------------------------------------
 *
 * cursor_state.h
 *	  What a cursor is, to the files that it is made of.
 *
 *	cursor.c			standing and reading
 *	cursor_merge.c		the rows between two ticks, merged by id
 *	cursor_count.c		how many there are
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_CURSOR_STATE_H
#define DISPATCH_CURSOR_STATE_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "lib/binaryheap.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

#include "cursor.h"

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

/* Takes in the row of a source.  Is it one for this cursor to hand out? */
extern bool source_take_row(const Cursor *cursor, Source *source);
/* Moves to the next row of a source; false at its end. */
extern bool source_next(const Cursor *cursor, Source *source);

/* Opens all sources that have a row. */
extern void merge_open(Merge *merge, Cursor *cursor);
/* The source whose current row is next; NULL at the end. */
extern Source *merge_first(const Merge *merge);
/* Goes past the first row. */
extern void merge_next(Merge *merge);
extern void merge_close(Merge *merge);

#endif							/* DISPATCH_CURSOR_STATE_H */
