/*-------------------------------------------------------------------------
 *
 * retry_queue.c
 *	  Which events of a backend wait for another attempt, and in what order.
 *
 * The worker's memory of the rows of dispatch.exceptions that are still open,
 * a few dozen bytes each: the events themselves stay in the table until it is
 * their turn.  It also holds events whose row is yet to be written, so that it
 * alone can tell whether a key is held up.
 *
 * In order of their ids, and by key: an event that has failed goes alone, and
 * what is parked behind it follows when it is settled; parked events follow
 * each other without waiting, as events of the log do, unless the ordering is
 * strict.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "retry_queue.h"

typedef struct Item
{
	Exception	exception;
	bool		busy;
	bool		gone;			/* removed; its place is closed later */
	bool		matched;		/* for retry_queue_match() */
} Item;

struct RetryQueue
{
	MemoryContext context;
	int			count;
	int			ngone;			/* of those, removed */
	int			allocated;
	bool		is_partial;		/* there are rows that were too many for it */
	Item	   *items;			/* by id */
	uint32		keys[KEY_COUNTERS]; /* items by hash of their key */

	/* The last look at all of them; nothing has changed since. */
	bool		is_scanned;
	Ordering	ordering;
	long		longest_delay;
	TimestampTz scanned_at;
	TimestampTz next_due;
};

RetryQueue *
retry_queue_create(void)
{
	RetryQueue *queue = palloc0_object(RetryQueue);

	queue->context = CurrentMemoryContext;
	queue->allocated = 64;
	queue->items = palloc_array(Item, queue->allocated);
	return queue;
}

int
retry_queue_count(const RetryQueue *queue)
{
	return queue->count - queue->ngone;
}

bool
retry_queue_is_partial(const RetryQueue *queue)
{
	return queue->is_partial;
}

bool
retry_queue_holds_key(const RetryQueue *queue, uint32 key_hash)
{
	return queue->keys[key_hash % KEY_COUNTERS] > 0;
}

/* The place of an id, or where it would be. */
static int
place_of(const RetryQueue *queue, const Exception *exception)
{
	int			low = 0;
	int			high = queue->count;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (queue->items[middle].exception.id < exception->id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static Item *
find(const RetryQueue *queue, const Exception *exception)
{
	for (int i = place_of(queue, exception);
		 i < queue->count && queue->items[i].exception.id == exception->id; i++)
		if (!queue->items[i].gone &&
			memcmp(&queue->items[i].exception.event_id, &exception->event_id, UUID_LEN) == 0)
			return &queue->items[i];
	return NULL;
}

static void
count_key(RetryQueue *queue, const Exception *exception, int change)
{
	if (exception->has_key)
		queue->keys[exception->key_hash % KEY_COUNTERS] += change;
}

void
retry_queue_add(RetryQueue *queue, const Exception *exception, bool busy)
{
	int			place = place_of(queue, exception);

	queue->is_scanned = false;
	if (queue->count == queue->allocated)
	{
		queue->allocated *= 2;
		queue->items = repalloc_array(queue->items, Item, queue->allocated);
	}
	memmove(&queue->items[place + 1], &queue->items[place],
			(queue->count - place) * sizeof(Item));
	queue->items[place].exception = *exception;
	queue->items[place].busy = busy;
	queue->items[place].gone = false;
	queue->items[place].matched = true;
	queue->count++;
	count_key(queue, exception, 1);
}

void
retry_queue_note(RetryQueue *queue, const Exception *exception)
{
	Item	   *item = find(queue, exception);

	queue->is_scanned = false;
	if (item != NULL)
		item->exception = *exception;
}

void
retry_queue_put_back(RetryQueue *queue, const Exception *exception)
{
	Item	   *item = find(queue, exception);

	queue->is_scanned = false;
	if (item == NULL)
		return;
	item->exception = *exception;
	item->busy = false;
}

static void
remove_item(RetryQueue *queue, Item *item)
{
	queue->is_scanned = false;
	count_key(queue, &item->exception, -1);
	item->gone = true;
	queue->ngone++;
}

/* Closes the places of what was removed, when that is worth it. */
static void
compact(RetryQueue *queue)
{
	int			kept = 0;

	if (queue->ngone <= queue->count / 2)
		return;
	for (int i = 0; i < queue->count; i++)
		if (!queue->items[i].gone)
			queue->items[kept++] = queue->items[i];
	queue->count = kept;
	queue->ngone = 0;
}

void
retry_queue_remove(RetryQueue *queue, const Exception *exception)
{
	Item	   *item = find(queue, exception);

	if (item != NULL)
		remove_item(queue, item);
	compact(queue);
}

void
retry_queue_match(RetryQueue *queue, List *exceptions)
{
	bool		is_partial = list_length(exceptions) > RETRY_QUEUE_MAX;
	/* Of the rows behind the last of so many nothing is known. */
	int64		last_id = is_partial ? ((Exception *) llast(exceptions))->id : PG_INT64_MAX;
	ListCell   *lc;

	queue->is_partial = is_partial;
	queue->is_scanned = false;
	for (int i = 0; i < queue->count; i++)
	{
		Item	   *item = &queue->items[i];

		item->matched = item->busy || item->exception.id > last_id;
	}
	foreach(lc, exceptions)
	{
		Exception  *exception = lfirst(lc);
		Item	   *item = find(queue, exception);

		if (item == NULL)
			retry_queue_add(queue, exception, false);
		else if (!item->busy)
		{
			item->exception = *exception;
			item->matched = true;
		}
	}
	for (int i = 0; i < queue->count; i++)
		if (!queue->items[i].gone && !queue->items[i].matched)
			remove_item(queue, &queue->items[i]);
	compact(queue);
}

/*
 * Would a look find what the last one has left: nothing?  There may be 100,000
 * events, and a worker has a turn for each batch.
 */
static bool
is_nothing_due(const RetryQueue *queue, Ordering ordering, TimestampTz now, long longest_delay)
{
	return queue->is_scanned && queue->ordering == ordering &&
		queue->longest_delay == longest_delay &&
		now >= queue->scanned_at &&		/* the clock was not set back */
		(queue->next_due == 0 || now < queue->next_due);
}

List *
retry_queue_pick(RetryQueue *queue, Ordering ordering, TimestampTz now, long longest_delay,
				 int maximum, TimestampTz *next_due)
{
	bool		held[KEY_COUNTERS] = {0};
	List	   *picked = NIL;

	*next_due = queue->next_due;
	if (is_nothing_due(queue, ordering, now, longest_delay))
		return NIL;
	*next_due = 0;
	for (int i = 0; i < queue->count && list_length(picked) < maximum; i++)
	{
		Item	   *item = &queue->items[i];
		Exception  *exception = &item->exception;
		uint32		key = exception->key_hash % KEY_COUNTERS;
		bool		is_ordered = exception->has_key && ordering != ORDER_NONE;
		/* Further away than it can be: the clock was set back. */
		bool		is_due = exception->status == EXCEPTION_PARKED ||
			exception->next_attempt_at <= now ||
			exception->next_attempt_at - now > longest_delay * INT64CONST(1000);

		if (item->gone || (is_ordered && held[key]))
			continue;
		if (!item->busy && !is_due)
		{
			if (*next_due == 0 || exception->next_attempt_at < *next_due)
				*next_due = exception->next_attempt_at;
		}
		else if (!item->busy)
		{
			Exception  *copy = palloc_object(Exception);

			*copy = *exception;
			picked = lappend(picked, copy);
			item->busy = true;
		}
		/* Who comes later with this key waits, except behind a parked one. */
		held[key] = held[key] ||
			(is_ordered && (exception->status != EXCEPTION_PARKED ||
							ordering == ORDER_STRICT || !is_due));
	}
	queue->is_scanned = picked == NIL;
	queue->ordering = ordering;
	queue->longest_delay = longest_delay;
	queue->scanned_at = now;
	queue->next_due = *next_due;
	return picked;
}
