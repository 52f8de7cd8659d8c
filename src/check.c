/*-------------------------------------------------------------------------
 *
 * check.c
 *	  dispatch.check_backend(): connects to a backend's broker now.
 *
 * A process of its own connects, for a client library must not get into
 * somebody's session: it may start threads, or take the session down with it.
 * The answer comes back through dynamic shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

#include "backends.h"
#include "check.h"
#include "delivery.h"
#include "session.h"
#include "slots.h"

PG_FUNCTION_INFO_V1(dispatch_check_backend);

/* No broker needs longer, whatever its transport's own timeouts are (ms). */
#define CHECK_TIMEOUT 60000

typedef struct CheckArgs
{
	Oid			database;
	int32		backend_id;
	dsm_handle	answer;
} CheckArgs;

typedef struct CheckAnswer
{
	bool		ok;
	int64		elapsed;		/* microseconds */
	char		detail[ERROR_TEXT_LEN];
} CheckAnswer;

/* ------------------------------------------------------------------------
 * The process
 * ------------------------------------------------------------------------
 */

static Backend *backend;
static Delivery *delivery;

static void
ignore_delivered(const Entry *entry, TimestampTz when)
{
}

static void
prepare(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	backend = backends_read(*(int32 *) arg);
	if (backend != NULL)
		delivery = delivery_create(backend, retry_queue_create(), ignore_delivered);
	MemoryContextSwitchTo(old);
}

/* Pumps until the connection is ready, has failed, or takes too long. */
static void
try_connection(CheckAnswer *answer)
{
	SteadyTime	deadline = steady_in(CHECK_TIMEOUT);

	delivery->is_silent = true; /* the caller is told, not the log */
	strlcpy(answer->detail, "timed out", sizeof(answer->detail));
	while (steady_ms_until(deadline) > 0 && !session_stop_requested())
	{
		long		timeout;

		delivery_pump(delivery);
		if (delivery->state == DISPATCH_READY)
		{
			answer->ok = true;
			strlcpy(answer->detail, "connected", sizeof(answer->detail));
			break;
		}
		if (delivery->failures > 0)
		{
			strlcpy(answer->detail, delivery->error, sizeof(answer->detail));
			break;
		}
		timeout = delivery_timeout(delivery);
		session_wait(delivery->wait.fd, delivery->wait.events,
					 timeout < 0 ? 1000 : Min(timeout, 1000));
	}
	delivery_disconnect(delivery);
}

void
dispatch_check_main(Datum arg)
{
	CheckArgs	args;
	dsm_segment *segment;
	CheckAnswer *answer;
	const char *error;
	instr_time	start;
	instr_time	end;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	session_start(args.database);
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "dispatch check");
	segment = dsm_attach(args.answer);
	if (segment == NULL)
		proc_exit(0);			/* whoever asked has gone */
	dsm_pin_mapping(segment);
	answer = dsm_segment_address(segment);

	INSTR_TIME_SET_CURRENT(start);
	switch (session_run(prepare, &args.backend_id, &error))
	{
		case STEP_DONE:
			if (delivery != NULL)
				try_connection(answer);
			break;
		case STEP_NO_EXTENSION:
			break;
		case STEP_ERROR:
			error_text_copy(answer->detail, sizeof(answer->detail), error);
			break;
	}
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, start);
	answer->elapsed = (int64) INSTR_TIME_GET_MICROSEC(end);
	proc_exit(0);
}

/* ------------------------------------------------------------------------
 * The function
 * ------------------------------------------------------------------------
 */

/* The id of a backend; the caller needs the right to read dispatch.backends. */
static int32
find_backend(const char *name)
{
	Oid			argtype = TEXTOID;
	Datum		arg = CStringGetTextDatum(name);
	bool		isnull;
	int32		id;

	SPI_connect();
	SPI_execute_with_args("SELECT id FROM dispatch.backends"
						  " WHERE name OPERATOR(pg_catalog.=) $1 AND NOT dropping",
						  1, &argtype, &arg, NULL, true, 1);
	if (SPI_processed == 0)
		backends_report_missing(name);
	id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return id;
}

/* Runs the process, and waits for its end. */
static void
run_check(const CheckArgs *args, const char *name)
{
	BackgroundWorkerHandle *handle;

	if (!session_register("dispatch_check_main", psprintf("dispatch check of %s", name),
						  "dispatch check", args, sizeof(CheckArgs), &handle))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a process to check backend \"%s\"", name),
				 errhint("You might need to increase \"max_worker_processes\".")));
	PG_TRY();
	{
		(void) WaitForBackgroundWorkerShutdown(handle);
	}
	PG_CATCH();
	{
		TerminateBackgroundWorker(handle);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

Datum
dispatch_check_backend(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CheckArgs	args;
	CheckAnswer *answer;
	dsm_segment *segment;
	char	   *name;
	Interval   *elapsed = palloc0_object(Interval);
	Datum		values[3];
	bool		nulls[3] = {0};

	slots_require();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of the backend must not be null")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	InitMaterializedSRF(fcinfo, 0);

	segment = dsm_create(sizeof(CheckAnswer), 0);
	answer = dsm_segment_address(segment);
	memset(answer, 0, sizeof(CheckAnswer));
	strlcpy(answer->detail, "the process that connects ended without an answer; see the server log",
			sizeof(answer->detail));
	args.database = MyDatabaseId;
	args.backend_id = find_backend(name);
	args.answer = dsm_segment_handle(segment);
	run_check(&args, name);

	elapsed->time = answer->elapsed;
	values[0] = BoolGetDatum(answer->ok);
	values[1] = CStringGetTextDatum(answer->detail);
	values[2] = IntervalPGetDatum(elapsed);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	dsm_detach(segment);
	return (Datum) 0;
}
