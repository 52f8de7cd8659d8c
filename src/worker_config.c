/*-------------------------------------------------------------------------
 *
 * worker_config.c
 *	  A worker's configuration: the row of its backend, and the delivery made of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "catalog.h"
#include "report.h"
#include "session.h"
#include "settings.h"
#include "worker_state.h"

static void
read_backend(void *arg)
{
	Backend   **result = arg;
	uint64		generation = catalog_backends_generation;
	MemoryContext old = MemoryContextSwitchTo(MyWorker.next_context);

	/* Known only when it was read: a change must not be lost with an error. */
	*result = backends_read(MyWorker.backend_id);
	MyWorker.backends_generation = generation;
	MemoryContextSwitchTo(old);
}

static void
count_delivered(const Entry *entry, TimestampTz when)
{
	report_delivered(&MyWorker.report, entry->event->created_at, when);
}

static bool
note_suspect(const Entry *entry)
{
	/* A position must not be stored without the outcomes that it has passed. */
	if (MyWorker.moved_at != 0)
		progress_save();
	return MyWorker.moved_at == 0 &&
		worker_run_step(progress_suspect, &entry->event->event_id,
						"note what it is about to send") &&
		!session_stop_requested();
}

static void
make_delivery(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(MyWorker.config_context);

	MyWorker.delivery = delivery_create(MyWorker.backend, MyWorker.queue, count_delivered);
	MemoryContextSwitchTo(old);
}

/*
 * Starts over at the position, with the configuration as it is now.  Nothing
 * is in flight.
 */
void
worker_rebuild(void)
{
	OutageLog	outage = {0};
	MemoryContext old;
	const char *error;

	if (MyWorker.delivery != NULL)
	{
		outage = MyWorker.delivery->outage;
		delivery_disconnect(MyWorker.delivery);
		window_clear(MyWorker.delivery->window);
		window_clear(MyWorker.delivery->retries);
	}
	if (MyWorker.cursor != NULL)
		cursor_close(MyWorker.cursor);
	if (MyWorker.config_context != NULL)
		MemoryContextDelete(MyWorker.config_context);
	MyWorker.delivery = NULL;
	MyWorker.config_context = MyWorker.next_context;
	MyWorker.backend = MyWorker.next_backend;
	MyWorker.next_context = NULL;
	MyWorker.next_backend = NULL;

	/* What was to be stored is not: it is read again. */
	MemoryContextReset(MyWorker.queue_context);
	old = MemoryContextSwitchTo(MyWorker.queue_context);
	MyWorker.queue = retry_queue_create();
	MyWorker.must_load_queue = true;

	MemoryContextSwitchTo(MyWorker.cursor_context);
	MyWorker.cursor = cursor_open(MyWorker.backend_id, tick_copy(MyWorker.position.before),
						 tick_copy(MyWorker.position.upto), MyWorker.position.settled_id);
	MemoryContextSwitchTo(old);
	MyWorker.look = true;

	if (session_run(make_delivery, NULL, &error) == STEP_ERROR)
	{
		report_error(&MyWorker.report, error);
		worker_log(WARNING,
				   (errmsg("backend \"%s\": %s", MyWorker.backend->name, error),
					errhint("Mend it with dispatch.alter_backend(); events wait.")));
		MyWorker.delivery = NULL;
	}
	else if (MyWorker.delivery != NULL)
	{
		/* Others have died here: all that they may have had in flight. */
		if (MyWorker.position.unclean_ends >= UNCLEAN_ENDS_CAREFUL)
			MyWorker.delivery->careful = BATCHES_IN_FLIGHT * MyWorker.backend->batch_size;
		MyWorker.delivery->before_careful = note_suspect;

		MyWorker.delivery->outage = outage;
	}
}

/*
 * Reads the backend's row again.  False if this backend is not to be served any
 * more.
 */
bool
worker_configure(void)
{
	Backend    *fresh;

	if (MyWorker.next_context != NULL)
		MemoryContextDelete(MyWorker.next_context);
	MyWorker.next_backend = NULL;
	MyWorker.next_context = AllocSetContextCreate(TopMemoryContext, "dispatch backend",
										 ALLOCSET_DEFAULT_SIZES);
	if (!worker_run_step(read_backend, &fresh, "read its configuration"))
		return true;
	if (fresh == NULL || !fresh->ours || (!fresh->enabled && !fresh->dropping))
		return false;
	if (MyWorker.backend == NULL || MyWorker.backend->version != fresh->version)
	{
		MyWorker.next_backend = fresh;
		MyWorker.next_since = MyWorker.turn_time;
		return true;
	}

	/* Only settings may have changed. */
	MyWorker.backend->batch_size = fresh->batch_size;
	MyWorker.backend->sleep_time = fresh->sleep_time;
	MyWorker.backend->max_retries = fresh->max_retries;
	MyWorker.backend->retry_backoff = fresh->retry_backoff;
	MyWorker.backend->retry_delay = fresh->retry_delay;
	MyWorker.backend->retry_max_delay = fresh->retry_max_delay;
	return true;
}
