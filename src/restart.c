/*-------------------------------------------------------------------------
 *
 * restart.c
 *	  When a process that ended by itself may be started again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "backoff.h"
#include "restart.h"

/* Delays (ms) before that. */
#define RESTART_DELAY 500
#define RESTART_MAX_DELAY 60000
/* One that ran for this long (ms) was a good one. */
#define GOOD_RUN 10000

void
restart_note_start(Restart *restart)
{
	restart->started_at = steady_now();
	restart->next_at = 0;
}

SteadyTime
restart_next(Restart *restart)
{
	if (restart->started_at != 0 && restart->next_at == 0)
	{
		restart->failures =
			steady_is_past(restart->started_at, GOOD_RUN) ? 1 : restart->failures + 1;
		restart->next_at = steady_in(backoff_delay(restart->failures, RESTART_DELAY,
												   RESTART_MAX_DELAY));
	}
	return restart->next_at;
}
