/*-------------------------------------------------------------------------
 *
 * schedule.h
 *	  Events that are to be sent later: the table dispatch.scheduled.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_SCHEDULE_H
#define DISPATCH_SCHEDULE_H

#include "datatype/timestamp.h"

/*
 * A step for session_run(): moves events that are due into the outbox.  arg is
 * a TimestampTz *, set to when the next ones are due, 0 if there are none.
 */
extern void schedule_release(void *arg);

/* Moves all that are due, in the current transaction. */
extern void schedule_release_all(void);

/* How many events of a backend wait for their time. */
extern int64 schedule_count(int32 backend_id);

#endif							/* DISPATCH_SCHEDULE_H */
