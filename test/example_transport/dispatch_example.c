/*-------------------------------------------------------------------------
 *
 * dispatch_example.c
 *	  A transport to copy from: it writes events to the server log.
 *
 * It has every part that a transport needs and no broker to distract from
 * them; docs/writing-a-transport.md walks through it.  As if the log were a
 * broker, messages gather in send() and go out in pump(), and each gets its
 * outcome there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "extension/dispatch/dispatch_transport.h"

/* Taken before the first of them is written. */
#define CHUNK_MAX 100

PG_MODULE_MAGIC;

/* Indexes of the table below, and of the values that come in its order. */
enum
{
	OPTION_LABEL,
	OPTION_MAX_LENGTH
};

static const DispatchOption options[] = {
	{"label", DISPATCH_TEMPLATE, DISPATCH_OF_BACKEND | DISPATCH_OF_EVENT, "{event_type}",
	0, 0, NULL, "what a line begins with"},
	{"max_length", DISPATCH_INTEGER, DISPATCH_OF_BACKEND | DISPATCH_OF_EVENT, "1000",
	1, 1000000, NULL, "bytes; an event with a longer body is refused"},
	{0}
};

typedef struct ExampleConnection
{
	DispatchHost *host;
	int			count;
	DispatchMessage *messages[CHUNK_MAX];
} ExampleConnection;

/* What the option table cannot say. */
static const char *
example_check(const DispatchValue *values)
{
	return strchr(values[OPTION_LABEL].text, '\n') == NULL ? NULL :
		"The label must be one line.";
}

/*
 * In host->context, which the core deletes together with the connection: so
 * there is nothing to close.
 */
static void *
example_open(DispatchHost *host, const DispatchValue *values)
{
	ExampleConnection *connection = MemoryContextAllocZero(host->context,
														   sizeof(ExampleConnection));

	connection->host = host;
	return connection;
}

static bool
example_send(void *arg, DispatchMessage *message)
{
	ExampleConnection *connection = arg;

	if (connection->count == CHUNK_MAX)
		return false;
	connection->messages[connection->count++] = message;
	return true;
}

/*
 * In UTF-8, as messages are and most brokers want it.  A log in the encoding of
 * the database would have to be converted to, for which a transaction is needed.
 */
static void
write_line(const DispatchMessage *message)
{
	const DispatchValue *label = &message->options[OPTION_LABEL];

	ereport(LOG,
			(errmsg("%.*s: %.*s", label->text_len, label->text,
					message->body ? (int) message->body_len : 0,
					message->body ? message->body : ""),
			 errhidestmt(true)));
}

static DispatchState
example_pump(void *arg, DispatchWait *wait)
{
	ExampleConnection *connection = arg;
	DispatchHost *host = connection->host;
	int			count = connection->count;

	connection->count = 0;
	for (int i = 0; i < count; i++)
	{
		DispatchMessage *message = connection->messages[i];

		if (message->body_len > (size_t) message->options[OPTION_MAX_LENGTH].integer)
			host->failed(host, message, DISPATCH_EVENT_REJECTED,
						 "the event is too long for the log");
		else
		{
			write_line(message);
			host->delivered(host, message);
		}
	}
	return DISPATCH_READY;
}

static const DispatchTransport transport = {
	.version = DISPATCH_TRANSPORT_VERSION,
	.name = "example",
	.description = "lines of the server log",
	.options = options,
	.destination = "label",
	.check = example_check,
	.open = example_open,
	.send = example_send,
	.pump = example_pump,
};

const DispatchTransport *
dispatch_transport_init(void)
{
	return &transport;
}
