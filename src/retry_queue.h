/*-------------------------------------------------------------------------
 *
 * retry_queue.h
 *	  Which events of a backend wait for another attempt, and in what order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_RETRY_QUEUE_H
#define DISPATCH_RETRY_QUEUE_H

#include "backends.h"
#include "exceptions.h"

/* Keys share counters: what shares one at most waits for the other. */
#define KEY_COUNTERS 4096

/* More open exceptions than this: the backend is blocked until they settle. */
#define RETRY_QUEUE_MAX 100000

typedef struct RetryQueue RetryQueue;

extern RetryQueue *retry_queue_create(void);	/* in the current context */
extern int	retry_queue_count(const RetryQueue *queue);
/* Were there more rows than RETRY_QUEUE_MAX when it was matched last? */
extern bool retry_queue_is_partial(const RetryQueue *queue);

/* Is there an event with a key of that hash? */
extern bool retry_queue_holds_key(const RetryQueue *queue, uint32 key_hash);

/*
 * Adds an event.  While it is busy (in a window, or without a row yet) it is
 * not picked.
 */
extern void retry_queue_add(RetryQueue *queue, const Exception *exception, bool busy);
/* What became of it, though it is busy still: its outcome is not stored. */
extern void retry_queue_note(RetryQueue *queue, const Exception *exception);
/* What became of it: it waits again, as it is now. */
extern void retry_queue_put_back(RetryQueue *queue, const Exception *exception);
extern void retry_queue_remove(RetryQueue *queue, const Exception *exception);

/*
 * Makes the queue agree with the rows there are; what is busy stays.  So does what
 * lies behind the last row, if there are more than RETRY_QUEUE_MAX: its key is held
 * up all the same.
 */
extern void retry_queue_match(RetryQueue *queue, List *exceptions);

/*
 * Picks events that may be tried now, as copies in the current memory
 * context, and marks them busy.  No delay is longer than longest_delay (ms).
 * *next_due is set to when the next one will be
 * due (0: none will without an outcome).
 */
extern List *retry_queue_pick(RetryQueue *queue, Ordering ordering, TimestampTz now,
							  long longest_delay, int maximum, TimestampTz *next_due);

#endif							/* DISPATCH_RETRY_QUEUE_H */
