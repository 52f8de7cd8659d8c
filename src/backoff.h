/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long to wait before the next attempt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_BACKOFF_H
#define DISPATCH_BACKOFF_H

/*
 * The delay in ms after "failures" failures in a row (1 after the first): base
 * times two to the failures - 1, at most max, of which a random half to all is
 * taken, so that many who failed together do not come back together.
 */
extern long backoff_delay(int failures, long base, long max);

#endif							/* DISPATCH_BACKOFF_H */
