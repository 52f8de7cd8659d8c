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
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backoff.h"
#include "catalog.h"
#include "error_class.h"
#include "report.h"
#include "session.h"
#include "settings.h"
#include "worker.h"
#include "worker_state.h"

/* The position is stored this long (ms) after it moved. */
#define SAVE_DELAY 100

/* Of rows that are too many for the queue, more are loaded at this count. */
#define QUEUE_RELOAD_COUNT (RETRY_QUEUE_MAX / 10 * 9)

/* How long (ms) what is in flight may take when the worker is to end. */
#define STOP_DELAY 2000

/* Delays (ms) after an error in our own tables. */
#define ERROR_DELAY 500
#define ERROR_MAX_DELAY 30000

Worker		MyWorker = {.look = true, .must_load_queue = true};

/* ------------------------------------------------------------------------
 * Start and end
 * ------------------------------------------------------------------------
 */

static void
detach(int code, Datum arg)
{
	Oid			database = MyWorker.slot->database;

	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	worker_slot_release(MyWorker.slot);
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

	MyWorker.slot = &Slots->workers[args->slot];
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	database = database_slot_find(args->database);
	mine = MyWorker.slot->database == args->database &&
		MyWorker.slot->generation == args->generation && MyWorker.slot->pid == 0;
	if (mine && (database == NULL || database->evictor_pid != 0))
	{
		/* Somebody wants the database for himself. */
		worker_slot_release(MyWorker.slot);
		mine = false;
	}
	if (mine)
	{
		MyWorker.slot->pid = MyProcPid;
		MyWorker.slot->proc = GetNumberFromPGProc(MyProc);
		MyWorker.backend_id = MyWorker.slot->backend_id;
	}
	LWLockRelease(Slots->lock);
	if (mine)
		before_shmem_exit(detach, (Datum) 0);
	return mine;
}

/*
 * Has the step that failed succeeded?  Or is it not needed any more: then it has
 * not been tried again when it was time to, and others have done well since, for
 * as long as that was.
 */
static bool
is_over(const char *what)
{
	return strcmp(MyWorker.failing_step, what) == 0 ||
		steady_now() - MyWorker.next_step > MyWorker.next_step - MyWorker.failed_at;
}

/*
 * Runs a step; false if it failed.  The same trouble is logged once, and tried
 * again less and less often.
 */
bool
worker_run_step(void (*step) (void *arg), void *arg, const char *what)
{
	const char *error;
	bool		is_news;

	switch (session_run(step, arg, &error))
	{
		case STEP_DONE:
			if (MyWorker.errors == 0 || !is_over(what))
				return true;
			worker_log(LOG,
					   (errmsg("dispatch worker for backend %d can %s again",
							   MyWorker.backend_id, MyWorker.failing_step)));
			MyWorker.errors = 0;
			return true;
		case STEP_NO_EXTENSION:
			proc_exit(0);
		case STEP_ERROR:
			break;
	}
	/* Steps that fail in one turn do so for one reason. */
	if (MyWorker.errors > 0 && MyWorker.failed_turn == MyWorker.turn)
		return false;
	is_news = MyWorker.errors == 0 || strcmp(MyWorker.failing_step, what) != 0;
	MyWorker.errors++;
	MyWorker.failed_turn = MyWorker.turn;
	MyWorker.failed_at = steady_now();
	MyWorker.next_step = steady_in(backoff_delay(MyWorker.errors, ERROR_DELAY, ERROR_MAX_DELAY));
	report_error(&MyWorker.report, error);
	if (is_news)
		worker_log(WARNING,
				   (errmsg("dispatch worker for backend %d could not %s: %s",
						   MyWorker.backend_id, what, error),
					errdetail("It goes on trying; no event is lost.")));
	MyWorker.failing_step = what;
	return false;
}

/* ------------------------------------------------------------------------
 * The loop
 * ------------------------------------------------------------------------
 */

static WorkerState
current_state(void)
{
	if (MyWorker.errors > 0)
		return WORKER_DATABASE_ERROR;
	if (MyWorker.delivery == NULL)
		return MyWorker.backend == NULL ? WORKER_STARTING : WORKER_MISCONFIGURED;
	if (MyWorker.delivery->failures > 0)
		return error_policy(MyWorker.delivery->error_class)->needs_operator ?
			WORKER_MISCONFIGURED : WORKER_OUTAGE;
	if (retry_queue_is_partial(MyWorker.queue) ||
		retry_queue_count(MyWorker.queue) > RETRY_QUEUE_MAX)
		return WORKER_BLOCKED;
	return MyWorker.delivery->state == DISPATCH_READY ? WORKER_RUNNING : WORKER_CONNECTING;
}

static void
tell(void)
{
	const Delivery *delivery = MyWorker.delivery;
	WorkerReport *report = &MyWorker.report;

	report->state = current_state();
	if (delivery != NULL)
	{
		report->in_flight = delivery_in_flight(delivery);
		report->next_attempt_at = delivery->failures == 0 ? 0 :
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
										steady_ms_until(delivery->next_attempt));
		if (delivery->failures > 0 && delivery->failures != MyWorker.failures_told)
			report_error(report, delivery->error);
		MyWorker.failures_told = delivery->failures;
	}
	report_hand_over(report, MyWorker.slot, MyWorker.turn_time);
}

/* How long (ms) what has just been settled may wait for more to be stored with it. */
static long
ms_to_save(void)
{
	return steady_ms_until(MyWorker.moved_at + SAVE_DELAY * INT64CONST(1000));
}

/* How long to wait at the most, in ms. */
static long
turn_timeout(void)
{
	long		timeout = MyWorker.backend ? MyWorker.backend->sleep_time : ERROR_DELAY;
	bool		may_step = steady_ms_until(MyWorker.next_step) == 0;

	/* News that came in with the last transaction, for those who take it in. */
	if (may_step && MyWorker.backends_generation != catalog_backends_generation)
		return 0;
	if (may_step && MyWorker.delivery != NULL &&
		MyWorker.exceptions_generation != catalog_exceptions_generation)
		return 0;

	if (!may_step)
		timeout = Min(timeout, steady_ms_until(MyWorker.next_step));
	else if (MyWorker.moved_at != 0)
		timeout = Min(timeout, ms_to_save());
	if (MyWorker.next_backend != NULL)
		timeout = Min(timeout, STOP_DELAY);
	if (MyWorker.delivery != NULL)
	{
		long		wanted = delivery_timeout(MyWorker.delivery);

		if (wanted >= 0)
			timeout = Min(timeout, wanted);
		/* While some are in their window, or nothing new is sent, no others are picked. */
		if (may_step && !MyWorker.delivery->draining && MyWorker.next_retry != 0 &&
			window_count(MyWorker.delivery->retries) == 0)
			timeout = Min(timeout, TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
																   MyWorker.next_retry));
		wanted = supply_ms_to_read();
		if (wanted >= 0)
			timeout = Min(timeout, wanted);
	}
	return timeout;
}

/*
 * Nothing is in flight, and every outcome up to the position is stored: the
 * delivery can be replaced.  What was delivered behind an event that the broker
 * has yet to take goes out once more.  So does what is in flight with a broker
 * that does not answer: it must not keep the cure for that away.
 */
static bool
is_drained(void)
{
	if (MyWorker.delivery == NULL)
		return true;
	if (delivery_in_flight(MyWorker.delivery) > 0 &&
		!steady_is_past(MyWorker.next_since, STOP_DELAY))
		return false;
	delivery_disconnect(MyWorker.delivery);
	progress_settle();
	if (MyWorker.moved_at != 0)
		progress_save();
	return MyWorker.moved_at == 0;
}

static void
accept_changes(void *arg)
{
	/* Starting the transaction has taken in the invalidation messages. */
}

/* Follows changes of the configuration; false if the worker is to end. */
static bool
follow_configuration(void)
{
	if ((MyWorker.backend == NULL ||
		 MyWorker.backends_generation != catalog_backends_generation) && !worker_configure())
		return false;
	if (MyWorker.delivery != NULL)
		MyWorker.delivery->draining = MyWorker.next_backend != NULL;
	if (MyWorker.next_backend != NULL && is_drained())
		worker_rebuild();
	return true;
}

/* Reads what there is to read, and a place for. */
static void
supply(void)
{
	long		ms_to_read;

	if (MyWorker.must_load_queue ||
		(retry_queue_is_partial(MyWorker.queue) &&
		 retry_queue_count(MyWorker.queue) < QUEUE_RELOAD_COUNT) ||
		MyWorker.exceptions_generation != catalog_exceptions_generation)
	{
		if (!worker_run_step(progress_load_queue, NULL, "read what is to be tried again"))
			return;
		MyWorker.must_load_queue = false;
	}
	if (!MyWorker.delivery->draining)
		supply_retries();
	ms_to_read = supply_ms_to_read();
	if (ms_to_read > 0)
		return;					/* changes, too, are taken in by then */
	if (ms_to_read == 0)
		supply_events();
	else if (MyWorker.was_woken)
		worker_run_step(accept_changes, NULL, "take in changes");
	MyWorker.was_woken = false;
}

/* One turn; false if the worker is to end. */
static bool
turn(void)
{
	bool		may_step;

	MemoryContextReset(CurrentMemoryContext);
	MyWorker.turn++;
	MyWorker.turn_time = steady_now();
	may_step = steady_ms_until(MyWorker.next_step) == 0;

	if (may_step && !follow_configuration())
		return false;
	if (MyWorker.delivery != NULL)
	{
		if (may_step)
			supply();
		delivery_pump(MyWorker.delivery);
		MyWorker.turn_time = steady_now();
		progress_settle();
		if (may_step && MyWorker.moved_at != 0 &&
			ms_to_save() == 0)
			progress_save();
		progress_announce();
	}
	else if (may_step && MyWorker.was_woken)
	{
		worker_run_step(accept_changes, NULL, "take in changes");
		MyWorker.was_woken = false;
	}
	tell();
	progress_answer_flush();
	return !session_stop_requested() && !MyWorker.slot->stop;
}

/* Has somebody woken us since we looked? */
static bool
is_woken(void)
{
	uint32		wakes = pg_atomic_read_u32(&MyWorker.slot->wakes);

	if (wakes == MyWorker.wakes_seen)
		return false;
	MyWorker.wakes_seen = wakes;
	return true;
}

/* Waits for the broker, for a wake-up, or for the time to come. */
static void
wait_for_work(long timeout)
{
	const Delivery *delivery = MyWorker.delivery;
	int			fd = delivery ? delivery->wait.fd : -1;
	int			events = delivery ? delivery->wait.events : 0;
	bool		woken = is_woken();
	int			occurred;

	/* It is known that there is work, and when it is time for that. */
	if (delivery != NULL && supply_ms_to_read() > 0)
		occurred = session_doze(fd, events, timeout);
	else
		occurred = session_wait(fd, events, woken ? 0 : timeout);
	woken = is_woken() || woken || (occurred & WL_LATCH_SET);
	if (woken || (occurred & WL_TIMEOUT))
		MyWorker.look = true;
	if (woken)
		MyWorker.was_woken = true;
}

/* What is in flight gets a moment, so that it need not be sent again. */
static void
finish(void)
{
	SteadyTime	deadline = steady_in(STOP_DELAY);
	Delivery   *delivery = MyWorker.delivery;

	if (delivery != NULL)
	{
		delivery->draining = true;
		MyWorker.turn_time = steady_now();
		while (delivery_in_flight(delivery) > 0 && MyWorker.turn_time < deadline)
		{
			long		timeout = delivery_timeout(delivery);

			session_wait(delivery->wait.fd, delivery->wait.events,
						 timeout >= 0 ? Min(timeout, 100) : 100);
			delivery_pump(delivery);
			MyWorker.turn_time = steady_now();
		}
		progress_settle();
		delivery_disconnect(delivery);
	}
	MyWorker.position.running = false;
	progress_save();
}

/* After a failed step at the start. */
static void
wait_to_begin(void)
{
	MyWorker.turn++;
	MyWorker.turn_time = steady_now();
	session_wait(-1, 0, turn_timeout());
	if (session_stop_requested() || MyWorker.slot->stop)
		proc_exit(1);
}

void
dispatch_worker_main(Datum arg)
{
	ProcessArgs args;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	if (!attach(&args))
		proc_exit(0);
	session_start(args.database);

	/* What a turn leaves behind is gone with the next. */
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "dispatch turn",
												ALLOCSET_DEFAULT_SIZES));
	MyWorker.cursor_context = AllocSetContextCreate(TopMemoryContext, "dispatch cursor",
										   ALLOCSET_DEFAULT_SIZES);
	MyWorker.queue_context = AllocSetContextCreate(TopMemoryContext, "dispatch retry queue",
										  ALLOCSET_DEFAULT_SIZES);
	while (!worker_run_step(progress_load, NULL, "read its position"))
		wait_to_begin();
	while (!worker_run_step(progress_begin, NULL, "note that it has begun"))
		wait_to_begin();
	MyWorker.report.published = MyWorker.position.published;
	MyWorker.report.retried = MyWorker.position.retried;
	MyWorker.report.last_published_at = MyWorker.position.last_published_at;
	report_position(&MyWorker.report, &MyWorker.position);

	while (turn())
		wait_for_work(turn_timeout());
	finish();
	proc_exit(session_stop_requested() ? 1 : 0);
}
