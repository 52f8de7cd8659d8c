/*-------------------------------------------------------------------------
 *
 * late.h
 *	  Transactions whose events come late, found by their xids.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_LATE_H
#define DISPATCH_LATE_H

#include "nodes/pg_list.h"

#include "tick.h"

/* A late transaction's events in one segment. */
typedef struct LateRun
{
	int			segment;
	FullTransactionId xid;
} LateRun;

/*
 * The late transactions between two ticks that have events of a backend, as a
 * List of LateRun in the current memory context.  Needs an active snapshot.
 */
extern List *late_find(int32 backend_id, const Tick *before, const Tick *upto);

/*
 * Does a segment hold events of a backend, committed or not, of transactions
 * that had not finished when the tick was taken?
 */
extern bool late_segment_has(int32 backend_id, const Tick *tick, int segment);

#endif							/* DISPATCH_LATE_H */
