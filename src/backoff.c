/*-------------------------------------------------------------------------
 *
 * backoff.c
 *	  How long to wait before the next attempt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "backoff.h"

long
backoff_delay(int failures, long base, long max)
{
	long		delay = Min(base, max);

	for (int i = 1; i < failures && delay < max; i++)
		delay = delay > max / 2 ? max : delay * 2;
	return delay / 2 + (long) (pg_prng_double(&pg_global_prng_state) * (delay - delay / 2));
}
