/*-------------------------------------------------------------------------
 *
 * notify.c
 *	  The transport "notify": LISTEN and NOTIFY, which need no broker.
 *
 * Messages gather in send(), and pump() notifies them in one transaction: its
 * commit delivers all of them.  Who does not listen at that moment misses them,
 * as is the way of NOTIFY.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/async.h"
#include "utils/memutils.h"

#include "session.h"
#include "transport.h"
#include "utf8.h"

/* What NOTIFY takes, see NOTIFY_PAYLOAD_MAX_LENGTH in async.c. */
#define PAYLOAD_MAX (BLCKSZ - NAMEDATALEN - 128 - 1)

/* Notified in one transaction. */
#define CHUNK_MAX 1000

enum
{
	OPTION_CHANNEL
};

static const DispatchOption options[] = {
	{"channel", DISPATCH_TEMPLATE, DISPATCH_OF_BACKEND | DISPATCH_OF_EVENT, "dispatch",
	1, NAMEDATALEN - 1, NULL, "channel to notify"},
	{0}
};

typedef struct NotifyConnection
{
	DispatchHost *host;
	int			count;
	DispatchMessage *messages[CHUNK_MAX];
	const char *refusals[CHUNK_MAX];	/* why it cannot be notified; NULL: it can */
} NotifyConnection;

static void *
notify_open(DispatchHost *host, const DispatchValue *values)
{
	NotifyConnection *connection = MemoryContextAllocZero(host->context,
														  sizeof(NotifyConnection));

	connection->host = host;
	return connection;
}

/*
 * NOTIFY drops what equals an earlier notification of the transaction.  Only
 * bodies that hold our id of the event are never equal.
 */
static bool
is_unique(const DispatchMessage *message)
{
	return message->body != NULL && strstr(message->body, message->event_id) != NULL;
}

static bool
notify_send(void *arg, DispatchMessage *message)
{
	NotifyConnection *connection = arg;
	DispatchHost *host = connection->host;

	if (connection->count == CHUNK_MAX ||
		(connection->count > 0 &&
		 !(is_unique(message) && is_unique(connection->messages[0]))))
		return false;

	if (message->body != NULL && !utf8_is_text(message->body, message->body_len))
		host->failed(host, message, DISPATCH_EVENT_REJECTED,
					 "the event is binary, which a notification cannot be");
	else
		connection->messages[connection->count++] = message;
	return true;
}

/*
 * Notifies a message, or returns why that cannot be.  Sizes count in the
 * encoding of the database, which for some texts takes more bytes than UTF-8.
 */
static const char *
notify_message(const DispatchMessage *message)
{
	const DispatchValue *option = &message->options[OPTION_CHANNEL];
	const char *channel = utf8_to_database(option->text, option->text_len);
	const char *payload = message->body == NULL ? "" :
		utf8_to_database(message->body, message->body_len);

	if (channel == NULL || payload == NULL)
		return "the event has characters that the encoding of the database lacks";
	if (strlen(channel) >= NAMEDATALEN)
		return "the name of the channel is longer than 63 bytes";
	if (strlen(payload) > PAYLOAD_MAX)
		return "the event is larger than a notification can be, about 8000 bytes";
	Async_Notify(channel, payload);
	return NULL;
}

static void
notify_messages(void *arg)
{
	NotifyConnection *connection = arg;

	for (int i = 0; i < connection->count; i++)
		connection->refusals[i] = notify_message(connection->messages[i]);
}

static DispatchState
notify_pump(void *arg, DispatchWait *wait)
{
	NotifyConnection *connection = arg;
	DispatchHost *host = connection->host;
	const char *error;
	int			count = connection->count;

	if (count == 0)
		return DISPATCH_READY;

	/* An error is no fault of an event: each of them was checked. */
	if (session_run(notify_messages, connection, &error) != STEP_DONE)
	{
		host->explain(host, DISPATCH_BACKPRESSURE, error);
		return DISPATCH_LOST;
	}
	connection->count = 0;
	for (int i = 0; i < count; i++)
	{
		DispatchMessage *message = connection->messages[i];

		if (connection->refusals[i] == NULL)
			host->delivered(host, message);
		else
			host->failed(host, message, DISPATCH_EVENT_REJECTED, connection->refusals[i]);
	}
	return DISPATCH_READY;
}

static const DispatchTransport transport = {
	.version = DISPATCH_TRANSPORT_VERSION,
	.name = "notify",
	.description = "LISTEN and NOTIFY",
	.options = options,
	.destination = "channel",
	.open = notify_open,
	.send = notify_send,
	.pump = notify_pump,
};

const DispatchTransport *
notify_transport(void)
{
	return &transport;
}
