/*-------------------------------------------------------------------------
 *
 * outage_log.c
 *	  What the server log is told of outages.
 *
 * Once an outage, not once an attempt, and not once an event; and where outages
 * of a moment follow each other, as when a network flaps, of one now and then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "error_class.h"
#include "outage_log.h"
#include "settings.h"

/* An outage shorter than this (ms), as soon after another, is of a moment. */
#define MOMENT 1000

/* How often (ms) the log hears of such. */
#define OUTAGE_LOG_INTERVAL 10000

void
outage_log_begin(OutageLog *outage, const char *backend,
				 DispatchErrorClass error_class, const char *error)
{
	SteadyTime	now = steady_now();
	int64		moment = MOMENT * INT64CONST(1000);

	if (!outage->is_on || outage->error_class != error_class)
	{
		outage->since = now;
		outage->untold++;
		outage->is_told = false;
	}
	outage->is_on = true;
	outage->error_class = error_class;
	if (outage->is_told ||
		(outage->told_class == error_class &&
		 outage->since - outage->over_at < moment && now - outage->since < moment &&
		 now - outage->told_at < OUTAGE_LOG_INTERVAL * INT64CONST(1000)))
		return;
	worker_log(WARNING,
			   (errmsg("backend \"%s\": %s", backend, error),
				outage->untold == 1 ?
				errdetail("Events wait; none counts this as an attempt.") :
				errdetail("Events wait; none counts this as an attempt.  It is the %dth outage since the last such message.",
						  outage->untold),
				!error_policy(error_class)->needs_operator ? 0 :
				errhint("Mend it with dispatch.alter_backend(), or at the broker.")));
	outage->is_told = true;
	outage->told_at = now;
	outage->told_class = error_class;
	outage->untold = 0;
}

void
outage_log_end(OutageLog *outage, const char *backend)
{
	if (!outage->is_on)
		return;
	if (outage->is_told)
		worker_log(LOG, (errmsg("backend \"%s\": the broker is back", backend)));
	outage->is_on = outage->is_told = false;
	outage->over_at = steady_now();
}
