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

#include "common/hashfn.h"
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
	batch->before = tick_copy(before);
	batch->upto = tick_copy(upto);
	return batch;
}

static void
free_batch(Window *window, Batch *batch)
{
	window->bytes -= batch->bytes;
	tick_free(batch->before);
	tick_free(batch->upto);
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
	if (entry->state == ENTRY_FAILED && window->failed == NULL)
		window->failed = entry;
	if (entry->event->key != NULL)
		entry->key_hash = string_hash(entry->event->key, strlen(entry->event->key) + 1);
}

void
window_end_batch(Window *window, Batch *batch)
{
	batch->bytes = MemoryContextMemAllocated(batch->context, true);
	window->bytes += batch->bytes;
	if (batch->unsettled == 0)
		free_batch(window, batch);
}

uint64
window_count(const Window *window)
{
	return window->end - window->first;
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
	if (state == ENTRY_FAILED &&
		(window->failed == NULL || entry->number < window->failed->number))
		window->failed = entry;
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

/* Takes the first entry out. */
static void
remove_first(Window *window)
{
	Batch	   *batch = window_first(window)->batch;

	window->first++;
	window->next = Max(window->next, window->first);
	if (--batch->unsettled == 0)
		free_batch(window, batch);
}

int
window_settle(Window *window, Position *position)
{
	Entry	   *entry;
	int			count = 0;

	while ((entry = window_first(window)) != NULL && entry->state == ENTRY_DELIVERED)
	{
		if (position->upto != entry->batch->upto)
		{
			tick_free(position->before);
			tick_free(position->upto);
			position->before = tick_copy(entry->batch->before);
			position->upto = tick_copy(entry->batch->upto);
		}
		position->settled_id = entry->event->id;
		remove_first(window);
		count++;
	}
	return count;
}

void
window_clear(Window *window)
{
	Assert(window->sent == 0);
	while (window->first < window->end)
		remove_first(window);
	window->next = window->end;
	window->failed = NULL;
}
