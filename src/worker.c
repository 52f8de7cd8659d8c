/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The process that serves one backend.
 *
 * A worker turns in one loop: read events in a short transaction, give them to
 * the transport, take in outcomes, let go of the settled, store the position
 * now and then, wait for whatever comes first.  While the broker works on one
 * batch the next is being read.  No transaction or snapshot is open while it
 * waits.
 *
 * Events are lost to nobody's error: what goes wrong in our own tables (a
 * lock, a full disk) ends the step, not the process, and is tried again; what
 * goes wrong with the broker is delivery.c's business.  The worker dies only
 * of SIGTERM, or by a defect, and its manager starts another.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backends.h"
#include "backoff.h"
#include "catalog.h"
#include "cursor.h"
#include "delivery.h"
#include "durability.h"
#include "position.h"
#include "report.h"
#include "session.h"
#include "settings.h"
#include "worker.h"

/* The position is stored this long (ms) after it moved. */
#define SAVE_DELAY 100

/* How long (ms) what is in flight may take when the worker is to end. */
#define STOP_DELAY 2000

/* Delays (ms) after an error in our own tables. */
#define ERROR_DELAY 500
#define ERROR_MAX_DELAY 30000

static WorkerSlot *MySlot;
static int32 MyBackendRow;		/* id of the backend that is served */

static WorkerReport report;
static MemoryContext config_context;	/* of the next two */
static Backend *backend;
static Delivery *delivery;		/* NULL: the configuration is of no use */
static MemoryContext next_context;	/* of the next */
static Backend *next_backend;	/* takes over once nothing is in flight */
static MemoryContext cursor_context;	/* of the next two */
static Cursor *cursor;
static Position position;

static uint64 backends_generation = 0; /* when the backend's row was read */
static bool look = true;		/* something may have been published */
static uint32 flush_seen;		/* newest flush() before the last look */
static TimestampTz moved_at = 0;	/* when the position moved; 0: it is stored */
static int	errors = 0;			/* steps that failed, in a row */
static TimestampTz next_step = 0;	/* no step before, after an error */
static TimestampTz turn_time;	/* of this turn of the loop */
static int	failures_told = 0;	/* of the delivery, as reported last */

/* ------------------------------------------------------------------------
 * Start and end
 * ------------------------------------------------------------------------
 */

static void
detach(int code, Datum arg)
{
	Oid			database = MySlot->database;

	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	worker_slot_release(MySlot);
	LWLockRelease(Slots->lock);
	slots_wake_manager(database);
}

/*
 * Takes the slot into possession; false if it was given up meanwhile.  As the
 * slot is kept until the process ends, and the manager starts no other worker
 * before, a backend never has two: they would send every event twice and in
 * no order.
 */
static bool
attach(const ProcessArgs *args)
{
	DatabaseSlot *database;
	bool		mine;

	MySlot = &Slots->workers[args->slot];
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	database = database_slot_find(args->database);
	mine = MySlot->database == args->database && MySlot->generation == args->generation &&
		MySlot->pid == 0;
	if (mine && (database == NULL || database->evictor_pid != 0))
	{
		/* Somebody wants the database for himself. */
		worker_slot_release(MySlot);
		mine = false;
	}
	if (mine)
	{
		MySlot->pid = MyProcPid;
		MySlot->proc = GetNumberFromPGProc(MyProc);
		MyBackendRow = MySlot->backend_id;
	}
	LWLockRelease(Slots->lock);
	if (mine)
		before_shmem_exit(detach, (Datum) 0);
	return mine;
}

/* ------------------------------------------------------------------------
 * Steps in the database
 * ------------------------------------------------------------------------
 */

/*
 * Runs a step; false if it failed.  The same trouble is logged once, and tried
 * again less and less often.
 */
static bool
run_step(void (*step) (void *arg), void *arg, const char *what)
{
	char	   *error;
	long		delay;

	switch (session_run(step, arg, &error))
	{
		case STEP_DONE:
			if (errors > 0)
				worker_log(LOG,
						   (errmsg("dispatch worker for backend %d can work with its tables again",
								   MyBackendRow)));
			errors = 0;
			return true;
		case STEP_NO_EXTENSION:
			proc_exit(0);
		case STEP_ERROR:
			break;
	}
	delay = backoff_delay(++errors, ERROR_DELAY, ERROR_MAX_DELAY);
	next_step = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
	report_error(&report, error);
	if (errors == 1)
		worker_log(WARNING,
				   (errmsg("dispatch worker for backend %d could not %s: %s",
						   MyBackendRow, what, error),
					errdetail("It goes on trying; no event is lost.")));
	pfree(error);
	return false;
}

static void
read_backend(void *arg)
{
	Backend   **result = arg;
	MemoryContext old = MemoryContextSwitchTo(next_context);

	backends_generation = catalog_backends_generation;
	*result = backends_read(MyBackendRow);
	catalog_get();
	MemoryContextSwitchTo(old);
}

static void
load_position(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(cursor_context);

	position_load(MyBackendRow, &position);
	MemoryContextSwitchTo(old);
}

static void
save_position(void *arg)
{
	position.published = report.published;
	position.last_published_at = report.last_published_at;
	position_save(MyBackendRow, &position);
}

typedef struct ReadStep
{
	Batch	   *batch;
	List	   *entries;
	XLogRecPtr	lsn;
} ReadStep;

static void
read_events(void *arg)
{
	ReadStep   *read = arg;
	List	   *events = NIL;
	MemoryContext old;
	ListCell   *lc;

	if (cursor_at_end(cursor) && !cursor_advance(cursor, flush_seen))
		return;

	read->batch = window_begin_batch(delivery->window, cursor_before(cursor), cursor_upto(cursor));
	old = MemoryContextSwitchTo(read->batch->context);
	cursor_read(cursor, backend->batch_size, (Size) setting_batch_bytes * 1024,
				&events, &read->lsn);
	foreach(lc, events)
	{
		Entry	   *entry = palloc0_object(Entry);
		const char *error;

		entry->event = lfirst(lc);
		if (!message_make(delivery->maker, entry->event, &entry->message, &error))
		{
			entry->state = ENTRY_FAILED;
			entry->error_class = DISPATCH_EVENT_REJECTED;
			entry->error = pstrdup(error);
		}
		read->entries = lappend(read->entries, entry);
	}
	MemoryContextSwitchTo(old);
}

/* Reads a batch into the window. */
static void
fill_window(void)
{
	ReadStep	read = {0};
	ListCell   *lc;

	if (cursor_at_end(cursor))
	{
		look = false;
		flush_seen = pg_atomic_read_u32(&MySlot->flush_requested);
		pg_memory_barrier();
	}
	if (!run_step(read_events, &read, "read events"))
	{
		look = true;
		if (read.batch != NULL)
			window_end_batch(delivery->window, read.batch);
		return;
	}
	if (read.batch == NULL)
		return;

	/* Nothing may leave the machine before it is durable here. */
	durability_flush(read.lsn);

	foreach(lc, read.entries)
		window_add(delivery->window, read.batch, lfirst(lc));
	window_end_batch(delivery->window, read.batch);
	cursor_accept(cursor);
}

/* ------------------------------------------------------------------------
 * Configuration
 * ------------------------------------------------------------------------
 */

static void
count_delivered(const Entry *entry)
{
	report_delivered(&report, entry->event->created_at, turn_time);
}

static void
make_delivery(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(config_context);

	delivery = delivery_create(backend, count_delivered);
	MemoryContextSwitchTo(old);
}

/*
 * Starts over at the position, with the configuration as it is now.  Nothing
 * is in flight.
 */
static void
rebuild(void)
{
	bool		troubled = delivery != NULL && delivery->troubled;
	DispatchErrorClass told_class = delivery != NULL ? delivery->told_class : DISPATCH_OUTAGE;
	char	   *error;

	if (delivery != NULL)
	{
		delivery_disconnect(delivery);
		window_clear(delivery->window);
	}
	if (cursor != NULL)
		cursor_close(cursor);
	if (config_context != NULL)
		MemoryContextDelete(config_context);
	delivery = NULL;
	config_context = next_context;
	backend = next_backend;
	next_context = NULL;
	next_backend = NULL;

	MemoryContextSwitchTo(cursor_context);
	cursor = cursor_open(MyBackendRow, tick_copy(position.before),
						 tick_copy(position.upto), position.settled_id);
	look = true;

	if (session_run(make_delivery, NULL, &error) == STEP_ERROR)
	{
		report_error(&report, error);
		worker_log(WARNING,
				   (errmsg("backend \"%s\": %s", backend->name, error),
					errhint("Mend it with dispatch.alter_backend(); events wait.")));
		pfree(error);
		delivery = NULL;
	}
	else if (delivery != NULL)
	{
		/* What the log knows already. */
		delivery->troubled = troubled;
		delivery->told_class = told_class;
	}
}

/*
 * Reads the backend's row again.  False if this backend is not to be served any
 * more.
 */
static bool
configure(void)
{
	Backend    *fresh;

	if (next_context != NULL)
		MemoryContextDelete(next_context);
	next_backend = NULL;
	next_context = AllocSetContextCreate(TopMemoryContext, "dispatch backend",
										 ALLOCSET_DEFAULT_SIZES);
	if (!run_step(read_backend, &fresh, "read its configuration"))
		return true;
	if (fresh == NULL || !fresh->ours || (!fresh->enabled && !fresh->dropping))
		return false;
	if (backend == NULL || backend->version != fresh->version)
	{
		next_backend = fresh;
		return true;
	}

	/* Only settings may have changed. */
	backend->batch_size = fresh->batch_size;
	backend->sleep_time = fresh->sleep_time;
	return true;
}

/* ------------------------------------------------------------------------
 * The loop
 * ------------------------------------------------------------------------
 */

/* Lets go of what is settled, and tells flush() how far that is. */
static void
settle(void)
{
	Window	   *window = delivery->window;
	Entry	   *first;
	uint32		flushed;

	if (window_settle(window, &position) > 0 && moved_at == 0)
		moved_at = turn_time;

	first = window_first(window);
	if (first != NULL)
		flushed = first->batch->before->flush_request;
	else if (cursor_at_end(cursor))
	{
		/* Nothing is left between these ticks. */
		if (position.before != cursor_upto(cursor))
		{
			tick_free(position.before);
			tick_free(position.upto);
			position.before = tick_copy(cursor_upto(cursor));
			position.upto = tick_copy(cursor_upto(cursor));
			position.settled_id = PG_INT64_MIN;
			report_position(&report, &position);
		}
		flushed = cursor_upto(cursor)->flush_request;
	}
	else
		return;
	if ((int32) (flushed - pg_atomic_read_u32(&MySlot->flush_done)) > 0)
		pg_atomic_write_u32(&MySlot->flush_done, flushed);
}

static void
save(void)
{
	if (run_step(save_position, NULL, "store its position"))
		moved_at = 0;
}

static void
report_failed_event(void)
{
	static const Entry *reported = NULL;
	const Entry *failed = delivery->window->failed;

	if (failed != NULL && failed != reported)
	{
		report_error(&report, failed->error);
		worker_log(WARNING,
				   (errmsg("backend \"%s\": event %s failed: %s",
						   backend->name, failed->message.event_id, failed->error),
					errdetail("Delivery to this backend has stopped there."),
					errhint("Mend the cause, then call dispatch.resume_backend().")));
	}
	reported = failed;
}

static WorkerState
current_state(void)
{
	if (errors > 0)
		return WORKER_DATABASE_ERROR;
	if (delivery == NULL)
		return backend == NULL ? WORKER_STARTING : WORKER_MISCONFIGURED;
	if (delivery->failures > 0)
		return delivery->error_class == DISPATCH_CONFIGURATION ?
			WORKER_MISCONFIGURED : WORKER_OUTAGE;
	if (delivery->window->failed != NULL)
		return WORKER_EVENT_FAILED;
	return delivery->state == DISPATCH_READY ? WORKER_RUNNING : WORKER_CONNECTING;
}

static void
tell(void)
{
	report.state = current_state();
	if (delivery != NULL)
	{
		report.in_flight = delivery->window->sent;
		report.next_attempt_at = delivery->failures > 0 ? delivery->next_attempt : 0;
		if (delivery->failures > 0 && delivery->failures != failures_told)
			report_error(&report, delivery->error);
		failures_told = delivery->failures;
		report_failed_event();
	}
	report_position(&report, &position);
	report_hand_over(&report, MySlot, turn_time);
}

static bool
has_room(void)
{
	const Window *window = delivery->window;

	return !delivery->draining && window->failed == NULL &&
		window_count(window) <= (uint64) backend->batch_size &&
		window->bytes <= (Size) setting_batch_bytes * 1024;
}

/* How long to wait at the most, in ms. */
static long
turn_timeout(void)
{
	long		timeout = backend ? backend->sleep_time : ERROR_DELAY;

	/* News that came in with the last transaction. */
	if (next_step <= turn_time && backends_generation != catalog_backends_generation)
		return 0;

	if (next_step > turn_time)
		timeout = Min(timeout, TimestampDifferenceMilliseconds(turn_time, next_step));
	else if (moved_at != 0)
		timeout = Min(timeout, Max(0, SAVE_DELAY - (turn_time - moved_at) / 1000));
	if (delivery != NULL)
	{
		long		wanted = delivery_timeout(delivery);

		if (wanted >= 0)
			timeout = Min(timeout, wanted);
		if (next_step <= turn_time && has_room() && (look || !cursor_at_end(cursor)))
			timeout = 0;
	}
	return timeout;
}

static void
accept_changes(void *arg)
{
	/* Starting the transaction has taken in the invalidation messages. */
}

/* One turn; false if the worker is to end. */
static bool
turn(void)
{
	bool		may_step;

	turn_time = GetCurrentTimestamp();
	may_step = next_step <= turn_time;

	if (may_step && (backends_generation != catalog_backends_generation || backend == NULL) && !configure())
		return false;
	if (delivery != NULL)
		delivery->draining = next_backend != NULL;
	if (next_backend != NULL && (delivery == NULL || delivery->window->sent == 0))
		rebuild();

	if (delivery != NULL)
	{
		if (may_step && has_room() && (look || !cursor_at_end(cursor)))
			fill_window();
		else if (may_step && look)
			run_step(accept_changes, NULL, "take in changes");
		delivery_pump(delivery);
		turn_time = GetCurrentTimestamp();
		settle();
	}
	if (may_step && moved_at != 0 && turn_time - moved_at >= SAVE_DELAY * INT64CONST(1000))
		save();
	tell();
	return !session_stop_requested() && !MySlot->stop;
}

/* Waits for the broker, for a wake-up, or for the time to come. */
static void
wait_for_work(long timeout)
{
	int			occurred;

	occurred = session_wait(delivery ? delivery->wait.fd : -1,
							delivery ? delivery->wait.events : 0, timeout,
							PG_WAIT_EXTENSION);
	if (occurred & (WL_LATCH_SET | WL_TIMEOUT))
		look = true;
}

/* What is in flight gets a moment, so that it need not be sent again. */
static void
finish(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), STOP_DELAY);

	if (delivery != NULL)
	{
		delivery->draining = true;
		while (delivery->window->sent > 0 && (turn_time = GetCurrentTimestamp()) < deadline)
		{
			long		timeout = delivery_timeout(delivery);

			session_wait(delivery->wait.fd, delivery->wait.events,
						 timeout >= 0 ? Min(timeout, 100) : 100, PG_WAIT_EXTENSION);
			delivery_pump(delivery);
		}
		settle();
		delivery_disconnect(delivery);
	}
	if (moved_at != 0)
		save();
}

void
dispatch_worker_main(Datum arg)
{
	ProcessArgs args;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	if (!attach(&args))
		proc_exit(0);
	session_start(args.database);

	cursor_context = AllocSetContextCreate(TopMemoryContext, "dispatch cursor",
										   ALLOCSET_DEFAULT_SIZES);
	while (!run_step(load_position, NULL, "read its position"))
		session_wait(-1, 0, ERROR_DELAY, PG_WAIT_EXTENSION);
	report.published = position.published;
	report.last_published_at = position.last_published_at;

	while (turn())
		wait_for_work(turn_timeout());
	finish();
	proc_exit(session_stop_requested() ? 1 : 0);
}
