/*-------------------------------------------------------------------------
 *
 * status.c
 *	  What views tell: workers, positions, what is pending.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "backends.h"
#include "position.h"
#include "report.h"
#include "settings.h"
#include "slots.h"

PG_FUNCTION_INFO_V1(dispatch_workers);
PG_FUNCTION_INFO_V1(dispatch_pending);
PG_FUNCTION_INFO_V1(dispatch_position);
PG_FUNCTION_INFO_V1(dispatch_identity);
PG_FUNCTION_INFO_V1(dispatch_why_no_worker);

/* Above this the number of pending events is an estimate. */
#define PENDING_EXACT 10000

static void
set_timestamp(Datum *values, bool *nulls, int column, TimestampTz value)
{
	nulls[column] = value == 0;
	values[column] = TimestampTzGetDatum(value);
}

static void
set_latency(Datum *values, bool *nulls, int column, const WorkerReport *report, double fraction)
{
	int64		latency = report_latency(report, fraction);

	nulls[column] = latency < 0;
	if (latency >= 0)
	{
		Interval   *interval = palloc0_object(Interval);

		interval->time = latency;
		values[column] = IntervalPGetDatum(interval);
	}
}

/* Workers of this database, a row each. */
Datum
dispatch_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; Slots != NULL && i < Slots->nslots; i++)
	{
		WorkerSlot *slot = &Slots->workers[i];
		WorkerReport report;
		int32		backend_id;
		int			pid;
		bool		ours;
		Datum		values[14];
		bool		nulls[14] = {0};
		int			n = 0;

		LWLockAcquire(Slots->lock, LW_SHARED);
		ours = slot->database == MyDatabaseId && slot->pid != 0;
		backend_id = slot->backend_id;
		pid = slot->pid;
		SpinLockAcquire(&slot->mutex);
		memcpy(&report, &slot->report, sizeof(report));
		SpinLockRelease(&slot->mutex);
		LWLockRelease(Slots->lock);
		if (!ours)
			continue;

		values[n++] = Int32GetDatum(backend_id);
		values[n++] = Int32GetDatum(pid);
		values[n++] = CStringGetTextDatum(worker_state_names[report.state]);
		values[n++] = Int32GetDatum(report.in_flight);
		values[n++] = Float8GetDatum(report.rate);
		values[n++] = Int64GetDatum(report.published);
		values[n++] = Int64GetDatum(report.retried);
		set_timestamp(values, nulls, n++, report.last_published_at);
		set_latency(values, nulls, n++, &report, 0.50);
		set_latency(values, nulls, n++, &report, 0.95);
		set_latency(values, nulls, n++, &report, 0.99);
		nulls[n] = report.last_error_at == 0;
		values[n++] = CStringGetTextDatum(report.last_error);
		set_timestamp(values, nulls, n++, report.last_error_at);
		set_timestamp(values, nulls, n++, report.next_attempt_at);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* How many events of a backend are not settled, and since when the oldest. */
Datum
dispatch_pending(PG_FUNCTION_ARGS)
{
	int32		backend_id = PG_GETARG_INT32(0);
	TupleDesc	desc;
	Position	position;
	TimestampTz oldest;
	Datum		values[2];
	bool		nulls[2] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	position_current(backend_id, &position);
	values[0] = Int64GetDatum(position_count_pending(backend_id, &position,
													 PENDING_EXACT, &oldest));
	set_timestamp(values, nulls, 1, oldest);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* How far a backend is settled: (before, upto, settled_id). */
Datum
dispatch_position(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Position	position;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	position_current(PG_GETARG_INT32(0), &position);
	values[0] = tick_get_snapshot(position.before);
	values[1] = tick_get_snapshot(position.upto);
	values[2] = Int64GetDatum(position.settled_id);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

Datum
dispatch_identity(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(backends_identity()));
}

/* Why a backend that should have a worker has none. */
Datum
dispatch_why_no_worker(PG_FUNCTION_ARGS)
{
	DatabaseSlot *slot;
	const char *why;

	if (Slots == NULL)
		PG_RETURN_TEXT_P(cstring_to_text("not preloaded"));

	LWLockAcquire(Slots->lock, LW_SHARED);
	slot = database_slot_find(MyDatabaseId);
	if (!setting_enabled)
		why = "disabled";
	else if (!settings_allow_cluster())
		why = "other cluster";
	else if (slot != NULL && slot->out_of_workers)
		why = "no worker slot";
	else
		why = "starting";
	LWLockRelease(Slots->lock);
	PG_RETURN_TEXT_P(cstring_to_text(why));
}
