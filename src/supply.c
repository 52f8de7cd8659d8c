/*-------------------------------------------------------------------------
 *
 * supply.c
 *	  Reading events into a worker's windows.
 *
 * While the broker works on one batch the next is being read.  An event counts
 * as read when it is in its window, not before: whatever fails on the way makes
 * the cursor read it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "catalog.h"
#include "durability.h"
#include "error_class.h"
#include "exceptions.h"
#include "message.h"
#include "outbox.h"
#include "session.h"
#include "settings.h"
#include "worker_state.h"

/* Events that are tried again at once. */
#define RETRIES_MAX 1000

/*
 * An event is copied when it is read, when its message is made, and when that
 * is sent.  So no more is read in one go than the processor's caches hold, or
 * each copy comes from main memory: with events of 3 to 10 kB that costs a
 * worker nearly twice its time.  Nor so many that the broker is done with what
 * it has before it gets more.  How much may be on its way at once is another
 * matter, which batch_size and batch_bytes decide.
 */
#define READ_BYTES ((Size) 1024 * 1024)
#define READ_EVENTS 500

/*
 * A look at the end of the log costs a transaction, a flush of the WAL and a
 * round trip to the broker, however few events it finds.  So there are at most
 * 1000 of them a second in the long run, which spares the processor for those who
 * publish; but the first ones in a row are made at once.
 */
#define LOOK_INTERVAL 1000		/* microseconds */
#define LOOKS_IN_A_ROW 20

typedef struct ReadStep
{
	Batch	   *batch;
	List	   *picked;			/* of Exception, for retries; NIL: the log is read */
	List	   *entries;
	int			max_count;		/* of them, in one go */
	Size		bytes;			/* of their events, */
	Size		max_bytes;		/* which are enough then */
	Size		max_memory;		/* beyond which no more are made */
	bool		has_unmade;		/* the step has failed for an event's sake */
	XLogRecPtr	lsn;
} ReadStep;

/* An event whose message could not be made: see read_batch(). */
typedef struct Unmade
{
	pg_uuid_t	event_id;
	char		error[ERROR_TEXT_LEN];
} Unmade;

static List *unmade_events = NIL;
static const Event *volatile being_made = NULL;

/*
 * How many events there may be already when more are read.  While the transport
 * has not taken all of them, more would only wait, and leave the processor's
 * caches; but where order is strict, those of other keys may go on.
 */
static uint64
window_limit(Window *window)
{
	uint64		batch_size = MyWorker.backend->batch_size;

	if (window_next(window) == NULL)
		return BATCHES_IN_FLIGHT * batch_size - Min(batch_size, READ_EVENTS);
	return MyWorker.backend->ordering == ORDER_STRICT ? batch_size : 0;
}

static bool
has_room(void)
{
	Window	   *window = MyWorker.delivery->window;

	/* Keys of rows that were not loaded are not known, and must not be overtaken. */
	return !MyWorker.delivery->draining && !MyWorker.must_load_queue &&
		!retry_queue_is_partial(MyWorker.queue) &&
		retry_queue_count(MyWorker.queue) <= RETRY_QUEUE_MAX &&
		window_count(window) <= window_limit(window) &&
		window->bytes <= (Size) setting_batch_bytes * 1024;
}

long
supply_ms_to_read(void)
{
	if (steady_ms_until(MyWorker.next_step) > 0 || !has_room())
		return -1;
	if (!cursor_at_end(MyWorker.cursor))
		return 0;
	return MyWorker.look ? steady_ms_until(MyWorker.next_look) : -1;
}

/* Has this event killed one worker after another? */
static bool
is_convicted(const Event *event)
{
	return MyWorker.position.has_suspect &&
		MyWorker.position.unclean_ends >= UNCLEAN_ENDS_CONVICT &&
		memcmp(&MyWorker.position.suspect, &event->event_id, UUID_LEN) == 0;
}

static Unmade *
find_unmade(const Event *event)
{
	ListCell   *lc;

	foreach(lc, unmade_events)
	{
		Unmade	   *unmade = lfirst(lc);

		if (memcmp(&unmade->event_id, &event->event_id, UUID_LEN) == 0)
			return unmade;
	}
	return NULL;
}

/* Notes why the message of the event that is being made could not be. */
static void
remember_unmade(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ErrorData  *error = CopyErrorData();
	Unmade	   *unmade = palloc_object(Unmade);

	unmade->event_id = being_made->event_id;
	error_text_copy(unmade->error, ERROR_TEXT_LEN,
					error->message != NULL ? error->message : "unknown error");
	unmade_events = lappend(unmade_events, unmade);
	FreeErrorData(error);
	MemoryContextSwitchTo(old);
}

static void
forget_unmade(const Event *event)
{
	Unmade	   *unmade = find_unmade(event);

	if (unmade == NULL)
		return;
	unmade_events = list_delete_ptr(unmade_events, unmade);
	pfree(unmade);
}

static void
make_message(Entry *entry)
{
	const char *error = NULL;
	const Unmade *unmade = find_unmade(entry->event);

	if (is_convicted(entry->event))
	{
		error = "the worker was killed each time that it sent this event";
		entry->error_class = DISPATCH_EVENT_REJECTED;
	}
	else if (unmade != NULL)
	{
		error = unmade->error;
		entry->error_class = DISPATCH_EVENT_FAILED;
	}
	else
	{
		being_made = entry->event;
		if (message_make(MyWorker.delivery->maker, entry->event, &entry->message, &error,
						 &entry->error_class))
			error = NULL;
		being_made = NULL;
	}
	if (error != NULL)
		entry->error = pstrdup(error);
}

/*
 * Makes the entry of an event that was read, with its message, while the event
 * is in the processor's caches.  Returns whether there is room for another one.
 * Messages can be thousands of times as long as their events, and are counted
 * by themselves.
 */
static bool
take_event(Event *event, void *arg)
{
	ReadStep   *read = arg;
	Entry	   *entry = palloc0_object(Entry);

	entry->event = event;
	entry->is_retry = read->picked != NIL;
	make_message(entry);
	read->entries = lappend(read->entries, entry);
	read->bytes += outbox_event_size(event);
	return list_length(read->entries) < read->max_count &&
		read->bytes < read->max_bytes &&
		MemoryContextMemAllocated(read->batch->context, true) < read->max_memory;
}

static void
read_entries(ReadStep *read)
{
	Size		batch_bytes = (Size) setting_batch_bytes * 1024;
	List	   *events;
	ListCell   *lc;

	if (read->picked == NIL)
	{
		read->max_count = Min(MyWorker.backend->batch_size, READ_EVENTS);
		read->max_bytes = Min(batch_bytes, READ_BYTES);
		read->max_memory = read->max_bytes + batch_bytes;
		cursor_read(MyWorker.cursor, take_event, read, &read->lsn);
		return;
	}
	/* These are all in memory first, the last one however long it is. */
	events = exceptions_read_events(read->picked, batch_bytes);
	read->max_count = MyWorker.backend->batch_size;
	read->max_bytes = batch_bytes;
	read->max_memory = MemoryContextMemAllocated(read->batch->context, true) + batch_bytes;
	foreach(lc, events)
		if (!take_event(lfirst(lc), read))
			return;
}

/*
 * An error while a message is made ends the step, but is its event's own: it
 * must not hold up what comes behind.  So the event is remembered, and has
 * failed when it is read again, which is at once.
 */
static void
read_batch(ReadStep *read)
{
	MemoryContext old = MemoryContextSwitchTo(read->batch->context);

	PG_TRY();
	{
		read_entries(read);
	}
	PG_CATCH();
	{
		if (being_made != NULL && geterrcode() != ERRCODE_QUERY_CANCELED)
		{
			remember_unmade();
			read->has_unmade = true;
		}
		being_made = NULL;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
}

static void
tell_of_read(const ReadStep *read, const char *what)
{
	const Entry *first;
	const Entry *last;

	if (read->entries == NIL)
		return;
	first = linitial(read->entries);
	last = llast(read->entries);
	worker_debug((errmsg_plural("backend \"%s\": %d event was read %s",
								"backend \"%s\": %d events were read %s",
								list_length(read->entries),
								MyWorker.backend->name, list_length(read->entries), what),
				  errdetail("The first has number " INT64_FORMAT ", the last " INT64_FORMAT
							"; together they have %zu bytes.",
							first->event->id, last->event->id, read->bytes)));
}

/* They are in safe hands now: they go into their window. */
static void
add_entries(Window *window, const ReadStep *read)
{
	ListCell   *lc;

	foreach(lc, read->entries)
		window_add(window, read->batch, lfirst(lc));

	/* All are there now, so that what one of them holds up is seen. */
	foreach(lc, read->entries)
	{
		Entry	   *entry = lfirst(lc);

		if (entry->error == NULL)
			continue;
		forget_unmade(entry->event);
		if (entry->state == ENTRY_WAITING)
			delivery_fail_entry(MyWorker.delivery, entry, entry->error_class, entry->error);
	}
	window_end_batch(window, read->batch);
}

static void
read_events(void *arg)
{
	ReadStep   *read = arg;

	/*
	 * This transaction may have brought news of the configuration, or of events
	 * to be tried again: what was committed after that is not to be sent as it
	 * was before, nor to overtake them.
	 */
	if (exceptions_news_may_be_late())
		progress_load_queue(NULL);
	if (retry_queue_is_partial(MyWorker.queue) ||
		MyWorker.backends_generation != catalog_backends_generation ||
		MyWorker.exceptions_generation != catalog_exceptions_generation)
	{
		MyWorker.look = true;
		return;
	}
	if (cursor_at_end(MyWorker.cursor) && !cursor_advance(MyWorker.cursor, MyWorker.flush_seen))
		return;

	read->batch = window_begin_batch(MyWorker.delivery->window,
									 cursor_before(MyWorker.cursor),
									 cursor_upto(MyWorker.cursor));
	read_batch(read);
}

/* Reads a batch into the window. */
void
supply_events(void)
{
	ReadStep	read = {0};

	/* It may be here without the standby having been waited for. */
	if (session_stop_requested())
		return;
	if (cursor_at_end(MyWorker.cursor))
	{
		MyWorker.next_look = LOOK_INTERVAL +
			Max(MyWorker.next_look, steady_now() - LOOKS_IN_A_ROW * LOOK_INTERVAL);
		MyWorker.look = false;
		MyWorker.flush_seen = pg_atomic_read_u32(&MyWorker.slot->flush_requested);
		pg_memory_barrier();
	}
	if (!worker_run_step(read_events, &read, "read events"))
	{
		MyWorker.look = true;
		if (read.has_unmade)
			MyWorker.next_step = 0;
		if (read.batch != NULL)
			window_end_batch(MyWorker.delivery->window, read.batch);
		return;
	}
	if (read.batch == NULL)
		return;

	/* Nothing may leave the machine before it is durable here. */
	durability_flush(read.lsn);

	tell_of_read(&read, "to be sent");
	add_entries(MyWorker.delivery->window, &read);
	cursor_accept(MyWorker.cursor);
}

static void
read_retries(void *arg)
{
	ReadStep   *read = arg;

	read->batch = window_begin_batch(MyWorker.delivery->retries, NULL, NULL);
	read_batch(read);
}

/* The exception of an event, among those that were picked. */
static Exception *
picked_exception(List *picked, const Event *event)
{
	ListCell   *lc;

	foreach(lc, picked)
	{
		Exception  *exception = lfirst(lc);

		if (memcmp(&exception->event_id, &event->event_id, UUID_LEN) == 0)
			return exception;
	}
	return NULL;
}

/*
 * Picks events whose next attempt is due, and reads them into their window.
 * One whose row has gone meanwhile was discarded.
 */
void
supply_retries(void)
{
	const Backend *backend = MyWorker.backend;
	ReadStep	read = {0};
	int64		last_id = 0;
	ListCell   *lc;

	if (session_stop_requested() || window_count(MyWorker.delivery->retries) > 0)
		return;
	read.picked = retry_queue_pick(MyWorker.queue, backend->ordering, GetCurrentTimestamp(),
								   Max(Max(backend->retry_delay, backend->retry_max_delay),
									   FATE_WAIT_MAX),
								   Min(backend->batch_size, RETRIES_MAX), &MyWorker.next_retry);
	if (read.picked == NIL)
		return;
	if (!worker_run_step(read_retries, &read, "read events to try again"))
	{
		if (read.has_unmade)
			MyWorker.next_step = 0;
		if (read.batch != NULL)
			window_end_batch(MyWorker.delivery->retries, read.batch);
		foreach(lc, read.picked)
			retry_queue_put_back(MyWorker.queue, lfirst(lc));
		return;
	}
	foreach(lc, read.entries)
	{
		Entry	   *entry = lfirst(lc);
		Exception  *exception = picked_exception(read.picked, entry->event);

		entry->exception = *exception;
		last_id = exception->id;
		read.picked = list_delete_ptr(read.picked, exception);
	}
	tell_of_read(&read, "to be tried again");
	add_entries(MyWorker.delivery->retries, &read);

	/* Of the others, those beyond the last were too much for this time. */
	foreach(lc, read.picked)
	{
		Exception  *exception = lfirst(lc);

		if (read.entries != NIL && exception->id >= last_id)
			retry_queue_put_back(MyWorker.queue, exception);
		else
			retry_queue_remove(MyWorker.queue, exception);
	}
}
