/*-------------------------------------------------------------------------
 *
 * progress.c
 *	  What a worker has got done: outcomes, position, answers to flush().
 *
 * The invariant of settling: a row of dispatch.exceptions for an event of the
 * log exists if and only if the stored position has passed that event.  So what
 * has failed is held until the contiguous settled prefix has reached it, and is
 * written by the very transaction that moves the position.  A crash takes both
 * back or neither: nothing is lost or doubled by it, and that transaction may
 * commit asynchronously.  Whatever would break it is an error (check_outcome()):
 * better the worker stands still and says so.
 *
 * An event may kill the worker, and with it, as PostgreSQL goes, every session
 * of the server; that must not go on for ever.  So the row says that a worker
 * runs, until it ends in good order.  After two that did not, at the same
 * position, events are sent one at a time, each named in the row before; the
 * one that is named there when two more have died becomes a dead letter.  (If
 * it was somebody else each time that took the server down, it is innocent, and
 * can be tried again.)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "exceptions.h"
#include "report.h"
#include "session.h"
#include "settings.h"
#include "worker_state.h"

/* A position that has moved without an event is stored this often (ms). */
#define IDLE_SAVE_MAX 60000

/* How often (ms) the log hears of events that failed. */
#define FAILURE_LOG_INTERVAL 10000

/* What is settled by the position that was stored last; no other member is set. */
static Position stored;

static void
note_stored(void)
{
	const Position *position = &MyWorker.position;

	if (stored.before != NULL)
	{
		tick_free(stored.before);
		tick_free(stored.upto);
	}
	stored.before = tick_copy(position->before);
	stored.upto = tick_copy(position->upto);
	stored.settled_id = position->settled_id;
}

void
progress_load(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(MyWorker.cursor_context);

	position_load(MyWorker.backend_id, &MyWorker.position);
	MemoryContextSwitchTo(old);
	note_stored();
}

void
progress_begin(void *arg)
{
	Position   *position = &MyWorker.position;

	/*
	 * What must be known after a crash must be on disk before what may cause it.
	 * With synchronous replication that is before a standby has it, and with it
	 * all that a crash has made visible that was not acknowledged there.
	 */
	session_commit_durably();
	if (position->running && !MyWorker.has_begun)
		position->unclean_ends++;
	position->running = true;
	MyWorker.has_begun = true;
	position_save(MyWorker.backend_id, position);
}

/* Is there an outcome that no row tells of yet? */
static bool
holds_outcomes(void)
{
	return MyWorker.delivery->window->held != NIL || MyWorker.delivery->retries->held != NIL;
}

void
progress_suspect(void *event_id)
{
	if (holds_outcomes())
		elog(ERROR, "a position would be stored without the outcomes that it has passed");
	session_commit_durably();
	MyWorker.position.has_suspect = true;
	MyWorker.position.suspect = *(pg_uuid_t *) event_id;
	position_save(MyWorker.backend_id, &MyWorker.position);
}

void
progress_load_queue(void *arg)
{
	List	   *exceptions;
	uint64		generation = catalog_exceptions_generation;
	MemoryContext old;

	/* Known only when they were read: a change must not be lost with an error. */
	exceptions = exceptions_read_open(MyWorker.backend_id, RETRY_QUEUE_MAX + 1);
	MyWorker.exceptions_generation = generation;
	old = MemoryContextSwitchTo(MyWorker.queue_context);
	retry_queue_match(MyWorker.queue, exceptions);
	MemoryContextSwitchTo(old);
}

/* An event's row says what came of it. */
static void
store_outcome(const Entry *entry)
{
	if (!entry->is_retry)
		exception_insert(entry->event, &entry->exception, entry->error);
	else if (entry->state == ENTRY_DELIVERED)
		exception_delete(&entry->exception);
	else
		exception_update(&entry->exception, entry->error);
}

static bool
has_passed(const Position *position, const Event *event)
{
	return tick_sees(position->before, event->xid) ||
		(tick_sees(position->upto, event->xid) && event->id <= position->settled_id);
}

/*
 * The invariant of settling: is it this move of the position that passes the
 * event?  The last of those with one id is, for all of them (see has_twin()).
 */
static void
check_outcome(const Entry *entry)
{
	const Event *event = entry->event;
	const Entry *next = window_first(MyWorker.delivery->window);

	if (has_passed(&stored, event) ||
		!(has_passed(&MyWorker.position, event) ||
		  (next != NULL && next->event->id == event->id)))
		elog(ERROR, "the position does not move past event " INT64_FORMAT ", which has failed",
			 event->id);
}

/*
 * Rows of events that have failed are written by the very transaction that
 * moves the position past them: a crash takes both back or neither.
 */
static void
save_progress(void *arg)
{
	ListCell   *lc;

	if (MyWorker.delivery != NULL)
	{
		foreach(lc, MyWorker.delivery->window->held)
		{
			check_outcome(lfirst(lc));
			store_outcome(lfirst(lc));
		}
		foreach(lc, MyWorker.delivery->retries->held)
			store_outcome(lfirst(lc));
	}
	if (MyWorker.delivery != NULL && holds_outcomes())
		*(FullTransactionId *) arg = GetTopFullTransactionId();
	MyWorker.position.published = MyWorker.report.published;
	MyWorker.position.retried = MyWorker.report.retried;
	MyWorker.position.last_published_at = MyWorker.report.last_published_at;
	position_save(MyWorker.backend_id, &MyWorker.position);
}

/*
 * Tells of an event that has failed: the view always, the log now and then,
 * for a thousand may fail for the same reason.
 */
static void
tell_of_failure(const Entry *entry)
{
	static SteadyTime told_at = 0;
	static int	untold = 0;
	bool		is_dead = entry->exception.status == EXCEPTION_FAILED;

	report_error(&MyWorker.report, entry->error);
	if (!is_dead)
		MyWorker.report.retried++;
	if (told_at != 0 && !steady_is_past(told_at, FAILURE_LOG_INTERVAL))
	{
		untold++;
		return;
	}
	worker_log(WARNING,
			   (errmsg("backend \"%s\": event %s failed: %s",
					   MyWorker.backend->name,
					   DatumGetCString(DirectFunctionCall1(uuid_out,
														   UUIDPGetDatum(&entry->event->event_id))),
					   entry->error),
				is_dead ? errdetail("It is a dead letter now: see dispatch.dead_letters.") :
				errdetail("It will be tried again."),
				untold > 0 ? errhint("%d more have failed since the last such message.", untold) : 0));
	told_at = MyWorker.turn_time;
	untold = 0;
}

static void
tell_of_position(void)
{
	const Delivery *delivery = MyWorker.delivery;

	if (delivery == NULL)
		return;
	worker_debug((errmsg("backend \"%s\": its progress is stored", MyWorker.backend->name),
				  errdetail(INT64_FORMAT " events are published, " INT64_FORMAT " were retried;"
							" of the %d that are in memory %d are in flight.",
							MyWorker.position.published, MyWorker.position.retried,
							(int) (window_count(delivery->window) +
								   window_count(delivery->retries)),
							delivery_in_flight(delivery))));
}

/* The queue learns what was stored. */
static void
release_held(Window *window)
{
	ListCell   *lc;

	foreach(lc, window->held)
	{
		const Entry *entry = lfirst(lc);

		if (entry->state == ENTRY_FAILED)
			tell_of_failure(entry);
		if (entry->state == ENTRY_DELIVERED || entry->exception.status == EXCEPTION_FAILED)
			retry_queue_remove(MyWorker.queue, &entry->exception);
		else
			retry_queue_put_back(MyWorker.queue, &entry->exception);
		MyWorker.next_retry = GetCurrentTimestamp();	/* it may be due, or let others go */
	}
	window_release_held(window);
}

/*
 * How long (us) a position may be out of date that has moved without an event:
 * a small part of the time that segments are kept.
 */
static int64
idle_save_interval(void)
{
	return Min(IDLE_SAVE_MAX, setting_published_retention / 20 * 1000) * INT64CONST(1000);
}

/* Between the newest ticks nothing is left: the position moves on to now. */
static void
skip_to_end(void)
{
	if (MyWorker.position.before == cursor_upto(MyWorker.cursor))
		return;
	tick_free(MyWorker.position.before);
	tick_free(MyWorker.position.upto);
	MyWorker.position.before = tick_copy(cursor_upto(MyWorker.cursor));
	MyWorker.position.upto = tick_copy(cursor_upto(MyWorker.cursor));
	MyWorker.position.settled_id = PG_INT64_MIN;

	/* Retention goes by what is stored, so that is not to be left behind. */
	if (MyWorker.moved_at == 0 &&
		MyWorker.turn_time - MyWorker.saved_at > idle_save_interval())
		MyWorker.moved_at = MyWorker.turn_time;
}

/* Is nothing left of what workers that died may have had in flight? */
static bool
is_all_settled(void)
{
	return window_count(MyWorker.delivery->window) == 0 &&
		retry_queue_count(MyWorker.queue) == 0 && cursor_at_end(MyWorker.cursor);
}

/* Lets go of what has its outcome. */
void
progress_settle(void)
{
	int			left;

	left = window_settle(MyWorker.delivery->window, &MyWorker.position);
	left += window_settle(MyWorker.delivery->retries, NULL);
	if (left == 0)
		return;
	MyWorker.position.has_suspect = false;
	/* The span that others died in is not over before all of it is sent. */
	if (is_all_settled())
		MyWorker.delivery->careful = 0;
	MyWorker.position.unclean_ends = MyWorker.delivery->careful > 0 ? UNCLEAN_ENDS_CAREFUL : 0;
	if (MyWorker.moved_at == 0)
		MyWorker.moved_at = MyWorker.turn_time;
}

/*
 * Others may know how far all is settled, but not before a crash can change
 * nothing about it.
 */
void
progress_announce(void)
{
	const Entry *first = window_first(MyWorker.delivery->window);

	if (holds_outcomes())
		return;
	if (first != NULL)
		MyWorker.flushed = first->batch->before->flush_request;
	else if (cursor_at_end(MyWorker.cursor))
	{
		skip_to_end();
		MyWorker.flushed = cursor_upto(MyWorker.cursor)->flush_request;
	}
	report_position(&MyWorker.report, &MyWorker.position);
}

/* Whoever waits in flush() then sees in the views what was announced. */
void
progress_answer_flush(void)
{
	pg_atomic_uint32 *done = &MyWorker.slot->flush_done;

	if ((int32) (MyWorker.flushed - pg_atomic_read_u32(done)) > 0)
		pg_atomic_write_u32(done, MyWorker.flushed);
}

void
progress_save(void)
{
	FullTransactionId xid = MyWorker.position.outcomes_xid;

	if (!worker_run_step(save_progress, &xid, "store its progress"))
		return;
	MyWorker.position.outcomes_xid = xid;
	note_stored();
	MyWorker.saved_at = MyWorker.turn_time;
	MyWorker.moved_at = 0;
	tell_of_position();
	if (MyWorker.delivery != NULL)
	{
		release_held(MyWorker.delivery->window);
		release_held(MyWorker.delivery->retries);
	}
}
