/*-------------------------------------------------------------------------
 *
 * schedule.h
 *	  Events that are to be sent later: the table dispatch.scheduled.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SCHEDULE_H
#define SCHEDULE_H

#include "datatype/timestamp.h"

/*
 * Moves events that are due into the outbox, in the current transaction;
 * returns when the next ones are due, 0 if there are none.
 */
extern TimestampTz schedule_release(void);

/* How many events of a backend wait for their time. */
extern int64 schedule_count(int32 backend_id);

#endif							/* SCHEDULE_H */
