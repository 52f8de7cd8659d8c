/*-------------------------------------------------------------------------
 *
 * steady.h
 *	  How long something takes, by a clock that nobody sets.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_STEADY_H
#define DISPATCH_STEADY_H

/*
 * Microseconds since some moment of the past, the same one for all processes of
 * a machine; positive, so that 0 can mean never.  Not a TimestampTz.
 */
typedef int64 SteadyTime;

extern SteadyTime steady_now(void);

/* The moment that is so many milliseconds away. */
extern SteadyTime steady_in(long ms);

/* How long it is until then, in milliseconds; 0 if it is past. */
extern long steady_ms_until(SteadyTime when);

/* Is it longer ago than that? */
extern bool steady_is_past(SteadyTime since, long ms);

#endif							/* DISPATCH_STEADY_H */
