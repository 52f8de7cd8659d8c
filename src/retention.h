/*-------------------------------------------------------------------------
 *
 * retention.h
 *	  Emptying the outbox: the ring of segments, the table dispatch.segments.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_RETENTION_H
#define DISPATCH_RETENTION_H

/* All are steps for session_run(). */

/*
 * Opens the segment that publish() is to append to, if none is open, and the
 * next one when its time has come and an empty one is there.  arg is an int *,
 * set to the one that is current, to be announced after the commit.
 */
extern void retention_rotate(void *arg);

/*
 * Empties one closed segment that is old enough and holds nothing that any
 * backend (arg is a List of Backend) still needs; notes for the others what they
 * wait for.  Nobody waits for this: where a lock is not to be had at once, it
 * is tried again later.
 */
extern void retention_empty(void *arg);

/* Gives up dead letters that are too old, and forgets what was given up. */
extern void retention_expire(void *arg);

#endif							/* DISPATCH_RETENTION_H */
