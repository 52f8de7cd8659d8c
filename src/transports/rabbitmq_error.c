/*-------------------------------------------------------------------------
 *
 * rabbitmq_error.c
 *	  The reply codes of AMQP 0-9-1, and what each means for events.
 *
 * A code stands in basic.return, or in the method by which RabbitMQ closes the
 * channel or the connection.  The table gives two classes.  The first holds
 * when the connection itself is to blame; the second when a single event was
 * in flight, and only it can be.  Where they differ and several are in flight,
 * the culprit is not known: the core sends them again, one at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rabbitmq.h"

typedef struct ErrorRow
{
	int			code;
	const char *name;
	DispatchErrorClass of_connection;
	DispatchErrorClass of_event;
} ErrorRow;

static const ErrorRow errors[] = {
	/* the body is larger than the broker takes at the moment, or ever */
	{311, "CONTENT_TOO_LARGE", DISPATCH_OUTAGE, DISPATCH_EVENT_REJECTED},
	/* no queue is bound for the routing key: basic.return */
	{312, "NO_ROUTE", DISPATCH_OUTAGE, DISPATCH_DESTINATION},
	{313, "NO_CONSUMERS", DISPATCH_OUTAGE, DISPATCH_DESTINATION},
	/* an operator closes the connection, or the broker shuts down */
	{320, "CONNECTION_FORCED", DISPATCH_OUTAGE, DISPATCH_OUTAGE},
	{402, "INVALID_PATH", DISPATCH_CONFIGURATION, DISPATCH_CONFIGURATION},
	/* the login was refused; on the channel, no right to write to the exchange */
	{403, "ACCESS_REFUSED", DISPATCH_CONFIGURATION, DISPATCH_DESTINATION},
	/* there is no such exchange */
	{404, "NOT_FOUND", DISPATCH_CONFIGURATION, DISPATCH_DESTINATION},
	{405, "RESOURCE_LOCKED", DISPATCH_OUTAGE, DISPATCH_DESTINATION},
	/* message too large, user_id of another user, header CC that is no array */
	{406, "PRECONDITION_FAILED", DISPATCH_OUTAGE, DISPATCH_EVENT_REJECTED},
	/* RabbitMQ could not read what we sent: perhaps because of an event */
	{501, "FRAME_ERROR", DISPATCH_OUTAGE, DISPATCH_EVENT_FAILED},
	{502, "SYNTAX_ERROR", DISPATCH_OUTAGE, DISPATCH_EVENT_FAILED},
	{503, "COMMAND_INVALID", DISPATCH_OUTAGE, DISPATCH_OUTAGE},
	{504, "CHANNEL_ERROR", DISPATCH_OUTAGE, DISPATCH_OUTAGE},
	{505, "UNEXPECTED_FRAME", DISPATCH_OUTAGE, DISPATCH_OUTAGE},
	{506, "RESOURCE_ERROR", DISPATCH_BACKPRESSURE, DISPATCH_BACKPRESSURE},
	/* no such virtual host, no right to it, or its limit of connections */
	{530, "NOT_ALLOWED", DISPATCH_CONFIGURATION, DISPATCH_CONFIGURATION},
	{540, "NOT_IMPLEMENTED", DISPATCH_CONFIGURATION, DISPATCH_EVENT_FAILED},
	{541, "INTERNAL_ERROR", DISPATCH_OUTAGE, DISPATCH_OUTAGE},
};

static const ErrorRow unknown_error = {
	0, "unknown error", DISPATCH_OUTAGE, DISPATCH_OUTAGE
};

static const ErrorRow *
find_error(int code)
{
	for (int i = 0; i < (int) lengthof(errors); i++)
		if (errors[i].code == code)
			return &errors[i];
	return &unknown_error;
}

const char *
rabbit_error_name(int code)
{
	return find_error(code)->name;
}

DispatchErrorClass
rabbit_error_class(int code, RabbitScope scope)
{
	const ErrorRow *row = find_error(code);

	return scope == SCOPE_EVENT ? row->of_event : row->of_connection;
}

/* Whether an event alone can be what the code is about. */
bool
rabbit_error_may_be_event(int code)
{
	switch (find_error(code)->of_event)
	{
		case DISPATCH_DESTINATION:
		case DISPATCH_EVENT_FAILED:
		case DISPATCH_EVENT_REJECTED:
			return true;
		default:
			return false;
	}
}
