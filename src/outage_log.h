/*-------------------------------------------------------------------------
 *
 * outage_log.h
 *	  What the server log is told of outages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_OUTAGE_LOG_H
#define DISPATCH_OUTAGE_LOG_H

#include "dispatch_transport.h"
#include "steady.h"

/* Starts as {0}; outlives the delivery that it is about. */
typedef struct OutageLog
{
	bool		is_on;			/* there is one, */
	SteadyTime	since;			/* since then, */
	DispatchErrorClass error_class; /* of this class, */
	bool		is_told;		/* that the log knows of */
	SteadyTime	told_at;		/* when it was told of one last, */
	DispatchErrorClass told_class;	/* of which class */
	SteadyTime	over_at;		/* when the last one was over */
	int			untold;			/* outages since then */
} OutageLog;

/* An attempt has failed. */
extern void outage_log_begin(OutageLog *outage, const char *backend,
							 DispatchErrorClass error_class, const char *error);
/* All is well. */
extern void outage_log_end(OutageLog *outage, const char *backend);

#endif							/* DISPATCH_OUTAGE_LOG_H */
