/*-------------------------------------------------------------------------
 *
 * retention.h
 *	  Emptying the outbox: the ring of segments, the table dispatch.segments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RETENTION_H
#define RETENTION_H

#include "nodes/pg_list.h"

/*
 * Opens the segment that publish() is to append to, if none is open, and the
 * next one when its time has come and an empty one is there.  Returns which one
 * is current, to be announced once the transaction has committed.
 */
extern int	retention_rotate(void);

/*
 * Empties one closed segment that is old enough and holds nothing that any of
 * the backends (List of Backend) still needs; notes for the others what they
 * wait for.  Nobody waits for this: where a lock is not to be had at once, it
 * is tried again later.
 */
extern void retention_empty(List *backends);

/* Gives up dead letters that are too old, and forgets what was given up. */
extern void retention_expire(void);

#endif							/* RETENTION_H */
