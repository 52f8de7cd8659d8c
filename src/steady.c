/*-------------------------------------------------------------------------
 *
 * steady.c
 *	  How long something takes, by a clock that nobody sets.
 *
 * The time of day may be set back by years, and a delay that is counted by it
 * would then take years, or be over at once.  So whatever is waited for in the
 * memory of a process goes by this clock; only what is stored, or promised for
 * a time of day, goes by that of GetCurrentTimestamp().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <time.h>

#include "steady.h"

SteadyTime
steady_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (SteadyTime) now.tv_sec * 1000000 + now.tv_nsec / 1000 + 1;
}

SteadyTime
steady_in(long ms)
{
	return steady_now() + (SteadyTime) ms * 1000;
}

long
steady_ms_until(SteadyTime when)
{
	SteadyTime	left = when - steady_now();

	return left <= 0 ? 0 : (long) Min((left + 999) / 1000, INT_MAX);
}

bool
steady_is_past(SteadyTime since, long ms)
{
	return steady_now() - since > (SteadyTime) ms * 1000;
}
