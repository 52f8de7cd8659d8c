/*-------------------------------------------------------------------------
 *
 * ward.h
 *	  The backends that a manager looks after, and their workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_WARD_H
#define DISPATCH_WARD_H

#include "access/transam.h"
#include "nodes/pg_list.h"

#include "backends.h"
#include "restart.h"
#include "slots.h"
#include "steady.h"

/* What the manager remembers of a backend. */
typedef struct Ward
{
	int32		backend_id;
	TransactionId version;		/* of its row when it was looked at last */
	Restart		restart;		/* of its worker */
	bool		is_drained;		/* being dropped, and all is delivered */
	FullTransactionId dropped_before;	/* who began before may publish to it */
	SteadyTime	dropped_at;		/* when that was noted; 0: not being dropped */
} Ward;

extern Ward *ward_of(const Backend *backend);	/* made if need be */
extern void wards_forget_except(List *backends);

/* Starts, and asks to end, so that each backend has the worker it should have. */
extern void wards_match_workers(List *backends, DatabaseSlot *database,
								const char *database_name);

#endif							/* DISPATCH_WARD_H */
