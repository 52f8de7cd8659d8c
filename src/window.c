/*-------------------------------------------------------------------------
 *
 * window.c
 *	  The events that were read and are not settled yet, in order.
 *
 * Events leave at the front only: however outcomes come in, the position moves
 * over a contiguous prefix of settled events and nothing else, so that there
 * is never a settled event behind the position that a crash would forget, nor
 * an unsettled one before it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "window.h"

#define INITIAL_RING_SIZE 1024

Window *
window_create(void)
{
	Window	   *window = palloc0_object(Window);

	window->context = CurrentMemoryContext;
	window->ring_size = INITIAL_RING_SIZE;
	window->ring = palloc_array(Entry *, window->ring_size);
	return window;
}

static Entry **
place_of(const Window *window, uint64 number)
{
	return &window->ring[number & (window->ring_size - 1)];
}

static void
grow_ring(Window *window)
{
	Entry	  **old_ring = window->ring;
	uint64		old_size = window->ring_size;

	window->ring_size *= 2;
	window->ring = MemoryContextAlloc(window->context, window->ring_size * sizeof(Entry *));
	for (uint64 i = window->first; i < window->end; i++)
		*place_of(window, i) = old_ring[i & (old_size - 1)];
	pfree(old_ring);
}

Batch *
window_begin_batch(Window *window, Tick *before, Tick *upto)
{
	MemoryContext context = GenerationContextCreate(window->context, "dispatch batch",
													ALLOCSET_DEFAULT_SIZES);
	Batch	   *batch = MemoryContextAllocZero(context, sizeof(Batch));

	batch->context = context;
	if (before != NULL)
	{
		batch->before = tick_copy(before);
		batch->upto = tick_copy(upto);
	}
	return batch;
}

static void
free_batch(Window *window, Batch *batch)
{
	window->bytes -= batch->bytes;
	if (batch->before != NULL)
	{
		tick_free(batch->before);
		tick_free(batch->upto);
	}
	MemoryContextDelete(batch->context);
}

void
window_add(Window *window, Batch *batch, Entry *entry)
{
	if (window->end - window->first == window->ring_size)
		grow_ring(window);
	entry->batch = batch;
	entry->number = window->end++;
	*place_of(window, entry->number) = entry;
	batch->unsettled++;
	if (entry->event->key != NULL)
		entry->key_hash = exception_key_hash(entry->event->key);
}

void
window_end_batch(Window *window, Batch *batch)
{
	batch->bytes = MemoryContextMemAllocated(batch->context, true);
	window->bytes += batch->bytes;
	if (batch->unsettled == 0)
		free_batch(window, batch);
}

Exception
entry_exception(const Entry *entry, ExceptionStatus status)
{
	Exception	exception = {0};

	exception.id = entry->event->id;
	exception.event_id = entry->event->event_id;
	exception.status = status;
	exception.has_key = entry->event->key != NULL;
	exception.key_hash = entry->key_hash;
	return exception;
}

uint64
window_count(const Window *window)
{
	return window->end - window->first;
}

Entry *
window_entry(const Window *window, uint64 number)
{
	return *place_of(window, number);
}

Entry *
window_next(Window *window)
{
	for (; window->next < window->end; window->next++)
	{
		Entry	   *entry = *place_of(window, window->next);

		if (entry->state == ENTRY_WAITING)
			return entry;
	}
	return NULL;
}

void
window_set_state(Window *window, Entry *entry, EntryState state)
{
	int			change = (state == ENTRY_SENT) - (entry->state == ENTRY_SENT);

	window->sent += change;
	if (entry->event->key != NULL)
		window->keys_sent[entry->key_hash % KEY_COUNTERS] += change;

	entry->state = state;
	if (state == ENTRY_WAITING)
	{
		entry->message.transport_data = NULL;
		window->next = Min(window->next, entry->number);
	}
}

void
window_unsend_all(Window *window)
{
	for (uint64 i = window->first; i < window->end; i++)
	{
		Entry	   *entry = *place_of(window, i);

		if (entry->state == ENTRY_SENT)
			window_set_state(window, entry, ENTRY_WAITING);
	}
}

bool
window_key_is_sent(const Window *window, const Entry *entry)
{
	return entry->event->key != NULL &&
		window->keys_sent[entry->key_hash % KEY_COUNTERS] > 0;
}

Entry *
window_first(const Window *window)
{
	return window->first < window->end ? *place_of(window, window->first) : NULL;
}

/* The last that is seen of an entry. */
static void
release(Window *window, Entry *entry)
{
	Batch	   *batch = entry->batch;

	if (--batch->unsettled == 0)
		free_batch(window, batch);
}

static Entry *
remove_first(Window *window)
{
	Entry	   *entry = window_first(window);

	window->first++;
	window->next = Max(window->next, window->first);
	return entry;
}

static void
hold(Window *window, Entry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(window->context);

	window->held = lappend(window->held, entry);
	MemoryContextSwitchTo(old);
}

/*
 * Ids are equal only if somebody has set the sequence back: such events must
 * not be parted, for a position between them would pass over the second.
 */
static bool
has_twin(const Window *window, const Entry *entry)
{
	const Entry *next = window_first(window);

	return next != NULL && next->batch->upto == entry->batch->upto &&
		next->event->id == entry->event->id;
}

static void
move_position(Position *position, const Entry *entry)
{
	if (position->upto != entry->batch->upto)
	{
		tick_free(position->before);
		tick_free(position->upto);
		position->before = tick_copy(entry->batch->before);
		position->upto = tick_copy(entry->batch->upto);
	}
	position->settled_id = entry->event->id;
}

int
window_settle(Window *window, Position *position)
{
	Entry	   *entry;
	int			count = 0;

	while ((entry = window_first(window)) != NULL &&
		   entry->state != ENTRY_WAITING && entry->state != ENTRY_SENT)
	{
		remove_first(window);
		if (position != NULL && !has_twin(window, entry))
			move_position(position, entry);
		if (entry->state == ENTRY_SKIPPED ||
			(entry->state == ENTRY_DELIVERED && !entry->is_retry))
			release(window, entry);
		else
			hold(window, entry);
		count++;
	}
	return count;
}

void
window_release_held(Window *window)
{
	ListCell   *lc;

	foreach(lc, window->held)
		release(window, lfirst(lc));
	list_free(window->held);
	window->held = NIL;
}

void
window_skip(Window *window, Entry *entry, RetryQueue *queue)
{
	window_set_state(window, entry, ENTRY_SKIPPED);
	retry_queue_put_back(queue, &entry->exception);
}

void
window_skip_key(Window *window, uint32 key_hash, RetryQueue *queue)
{
	for (uint64 i = window->first; i < window->end; i++)
	{
		Entry	   *entry = *place_of(window, i);

		if (entry->event->key == NULL ||
			entry->key_hash % KEY_COUNTERS != key_hash % KEY_COUNTERS)
			continue;
		if (entry->state == ENTRY_WAITING)
			window_skip(window, entry, queue);
		else if (entry->state == ENTRY_SENT)
			entry->skip_if_returned = true;
	}
}

void
window_clear(Window *window)
{
	Assert(window->sent == 0);
	while (window->first < window->end)
		release(window, remove_first(window));
	window_release_held(window);
	window->next = window->end;
}
