/*-------------------------------------------------------------------------
 *
 * delivery_send.c
 *	  Which of the waiting events are given to the transport, and when.
 *
 * Events that are tried again go before those of the log, and each window in
 * its order, as many as may be in flight.  An event of a key that is held up is
 * parked behind it; others pass.  An event whose destination takes none for now
 * (gate.c) waits as those did that were refused there, not in its place: nothing
 * can be settled past that, and others are to go on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "delivery.h"

/* Later events of a key that is held up must not overtake. */
static void
park_entry(Delivery *delivery, Entry *entry)
{
	entry->exception = entry_exception(entry, EXCEPTION_PARKED);
	retry_queue_add(delivery->queue, &entry->exception, true);
	window_set_state(delivery->window, entry, ENTRY_PARKED);
}

/* May one more event be in flight? */
static bool
may_send_more(const Delivery *delivery)
{
	int			in_flight = delivery_in_flight(delivery);

	if (delivery->draining)
		return false;
	/* The broker was in trouble: a few events find out whether it is back. */
	if (delivery->failures > 0 && in_flight >= delivery->allowance)
		return false;
	/* One of some events lost us the connection: which one? */
	return (delivery->singly == 0 && delivery->careful == 0) || in_flight == 0;
}

/*
 * Must this event wait for another one of its key?  For one that has failed and is
 * not known to the queue, of which there may be one of any key; in strict order
 * also for one that is under way or before it in line.
 */
static bool
is_held_up(const Delivery *delivery, const Entry *entry, bool *held)
{
	uint32		key = entry->key_hash % KEY_COUNTERS;

	if (delivery->backend->ordering == ORDER_NONE || entry->event->key == NULL)
		return false;
	if (!entry->is_retry && retry_queue_is_partial(delivery->queue))
		return true;
	if (delivery->backend->ordering != ORDER_STRICT)
		return false;
	if (window_key_is_sent(delivery->window, entry) ||
		window_key_is_sent(delivery->retries, entry))
		held[key] = true;
	return held[key];
}

static bool
must_park(const Delivery *delivery, const Entry *entry)
{
	return !entry->is_retry && entry->event->key != NULL &&
		delivery->backend->ordering != ORDER_NONE &&
		retry_queue_holds_key(delivery->queue, entry->key_hash);
}

/*
 * Has this retry come back without an outcome, while one of its key that was
 * under way with it has failed?  That one goes first, when its delay is over.
 */
static bool
must_skip(const Delivery *delivery, const Entry *entry)
{
	return entry->skip_if_returned && delivery->backend->ordering != ORDER_NONE;
}

/*
 * Does the destination of this event take none for now?  Then it is dealt with.
 * What was refused there before need not be stored again: nothing is new but
 * the time.
 */
static bool
waits_at_gate(Delivery *delivery, Entry *entry)
{
	long		ms = gates_ms_closed(delivery->gates, entry);

	if (ms == 0)
		return false;
	if (!entry->is_retry || entry->exception.status != EXCEPTION_RETRYING)
		delivery_fail_entry(delivery, entry, DISPATCH_DESTINATION,
							gates_reason(delivery->gates, entry));
	else
	{
		entry->exception.next_attempt_at =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
		window_skip(delivery->retries, entry, delivery->queue);
		if (entry->event->key != NULL)
			window_skip_key(delivery->retries, entry->key_hash, delivery->queue);
	}
	return true;
}

/*
 * Sends from one window as far as that goes; false when nothing more can be
 * taken.  Other keys pass those that are held up.
 */
static bool
send_window(Delivery *delivery, Window *window)
{
	bool		held[KEY_COUNTERS];

	if (window_next(window) == NULL)
		return true;
	memset(held, 0, sizeof(held));
	for (uint64 number = window->next; number < window->end; number++)
	{
		Entry	   *entry = window_entry(window, number);

		if (entry->state != ENTRY_WAITING)
			continue;
		if (must_park(delivery, entry))
		{
			park_entry(delivery, entry);
			continue;
		}
		if (must_skip(delivery, entry))
		{
			window_skip(window, entry, delivery->queue);
			continue;
		}
		if (!may_send_more(delivery))
			return false;
		if (is_held_up(delivery, entry, held) || waits_at_gate(delivery, entry))
			continue;
		if (delivery->careful > 0 && !delivery->before_careful(entry))
			return false;

		/* Before send(), which may report the outcome already. */
		window_set_state(window, entry, ENTRY_SENT);
		gates_sent(delivery->gates, entry);
		if (!delivery->transport->send(delivery->connection, &entry->message))
		{
			window_set_state(window, entry, ENTRY_WAITING);
			gates_unsent(delivery->gates, entry);
			return false;
		}
		delivery->taken++;
	}
	return true;
}

void
delivery_send(Delivery *delivery)
{
	if (send_window(delivery, delivery->retries))
		send_window(delivery, delivery->window);
}
