/*-------------------------------------------------------------------------
 *
 * broken.c
 *	  Transports that do everything wrong, one for each FAULT.
 *
 * Apart from its fault each is a transport to nowhere: it calls a message
 * delivered in the pump() after the send().  What goes wrong while events are
 * delivered does so "times" times in a process; from then on it works, so that
 * a test can see whether and how the core gets over it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

/* Whose fault it is not to have this function, has it by another name. */
#ifdef HAS_no_init
#define dispatch_transport_init dispatch_transport_start
#endif

#include "extension/dispatch/dispatch_transport.h"

enum
{
	/* In what dispatch_transport_init() returns */
	FAULT_version,				/* built for another version of the header */
	FAULT_no_init,				/* there is no such function */
	FAULT_null,
	FAULT_misnamed,
	FAULT_no_pump,
	FAULT_no_options,
	FAULT_destination,			/* names an option that does not exist */
	/* In what it does */
	FAULT_open,					/* these raise an error */
	FAULT_send,
	FAULT_pump,					/* after it delivered one message */
	FAULT_lost,					/* loses the connection and does not say why */
	FAULT_silent,				/* takes messages, and never reports */
	FAULT_twice					/* reports a message twice */
};

PG_MODULE_MAGIC;

enum
{
	OPTION_TIMES
};

static const DispatchOption options[] = {
	{"times", DISPATCH_INTEGER, DISPATCH_OF_BACKEND, "1000000",
	0, 1000000, NULL, "how often it fails before it works"},
	{0}
};

#define MESSAGES_MAX 10

typedef struct BrokenConnection
{
	DispatchHost *host;
	int64		times;
	int			count;
	DispatchMessage *messages[MESSAGES_MAX];
} BrokenConnection;

/* Is it the fault's turn? */
static bool
fails(int fault, int64 times)
{
	static int64 failures = 0;

	return fault == FAULT && failures++ < times;
}

static void
fail(int fault, int64 times, const char *where)
{
	if (fails(fault, times))
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("broken in %s()", where)));
}

static void *
broken_open(DispatchHost *host, const DispatchValue *values)
{
	BrokenConnection *connection = MemoryContextAllocZero(host->context,
														  sizeof(BrokenConnection));

	fail(FAULT_open, values[OPTION_TIMES].integer, "open");
	connection->host = host;
	connection->times = values[OPTION_TIMES].integer;
	return connection;
}

static bool
broken_send(void *arg, DispatchMessage *message)
{
	BrokenConnection *connection = arg;

	if (connection->count == MESSAGES_MAX)
		return false;
	connection->messages[connection->count++] = message;
	fail(FAULT_send, connection->times, "send");
	return true;
}

static DispatchState
broken_pump(void *arg, DispatchWait *wait)
{
	BrokenConnection *connection = arg;
	DispatchHost *host = connection->host;

	if (connection->count > 0 && fails(FAULT_lost, connection->times))
		return DISPATCH_LOST;
	if (connection->count > 0 && fails(FAULT_silent, connection->times))
	{
		connection->count = 0;
		return DISPATCH_READY;
	}
	while (connection->count > 0)
	{
		DispatchMessage *message = connection->messages[0];

		connection->count--;
		memmove(connection->messages, connection->messages + 1,
				connection->count * sizeof(DispatchMessage *));
		host->delivered(host, message);
		fail(FAULT_pump, connection->times, "pump");
		if (fails(FAULT_twice, connection->times))
			host->delivered(host, message);
	}
	return DISPATCH_READY;
}

static const DispatchTransport transport = {
	.version = DISPATCH_TRANSPORT_VERSION + (FAULT == FAULT_version ? 1 : 0),
	.name = FAULT == FAULT_misnamed ? "example" : FAULT_NAME,
	.description = "a broken transport",
	.options = FAULT == FAULT_no_options ? NULL : options,
	.destination = FAULT == FAULT_destination ? "topic" : NULL,
	.open = broken_open,
	.send = broken_send,
	.pump = FAULT == FAULT_no_pump ? NULL : broken_pump,
};

const DispatchTransport *
dispatch_transport_init(void)
{
	return FAULT == FAULT_null ? NULL : &transport;
}
