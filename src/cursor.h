/*-------------------------------------------------------------------------
 *
 * cursor.h
 *	  Reading the events of a backend in order, each exactly once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_CURSOR_H
#define DISPATCH_CURSOR_H

#include "nodes/pg_list.h"

#include "event.h"
#include "tick.h"

typedef struct Cursor Cursor;

/*
 * A cursor in the current memory context.  It starts between two ticks, of
 * which it takes over the references, after the event with id after_id.
 */
extern Cursor *cursor_open(int32 backend_id, Tick *before, Tick *upto, int64 after_id);

extern void cursor_close(Cursor *cursor);

/* The two ticks that it is between; valid until cursor_advance(). */
extern Tick *cursor_before(const Cursor *cursor);
extern Tick *cursor_upto(const Cursor *cursor);

/* Has all between the two ticks been read? */
extern bool cursor_at_end(const Cursor *cursor);

/*
 * Takes a new tick and moves on to it; at_end only.  False if no transaction
 * has finished since the last one.  In a transaction without an xid.
 */
extern bool cursor_advance(Cursor *cursor, uint32 flush_request);

/*
 * Reads on from where the last accepted read stopped.  Calls take() for each
 * event, which is allocated in the current context, until that wants no more;
 * of events with the same id it gets all the same.  Raises *lsn to where WAL
 * must be flushed before any of them may leave the machine.  Needs a
 * transaction with an active snapshot that is no older than the newer tick.
 */
extern void cursor_read(Cursor *cursor, bool (*take) (Event *event, void *arg), void *arg,
						XLogRecPtr *lsn);

/*
 * The events that were read last are in safe hands.  Without this, as after an
 * error, they are read again.
 */
extern void cursor_accept(Cursor *cursor);

/* Below that maximum, all rows are counted: a sample would be of too few. */
#define CURSOR_LEAST_ESTIMATED 5000

/*
 * Counts the events that are left, exactly up to a maximum, beyond it by an
 * estimate; *oldest is set to created_at of the first, if there is one.
 */
extern int64 cursor_count(Cursor *cursor, int64 maximum, TimestampTz *oldest);

#endif							/* DISPATCH_CURSOR_H */
