/*-------------------------------------------------------------------------
 *
 * delivery.c
 *	  Sending the events of a window over a connection to the broker.
 *
 * An event counts as delivered when the transport reports the broker's own
 * reply for it, never for having been sent.  When the connection is lost, what
 * has no outcome is sent again over the next one, from the first of them on
 * and in order: consumers may see it twice, but never miss it.
 *
 * Two kinds of failure never mix.  If the broker is away, full, or does not let
 * us in, nothing is the fault of an event: the connection is closed, and after
 * a growing, jittered delay one single event probes whether it is back, then
 * two, four and so on: a broker that is full takes a few, and must not be met
 * with everything at once, nor be called well each time.  If an event itself
 * is refused, that costs it an attempt; it is tried again after a delay of its
 * own, or becomes a dead letter, and the rest goes on, but for later events of
 * its key, which are parked behind it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "backoff.h"
#include "delivery.h"
#include "error_class.h"
#include "session.h"
#include "settings.h"
#include "transport.h"

/* A connection that was ready for this long (ms) was a sound one. */
#define SOUND_CONNECTION 1000

/* So many events in flight, after trouble, show that it is over. */
#define ALLOWANCE_ENOUGH 1024

/* ------------------------------------------------------------------------
 * What transports report
 * ------------------------------------------------------------------------
 */

#define delivery_of(h) ((Delivery *) ((char *) (h) - offsetof(Delivery, host)))

/*
 * The entry of a message that has no outcome yet.  A transport that reports
 * twice, or for a message it was not given, must not settle anything.
 */
static Entry *
sent_entry(Delivery *delivery, DispatchMessage *message)
{
	Entry	   *entry = (Entry *) message;

	if (entry->state != ENTRY_SENT)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
				 errmsg("transport \"%s\" reported an event that it does not have",
						delivery->transport->name)));
	delivery->outcomes++;
	delivery->careful = Max(delivery->careful - 1, 0);
	return entry;
}

static Window *
window_of(const Delivery *delivery, const Entry *entry)
{
	return entry->is_retry ? delivery->retries : delivery->window;
}

int
delivery_in_flight(const Delivery *delivery)
{
	return delivery->window->sent + delivery->retries->sent;
}

static void
host_delivered(DispatchHost *host, DispatchMessage *message)
{
	Delivery   *delivery = delivery_of(host);
	Entry	   *entry = sent_entry(delivery, message);

	window_set_state(window_of(delivery, entry), entry, ENTRY_DELIVERED);
	if (delivery->failures > 0 && delivery_in_flight(delivery) == 0)
		delivery->allowance = Min(delivery->allowance * 2, ALLOWANCE_ENOUGH);
	delivery->singly = Max(delivery->singly - 1, 0);
	gates_opened(delivery->gates, entry);
	/* Thousands come in at a time: one look at the clock is enough for them. */
	if (delivery->replied_at == 0)
		delivery->replied_at = GetCurrentTimestamp();
	delivery->on_delivered(entry, delivery->replied_at);
}

static void
host_failed(DispatchHost *host, DispatchMessage *message,
			DispatchErrorClass error_class, const char *text)
{
	Delivery   *delivery = delivery_of(host);
	Entry	   *entry = sent_entry(delivery, message);
	const ErrorPolicy *policy = error_policy(error_class);

	delivery->singly = Max(delivery->singly - 1, 0);
	delivery->has_verdict = true;
	delivery_fail_entry(delivery, entry, error_class, text);
	if (policy->closes_gate)
		gates_closed(delivery->gates, entry, policy->wait, entry->error);
	else
		gates_opened(delivery->gates, entry);
}

static void
host_returned(DispatchHost *host, DispatchMessage *message)
{
	Delivery   *delivery = delivery_of(host);
	Entry	   *entry = sent_entry(delivery, message);

	window_set_state(window_of(delivery, entry), entry, ENTRY_WAITING);
	gates_unsent(delivery->gates, entry);
}

static void
host_explain(DispatchHost *host, DispatchErrorClass error_class, const char *text)
{
	Delivery   *delivery = delivery_of(host);

	delivery->error_class = error_class;
	error_text_copy(delivery->error, sizeof(delivery->error), text);
	delivery->explained = true;
}

/* ------------------------------------------------------------------------
 * Events that fail
 * ------------------------------------------------------------------------
 */

/* When to try again after so many attempts. */
static TimestampTz
next_attempt(const Backend *backend, int attempts)
{
	long		delay = backend->retry_delay;

	if (backend->retry_backoff)
		delay = backoff_delay(attempts, backend->retry_delay, backend->retry_max_delay);
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), delay);
}

void
delivery_fail_entry(Delivery *delivery, Entry *entry, DispatchErrorClass error_class,
					const char *text)
{
	Exception  *exception = &entry->exception;
	const ErrorPolicy *policy = error_policy(error_class);
	int			max_retries = entry->event->max_retries >= 0 ?
		entry->event->max_retries : delivery->backend->max_retries;

	entry->error = MemoryContextAlloc(entry->batch->context, ERROR_TEXT_LEN);
	error_text_copy(entry->error, ERROR_TEXT_LEN, text);

	if (!entry->is_retry)
		*exception = entry_exception(entry, EXCEPTION_RETRYING);
	exception->status = EXCEPTION_RETRYING;
	if (policy->fate != FATE_WAIT)
		exception->attempts++;
	if (policy->fate == FATE_WAIT)
		exception->next_attempt_at =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), policy->wait);
	else if (policy->fate == FATE_DEAD_LETTER || exception->attempts > max_retries)
		exception->status = EXCEPTION_FAILED;
	else
		exception->next_attempt_at = next_attempt(delivery->backend, exception->attempts);

	/* Failed first: it must not be skipped itself. */
	window_set_state(window_of(delivery, entry), entry, ENTRY_FAILED);
	if (entry->is_retry)
	{
		retry_queue_note(delivery->queue, exception);
		if (entry->event->key != NULL)
			window_skip_key(delivery->retries, entry->key_hash, delivery->queue);
	}
	else
		retry_queue_add(delivery->queue, exception, true);
}

/* ------------------------------------------------------------------------
 * The connection
 * ------------------------------------------------------------------------
 */

Delivery *
delivery_create(const Backend *backend, RetryQueue *queue,
				void (*on_delivered) (const Entry *entry, TimestampTz when))
{
	Delivery   *delivery = palloc0_object(Delivery);

	delivery->context = CurrentMemoryContext;
	delivery->backend = backend;
	delivery->transport = transport_find(backend->transport);
	delivery->maker = message_maker_create(delivery->transport, backend->options);
	delivery->window = window_create();
	delivery->retries = window_create();
	delivery->gates = gates_create(delivery->transport);
	delivery->queue = queue;
	delivery->on_delivered = on_delivered;
	delivery->host.backend = backend->name;
	delivery->host.owner = backend->owner;
	delivery->host.delivered = host_delivered;
	delivery->host.failed = host_failed;
	delivery->host.returned = host_returned;
	delivery->host.explain = host_explain;
	delivery->wait.fd = -1;
	return delivery;
}

void
delivery_disconnect(Delivery *delivery)
{
	MemoryContext context = delivery->host.context;
	void	   *connection = delivery->connection;

	delivery->host.context = NULL;
	delivery->connection = NULL;
	delivery->wait.fd = -1;
	delivery->wait.timeout_ms = -1;
	window_unsend_all(delivery->window);
	window_unsend_all(delivery->retries);
	gates_unsent_all(delivery->gates);
	if (connection != NULL && delivery->transport->close != NULL)
		delivery->transport->close(connection);
	if (context != NULL)
		MemoryContextDelete(context);
}

/* To be seen and heard of, and over only after a while. */
static void
note_trouble(Delivery *delivery)
{
	delivery->failures++;
	delivery->allowance = 1;
	if (!delivery->is_silent)
		outage_log_begin(&delivery->outage, delivery->backend->name,
						 delivery->error_class, delivery->error);
}

/* The connection stands, but the transport has said why it can take nothing. */
static void
note_hold(Delivery *delivery)
{
	delivery->is_held = true;
	delivery->next_attempt = 0;
	note_trouble(delivery);
}

/*
 * The connection is of no use any more.  An idle one that the broker closed is
 * no trouble: it is opened again at once, and only if that fails, or what was
 * in flight is lost, somebody hears of it.  Nor is one that ends because an event
 * was refused: the broker is there, the event has had its failure, and a few
 * such events must not keep the others away for half a minute each.
 */
static void
note_loss(Delivery *delivery)
{
	bool		was_idle = delivery->ready_since != 0 &&
		steady_is_past(delivery->ready_since, SOUND_CONNECTION) &&
		delivery_in_flight(delivery) == 0 &&
		delivery->failures == 0 &&
		(!delivery->explained || delivery->error_class == DISPATCH_OUTAGE);
	bool		was_refusal;
	const ErrorPolicy *policy;

	if (!delivery->explained)
	{
		delivery->error_class = DISPATCH_OUTAGE;
		strlcpy(delivery->error, "the connection was lost", sizeof(delivery->error));
	}
	policy = error_policy(delivery->error_class);
	if (policy->send_singly)
		delivery->singly = delivery_in_flight(delivery);
	was_refusal = delivery->has_verdict && delivery->error_class == DISPATCH_OUTAGE;
	delivery_disconnect(delivery);
	if (was_idle || was_refusal)
	{
		delivery->failures = Min(delivery->failures, 1);
		delivery->next_attempt = 0;
		return;
	}

	note_trouble(delivery);
	delivery->next_attempt = steady_in(backoff_delay(delivery->failures, policy->delay,
													 policy->max_delay));
}

/* Is there anything to be sent? */
static bool
has_waiting(const Delivery *delivery)
{
	return window_next(delivery->retries) != NULL || window_next(delivery->window) != NULL;
}

/* It works again: enough got through, or there is nothing to try it with. */
static void
note_recovery(Delivery *delivery)
{
	delivery->is_held = delivery->explained = false;
	if (delivery->allowance >= ALLOWANCE_ENOUGH ||
		(delivery_in_flight(delivery) == 0 && !has_waiting(delivery)))
		delivery->failures = 0;
	if (delivery->failures == 0)
		outage_log_end(&delivery->outage, delivery->backend->name);
}

static void
open_connection(Delivery *delivery)
{
	delivery->host.context = AllocSetContextCreate(delivery->context,
												   "dispatch connection",
												   ALLOCSET_DEFAULT_SIZES);
	delivery->explained = delivery->is_held = delivery->has_verdict = false;
	delivery->ready_since = 0;
	delivery->state = DISPATCH_CONNECTING;
	delivery->connection = delivery->transport->open(&delivery->host,
													 message_maker_values(delivery->maker));
	if (delivery->connection == NULL)
		delivery->state = DISPATCH_LOST;
}

/* Opens, sends and receives; the transport may raise errors. */
static void
move_io(Delivery *delivery)
{
	uint64		progress = delivery->taken + delivery->outcomes;

	delivery->replied_at = 0;
	if (delivery->host.context == NULL)
		open_connection(delivery);
	if (delivery->state == DISPATCH_READY)
		delivery_send(delivery);
	if (delivery->state != DISPATCH_LOST)
	{
		delivery->wait.fd = -1;
		delivery->wait.events = 0;
		delivery->wait.timeout_ms = -1;
		delivery->state = delivery->transport->pump(delivery->connection, &delivery->wait);
		/* What has just been free, or become ready, may take more. */
		delivery->busy = delivery->state == DISPATCH_READY && !delivery->draining &&
			(delivery->taken + delivery->outcomes != progress || delivery->ready_since == 0) &&
			has_waiting(delivery);
		if (delivery->state == DISPATCH_READY && delivery->ready_since == 0)
			delivery->ready_since = steady_now();
	}
}

void
delivery_pump(Delivery *delivery)
{
	MemoryContext context = CurrentMemoryContext;

	delivery->busy = false;
	if (delivery->host.context == NULL && steady_ms_until(delivery->next_attempt) > 0)
		return;

	PG_TRY();
	{
		move_io(delivery);
	}
	PG_CATCH();
	{
		char	   *text = session_recover(context);

		host_explain(&delivery->host, DISPATCH_OUTAGE, text);
		pfree(text);
		delivery->state = DISPATCH_LOST;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);

	if (delivery->state == DISPATCH_LOST)
		note_loss(delivery);
	else if (delivery->state == DISPATCH_READY)
		note_recovery(delivery);
	else if (delivery->explained && !delivery->is_held)
		note_hold(delivery);
}

long
delivery_timeout(const Delivery *delivery)
{
	if (delivery->busy)
		return 0;
	if (delivery->host.context == NULL)
		return steady_ms_until(delivery->next_attempt);
	return delivery->wait.timeout_ms;
}
