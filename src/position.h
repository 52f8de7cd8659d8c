/*-------------------------------------------------------------------------
 *
 * position.h
 *	  How far a backend is settled: the table dispatch.positions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_POSITION_H
#define DISPATCH_POSITION_H

#include "datatype/timestamp.h"
#include "storage/itemptr.h"
#include "utils/uuid.h"

#include "slots.h"
#include "tick.h"

/*
 * All events that "before" sees are settled, and of those that "upto" sees
 * besides, the ones up to settled_id.
 */
typedef struct Position
{
	Tick	   *before;
	Tick	   *upto;
	int64		settled_id;
	FullTransactionId outcomes_xid; /* last transaction that stored outcomes of
								 * events with it; not stored itself */
	int64		published;		/* events delivered, ever */
	int64		retried;		/* failed attempts that were repeated */
	TimestampTz last_published_at;	/* 0: never */
	bool		running;		/* no worker has said that it ended */
	int			unclean_ends;	/* workers that have ended here without a word */
	bool		has_suspect;	/* the event that was being sent then: */
	pg_uuid_t	suspect;
	ItemPointerData row;		/* where it was stored last; invalid: unknown */
} Position;

/*
 * Reads the stored position, in the current memory context; where none is
 * stored, nothing is settled.  In a transaction.
 */
extern void position_load(int32 backend_id, Position *position);

/* Stores it, in the current transaction. */
extern void position_save(int32 backend_id, Position *position);

/* The form that is kept in shared memory. */
extern void position_share(const Position *position, SharedPosition *shared);

/*
 * The newest position that anybody knows of: the worker's, from shared memory,
 * else the stored one.  In a transaction.
 */
extern void position_current(int32 backend_id, Position *position);

/*
 * Counts the events that are not settled and that the active snapshot sees,
 * exactly up to a maximum; *oldest is the first one's created_at, else 0.
 */
extern int64 position_count_pending(int32 backend_id, const Position *position,
									int64 maximum, TimestampTz *oldest);

#endif							/* DISPATCH_POSITION_H */
