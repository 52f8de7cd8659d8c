/*-------------------------------------------------------------------------
 *
 * announce.c
 *	  What SQL calls to tell sessions and our processes of changes to our tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/inval.h"

#include "exceptions.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(dispatch_announce_change);
PG_FUNCTION_INFO_V1(dispatch_announce_exceptions);

/* A trigger of dispatch.backends and dispatch.event_types. */
Datum
dispatch_announce_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("dispatch.announce_change() must be called by a trigger")));

	/* At commit: sessions forget what they know, and our processes look. */
	CacheInvalidateRelcache(trigger->tg_relation);
	wake_all_at_commit();
	return PointerGetDatum(NULL);
}

/* Rows of dispatch.exceptions were changed by somebody else than a worker. */
Datum
dispatch_announce_exceptions(PG_FUNCTION_ARGS)
{
	exceptions_announce();
	wake_all_at_commit();
	PG_RETURN_VOID();
}
