/*-------------------------------------------------------------------------
 *
 * tick.h
 *	  Moments between which events are read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_TICK_H
#define DISPATCH_TICK_H

#include "access/transam.h"
#include "utils/snapshot.h"

/*
 * What was visible at some moment.  All numbers of transactions are 64 bits
 * wide and top-level.
 */
typedef struct Tick
{
	int			refcount;
	FullTransactionId xmin;		/* all before are finished */
	FullTransactionId xmax;		/* none from here on is finished */
	FullTransactionId next_xid; /* none from here on had been assigned, after
								 * last_id was read */
	int64		last_id;		/* of the outbox's sequence, read after the
								 * snapshot; 0: none */
	uint32		flush_request;	/* newest flush() that this tick covers */
	int			nxip;
	FullTransactionId xip[FLEXIBLE_ARRAY_MEMBER];	/* in progress, sorted */
} Tick;

/*
 * A tick of that snapshot and now, in the current memory context, with a
 * reference.  A cursor must not move by a tick of a transaction that has an
 * xid of its own: it would call the own transaction finished.
 */
extern Tick *tick_take(Snapshot snapshot, Oid sequence);

/* The tick before all others: sees nothing. */
extern Tick *tick_of_nothing(void);

/* To and from what the table dispatch.positions holds. */
extern Datum tick_get_snapshot(const Tick *tick);	/* pg_snapshot */
extern Tick *tick_make(Datum snapshot, int64 last_id, FullTransactionId next_xid);

extern Tick *tick_copy(Tick *tick); /* another reference */
extern void tick_free(Tick *tick);	/* lets a reference go */

/* Had the transaction finished (committed or not) when the tick was taken? */
extern bool tick_sees(const Tick *tick, FullTransactionId xid);

/* Do both see the very same transactions? */
extern bool tick_equal(const Tick *a, const Tick *b);

#endif							/* DISPATCH_TICK_H */
