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
#include "mb/pg_wchar.h"
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

	if (message->options[OPTION_CHANNEL].text_len >= NAMEDATALEN)
		host->failed(host, message, DISPATCH_EVENT_REJECTED,
					 "the name of the channel is longer than 63 bytes");
	else if (message->body_len > PAYLOAD_MAX)
		host->failed(host, message, DISPATCH_EVENT_REJECTED,
					 "the event is larger than a notification can be, about 8000 bytes");
	else if (message->body != NULL && !utf8_is_text(message->body, message->body_len))
		host->failed(host, message, DISPATCH_EVENT_REJECTED,
					 "the event is binary, which a notification cannot be");
	else
		connection->messages[connection->count++] = message;
	return true;
}

static void
notify_messages(void *arg)
{
	NotifyConnection *connection = arg;

	for (int i = 0; i < connection->count; i++)
	{
		DispatchMessage *message = connection->messages[i];
		const DispatchValue *channel = &message->options[OPTION_CHANNEL];

		Async_Notify(pg_any_to_server(channel->text, channel->text_len, PG_UTF8),
					 message->body == NULL ? "" :
					 pg_any_to_server(message->body, message->body_len, PG_UTF8));
	}
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

	/* An error is no fault of an event: their size was checked. */
	if (session_run(notify_messages, connection, &error) != STEP_DONE)
	{
		host->explain(host, DISPATCH_BACKPRESSURE, error);
		return DISPATCH_LOST;
	}
	connection->count = 0;
	for (int i = 0; i < count; i++)
		host->delivered(host, connection->messages[i]);
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
