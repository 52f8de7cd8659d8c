/*-------------------------------------------------------------------------
 *
 * rabbitmq_flight.c
 *	  The messages in flight, from RabbitMQ's confirms to their outcomes.
 *
 * RabbitMQ numbers the messages of a channel from 1 on, and confirms them by
 * number, one or many at once (all up to a number), in any order.  A number
 * that was not sent, or was confirmed before, means that we and RabbitMQ no
 * longer speak of the same messages: then nothing is credited any more.
 *
 * RabbitMQ refuses a message (nack) when a queue is full or in trouble.  It says
 * so at once, but confirms what it took before only when that is on disk.  So no
 * more messages are taken then, and when all in flight have their answer the
 * connection is lost, so that the core sends the refused ones again, in order
 * and later.  Losing it at once would send again what was about to be
 * confirmed, and that at every attempt.
 *
 * A message that reaches no queue is confirmed, too; but before that RabbitMQ
 * sends it back, with its exchange, routing key and message id, by which it is
 * known.  Who sets the option message_id may have several of one id, exchange
 * and key in flight; then all of them count as sent back: one too many comes
 * again, but none is lost.
 *
 * When RabbitMQ closes the channel because of an event it does not say which.
 * The core then sends those in flight singly, and the one that is alone is
 * convicted.  From then on, messages to its exchange go alone: they are
 * suspects, and the next conviction shall cost nobody else a repetition.  A
 * suspect that is delivered clears the exchange.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rabbitmq.h"

/* As many messages are in flight at most; a power of 2. */
#define FLIGHT_SIZE 8192

/* As many exchanges are under suspicion; the oldest is forgotten. */
#define MAX_SUSPECTS 32

typedef struct FlightEntry
{
	DispatchMessage *message;	/* NULL: it had its outcome */
	uint64		end_of_message; /* bytes of output up to its end */
	bool		refused;		/* stays without an outcome */
	bool		returned;
	int			return_code;
} FlightEntry;

struct RabbitFlight
{
	DispatchHost *host;
	uint64		first;			/* tag of the oldest without outcome */
	uint64		next;			/* tag of the next to be added */
	int			nopen;			/* neither confirmed nor refused */
	int			nrefused;
	DispatchMessage *refused;	/* one of them */
	bool		has_suspect;	/* the only one in flight is */
	int			nsuspects;		/* ever noted; the last MAX_SUSPECTS count */
	char		suspects[MAX_SUSPECTS][SHORT_STRING_MAX + 1];
	FlightEntry ring[FLIGHT_SIZE];
};

/* In the current memory context. */
RabbitFlight *
rabbit_flight_create(DispatchHost *host)
{
	RabbitFlight *flight = palloc0(sizeof(RabbitFlight));

	flight->host = host;
	rabbit_flight_restart(flight);
	return flight;
}

/* On a new channel, tags begin anew.  Nothing may be in flight. */
void
rabbit_flight_restart(RabbitFlight *flight)
{
	flight->first = flight->next = 1;
	flight->nopen = 0;
	flight->has_suspect = false;
}

/* How many messages RabbitMQ has not answered yet. */
int
rabbit_flight_count(const RabbitFlight *flight)
{
	return flight->nopen;
}

static FlightEntry *
entry_of(RabbitFlight *flight, uint64 tag)
{
	return &flight->ring[tag % FLIGHT_SIZE];
}

/* ------------------------------------------------------------------------
 * Suspects
 * ------------------------------------------------------------------------
 */

/* The place of an exchange among the suspects; -1 if it is none. */
static int
find_suspect(const RabbitFlight *flight, const char *exchange)
{
	for (int i = 0; i < Min(flight->nsuspects, MAX_SUSPECTS); i++)
		if (strcmp(flight->suspects[i], exchange) == 0)
			return i;
	return -1;
}

static void
suspect(RabbitFlight *flight, const char *exchange)
{
	if (find_suspect(flight, exchange) < 0)
		strlcpy(flight->suspects[flight->nsuspects++ % MAX_SUSPECTS], exchange,
				SHORT_STRING_MAX + 1);
}

/* No exchange has the name that is left in its place. */
static void
clear_suspect(RabbitFlight *flight, const char *exchange)
{
	int			i = find_suspect(flight, exchange);

	if (i >= 0)
		strlcpy(flight->suspects[i], "\n", SHORT_STRING_MAX + 1);
}

/* ------------------------------------------------------------------------
 * Adding
 * ------------------------------------------------------------------------
 */

bool
rabbit_flight_may_add(RabbitFlight *flight, const char *exchange)
{
	if (flight->nrefused > 0)
		return false;
	if (flight->nopen == 0)
		return true;
	return flight->next - flight->first < FLIGHT_SIZE && !flight->has_suspect &&
		(flight->nsuspects == 0 || find_suspect(flight, exchange) < 0);
}

void
rabbit_flight_add(RabbitFlight *flight, DispatchMessage *message,
				  uint64 end_of_message)
{
	const char *exchange = message->options[OPTION_EXCHANGE].text;
	FlightEntry *entry;

	if (flight->nsuspects > 0 && find_suspect(flight, exchange) >= 0)
		flight->has_suspect = true;
	entry = entry_of(flight, flight->next++);
	memset(entry, 0, sizeof(*entry));
	entry->message = message;
	entry->end_of_message = end_of_message;
	flight->nopen++;
}

/* ------------------------------------------------------------------------
 * Outcomes
 * ------------------------------------------------------------------------
 */

/* Reports the outcome of a message that was confirmed. */
static void
settle(RabbitFlight *flight, FlightEntry *entry)
{
	DispatchMessage *message = entry->message;
	const char *exchange = message->options[OPTION_EXCHANGE].text;
	char		text[4 * SHORT_STRING_MAX];

	entry->message = NULL;
	flight->nopen--;
	if (!entry->returned)
	{
		if (flight->has_suspect)
			clear_suspect(flight, exchange);
		flight->host->delivered(flight->host, message);
	}
	else
	{
		snprintf(text, sizeof(text),
				 "%s: no queue is bound to exchange \"%s\" for routing key \"%s\"",
				 rabbit_error_name(entry->return_code), exchange,
				 message->options[OPTION_ROUTING_KEY].text);
		flight->host->failed(flight->host, message,
							 rabbit_error_class(entry->return_code, SCOPE_EVENT), text);
	}
	flight->has_suspect = false;
}

/* Whether a message can be answered: it was sent, and had no answer yet. */
static bool
is_open(RabbitFlight *flight, uint64 tag, uint64 written)
{
	FlightEntry *entry = entry_of(flight, tag);

	return tag >= flight->first && tag < flight->next && entry->message != NULL &&
		!entry->refused && entry->end_of_message <= written;
}

/*
 * After refusals, the connection is lost as soon as nothing is open any more:
 * false after explain().
 */
static bool
check_refused(RabbitFlight *flight)
{
	if (flight->nrefused == 0 || flight->nopen > 0)
		return true;
	return rabbit_explain(flight->host, DISPATCH_BACKPRESSURE,
						  "RabbitMQ refused %d events (nack), one of them for exchange \"%s\", "
						  "routing key \"%s\": a queue is full or in trouble",
						  flight->nrefused,
						  flight->refused->options[OPTION_EXCHANGE].text,
						  flight->refused->options[OPTION_ROUTING_KEY].text);
}

/*
 * Takes a confirm or a refusal of one message, or of all up to one; "written"
 * bytes of output are with the kernel.  False, after explain(), when the
 * connection is lost.
 */
bool
rabbit_flight_answer(RabbitFlight *flight, bool confirmed, uint64 tag,
					 bool multiple, uint64 written)
{
	if (!is_open(flight, tag, written))
		return rabbit_explain(flight->host, DISPATCH_OUTAGE,
							  "RabbitMQ sent a confirm or refusal of message " UINT64_FORMAT
							  ", which was not in flight", tag);

	for (uint64 t = multiple ? flight->first : tag; t <= tag; t++)
	{
		FlightEntry *entry = entry_of(flight, t);

		if (entry->message == NULL || entry->refused)
			continue;
		if (confirmed)
			settle(flight, entry);
		else
		{
			entry->refused = true;
			flight->refused = entry->message;
			flight->nrefused++;
			flight->nopen--;
		}
	}
	while (flight->first < flight->next && entry_of(flight, flight->first)->message == NULL)
		flight->first++;
	return check_refused(flight);
}

/* False, after explain(), if there is no such message. */
bool
rabbit_flight_return(RabbitFlight *flight, const RabbitReturned *returned)
{
	bool		found = false;

	for (uint64 tag = flight->first; tag < flight->next; tag++)
	{
		FlightEntry *entry = entry_of(flight, tag);
		const DispatchMessage *message = entry->message;

		if (message == NULL ||
			strcmp(rabbit_message_id(message), returned->message_id) != 0 ||
			strcmp(message->options[OPTION_EXCHANGE].text, returned->exchange) != 0 ||
			strcmp(message->options[OPTION_ROUTING_KEY].text, returned->routing_key) != 0)
			continue;
		found = true;
		entry->returned = true;
		entry->return_code = returned->code;
	}
	if (found)
		return true;
	return rabbit_explain(flight->host, DISPATCH_OUTAGE,
						  "RabbitMQ returned a message that was not in flight");
}

/* The oldest that RabbitMQ has not answered. */
static FlightEntry *
first_open(RabbitFlight *flight)
{
	uint64		tag = flight->first;

	while (entry_of(flight, tag)->message == NULL || entry_of(flight, tag)->refused)
		tag++;
	return entry_of(flight, tag);
}

/*
 * RabbitMQ closed the channel, or the connection, because of a message.  True
 * if it could only be one, which then has failed: nothing is in flight any
 * more.  Else false, after explain().
 */
bool
rabbit_flight_convict(RabbitFlight *flight, const RabbitClosed *closed)
{
	DispatchErrorClass error_class = rabbit_error_class(closed->code, SCOPE_CONNECTION);
	DispatchMessage *message;

	if (flight->nopen > 1 && rabbit_error_may_be_event(closed->code))
		error_class = DISPATCH_CULPRIT_UNKNOWN;
	if (flight->nopen != 1 || !rabbit_error_may_be_event(closed->code))
		return rabbit_explain(flight->host, error_class, "%d %s", closed->code, closed->text);

	error_class = rabbit_error_class(closed->code, SCOPE_EVENT);
	message = first_open(flight)->message;
	if (error_class == DISPATCH_DESTINATION)
		suspect(flight, message->options[OPTION_EXCHANGE].text);
	flight->nopen--;
	flight->host->failed(flight->host, message, error_class,
						 psprintf("%d %s", closed->code, closed->text));
	return check_refused(flight);
}
