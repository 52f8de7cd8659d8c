/*-------------------------------------------------------------------------
 *
 * backoff.h
 *	  How long to wait before the next attempt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BACKOFF_H
#define BACKOFF_H

/*
 * The delay in ms after "failures" failures in a row (1 after the first): base
 * times two to the failures - 1, at most max, of which a random half to all is
 * taken, so that many who failed together do not come back together.
 */
extern long backoff_delay(int failures, long base, long max);

#endif							/* BACKOFF_H */
