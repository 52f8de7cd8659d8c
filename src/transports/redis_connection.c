/*-------------------------------------------------------------------------
 *
 * redis_connection.c
 *	  A connection to Redis, from the host name to the last reply.
 *
 * It goes through phases: the host is reached, we log in, and then it carries
 * chunks of messages (see redis.h), one at a time.  Nothing here waits; pump()
 * does what can be done at once and returns.  After an error or a timeout
 * nothing is sent or credited any more: a late reply would be taken for that to
 * another message.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>

#include "storage/latch.h"

#include "connect.h"
#include "redis.h"

#define INPUT_BYTES (16 * 1024)

/*
 * With a low-water mark on the socket, have a look this often: input below the
 * mark wakes nobody, but shows that Redis is alive.
 */
#define LOOK_MS 500

typedef enum RedisPhase
{
	PHASE_CONNECTING,
	PHASE_HANDSHAKE,
	PHASE_READY
} RedisPhase;

struct RedisConnection
{
	DispatchHost *host;
	RedisPhase	phase;

	Connector  *connector;		/* has the socket */
	int			fd;				/* its; -1: not connected yet */
	int64		socket_timeout; /* milliseconds, as are all of these: */
	int64		now;			/* when pump() was called */
	int64		connect_deadline;	/* for everything before PHASE_READY */
	int64		progress_at;	/* when a byte came or went last */

	int			low_water;		/* SO_RCVLOWAT; 0: not set yet */

	RedisHandshake *handshake;
	RedisChunk *flight;			/* between write and last reply, or empty */
	RedisChunk *next;			/* being collected */
	RedisChunk *spare;			/* empty */
	const char *output;			/* in handshake or flight */
	size_t		unsent;
	int			send_errno;		/* 0: can be written to */
	RedisReader *reader;
	char	   *input;
};

/* ------------------------------------------------------------------------
 * Connecting
 * ------------------------------------------------------------------------
 */

/*
 * Starts to connect.  All of the connection lives in the host's context.
 */
RedisConnection *
redis_connection_create(DispatchHost *host, const DispatchValue *options)
{
	RedisConnection *conn;
	MemoryContext old_context;
	ConnectHost server = {options[OPTION_HOST].text, options[OPTION_PORT].integer};
	bool		pubsub = strcmp(options[OPTION_MODE].text, "pubsub") == 0;

	old_context = MemoryContextSwitchTo(host->context);
	conn = palloc0(sizeof(RedisConnection));
	conn->host = host;
	conn->fd = -1;
	conn->socket_timeout = seconds_to_ms(options[OPTION_SOCKET_TIMEOUT].number);
	conn->connect_deadline = clock_ms() +
		seconds_to_ms(options[OPTION_CONNECT_TIMEOUT].number);
	conn->handshake = redis_handshake_create(options);
	conn->flight = redis_chunk_create(host->context, pubsub);
	conn->next = redis_chunk_create(host->context, pubsub);
	conn->spare = redis_chunk_create(host->context, pubsub);
	conn->reader = redis_reader_create(host->context);
	conn->input = palloc(INPUT_BYTES);
	conn->phase = PHASE_CONNECTING;
	conn->connector = connect_start(host->context, &server, 1, 0, conn->connect_deadline);
	MemoryContextSwitchTo(old_context);
	return conn;
}

/*
 * Goes on connecting.  Once connected, notice a Redis that vanished while it
 * had something to acknowledge; our own timeouts do not depend on that.
 */
static bool
connection_connect(RedisConnection *conn, DispatchWait *wait)
{
	const char *error;

	switch (connect_poll(conn->connector, conn->now, wait, &error))
	{
		case CONNECT_PENDING:
			return true;
		case CONNECT_FAILED:
			return redis_lost(conn->host, DISPATCH_OUTAGE, "%s", error);
		case CONNECT_DONE:
			break;
	}
	conn->fd = connect_socket(conn->connector);
	connect_set_patience(conn->connector,
						 Max(conn->socket_timeout, conn->connect_deadline - conn->now));
	conn->phase = PHASE_HANDSHAKE;
	conn->output = conn->handshake->output.data;
	conn->unsent = conn->handshake->output.len;
	return true;
}

/* ------------------------------------------------------------------------
 * Input and output
 * ------------------------------------------------------------------------
 */

/*
 * Sends the collected messages on their way, if there are any.
 */
static void
connection_launch(RedisConnection *conn)
{
	RedisChunk *chunk = conn->next;

	redis_chunk_seal(chunk, conn->host);
	if (chunk->count == 0)
		return;
	conn->next = conn->flight;
	conn->flight = chunk;
	conn->output = chunk->data + chunk->start;
	conn->unsent = chunk->end - chunk->start;
	conn->progress_at = conn->now;
}

/*
 * Writes what the socket takes.  An error is only noted: Redis may have said
 * why it closed the connection, and that is still to be read.
 */
static void
connection_write(RedisConnection *conn)
{
	while (conn->unsent > 0 && conn->send_errno == 0)
	{
		ssize_t		n = send(conn->fd, conn->output, conn->unsent,
							 MSG_NOSIGNAL);

		if (n >= 0)
		{
			conn->output += n;
			conn->unsent -= n;
			conn->progress_at = conn->now;
		}
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		else if (errno != EINTR)
			conn->send_errno = errno;
	}
}

/*
 * The connection broke.  A single event that is too large for a chunk may be
 * the reason, as Redis drops clients above client-query-buffer-limit without
 * a word: then it costs the event an attempt, or it would stop the backend for
 * ever.
 */
static bool
connection_broken(RedisConnection *conn, const char *text)
{
	RedisChunk *flight = conn->flight;

	if (flight->count == 1 && flight->end > CHUNK_BYTES)
		conn->host->failed(conn->host, flight->entries[0].message,
						   DISPATCH_EVENT_FAILED,
						   psprintf("%s (as it does when an event is larger "
									"than its client-query-buffer-limit)",
									text));
	return redis_lost(conn->host, DISPATCH_OUTAGE, "%s", text);
}

/*
 * The chunk in flight was executed, without an error.  The next one goes out
 * before that is reported: the core has something to do then, and Redis, too.
 */
static void
connection_executed(RedisConnection *conn)
{
	RedisChunk *executed = conn->flight;

	conn->flight = conn->spare;
	conn->spare = executed;
	if (conn->next->count > 0)
		connection_launch(conn);
	connection_write(conn);
	redis_chunk_deliver(executed, conn->host);
}

static bool
connection_reply(RedisConnection *conn, const RedisReply *reply)
{
	RedisChunk *flight = conn->flight;

	if (conn->phase == PHASE_HANDSHAKE)
	{
		if (!redis_handshake_reply(conn->host, conn->handshake, reply))
			return false;
		if (redis_handshake_done(conn->handshake))
			conn->phase = PHASE_READY;
		return true;
	}

	/* nothing can be credited to what was not asked, or not asked in full */
	if (flight->count == 0 ||
		(conn->unsent > 0 && reply->kind != REPLY_ERROR &&
		 redis_chunk_expects(flight) == EXPECT_OUTCOME))
		return redis_lost(conn->host, DISPATCH_OUTAGE,
						  "Redis spoke unasked: \"%s\"", reply->text);
	switch (redis_settle(conn->host, flight, conn->next, reply))
	{
		case SETTLED_LOST:
			return false;
		case SETTLED_NOT_YET:
			/* what is still to be written would be the head of the next chunk */
			return flight->count > 0 || conn->unsent == 0 ||
				redis_lost(conn->host, DISPATCH_OUTAGE,
						   "Redis answered before it had everything");
		case SETTLED_DELIVERED:
			connection_executed(conn);
			break;
	}
	return true;
}

/* Takes "len" bytes of input. */
static bool
connection_read(RedisConnection *conn, size_t len)
{
	const RedisReply *reply;

	conn->progress_at = conn->now;
	if (redis_reader_feed(conn->reader, conn->input, len))
	{
		while ((reply = redis_reader_next(conn->reader, conn->flight)) != NULL)
		{
			if (!connection_reply(conn, reply))
				return false;
		}
	}
	if (redis_reader_error(conn->reader) == NULL)
		return true;
	return redis_lost(conn->host, conn->phase == PHASE_READY ?
					  DISPATCH_OUTAGE : DISPATCH_CONFIGURATION,
					  "host \"%s\", port %d does not answer as Redis does: %s",
					  connect_host(conn->connector), connect_port(conn->connector),
					  redis_reader_error(conn->reader));
}

/*
 * Before we wait: lets the socket pass for readable only when enough for all
 * replies but the last can have arrived.  Redis sends its replies of QUEUED in
 * dribs and drabs while the rest of the chunk still comes in, and nothing can
 * be done before the reply to EXEC; being woken for each of them would cost
 * more than all the rest.  Should the figure ever be too high, no more is lost
 * than LOOK_MS.
 */
static void
connection_set_low_water(RedisConnection *conn)
{
	int			bytes = redis_chunk_least_reply(conn->flight);

	if (conn->low_water != bytes)
		(void) setsockopt(conn->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes));
	conn->low_water = bytes;
}

/*
 * Moves input and output until the socket has no more to give.  That ends
 * soon, as send() is not called meanwhile: at most two chunks are replied to.
 */
static bool
connection_exchange(RedisConnection *conn)
{
	for (;;)
	{
		ssize_t		n;

		if (conn->phase == PHASE_READY && conn->flight->count == 0 &&
			conn->next->count > 0)
			connection_launch(conn);
		connection_write(conn);

		n = recv(conn->fd, conn->input, INPUT_BYTES, 0);
		if (n > 0)
		{
			if (!connection_read(conn, n))
				return false;
			continue;
		}
		if (n == 0)
			return connection_broken(conn, "Redis closed the connection");
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
		{
			if (conn->send_errno == 0)
			{
				connection_set_low_water(conn);
				return true;
			}
			errno = conn->send_errno;
		}
		return connection_broken(conn, psprintf("connection to Redis broke: %m"));
	}
}

/*
 * Says what to wait for; false when that has taken too long already.
 */
static bool
connection_wait(RedisConnection *conn, DispatchWait *wait)
{
	int64		deadline = -1;

	wait->fd = conn->fd;
	wait->events = WL_SOCKET_READABLE;
	switch (conn->phase)
	{
		case PHASE_CONNECTING:
			break;
		case PHASE_HANDSHAKE:
			deadline = conn->connect_deadline;
			if (conn->now >= deadline)
				return redis_lost(conn->host, DISPATCH_OUTAGE,
								  "no reply to the login from host \"%s\", "
								  "port %d: timeout expired",
								  connect_host(conn->connector), connect_port(conn->connector));
			break;
		case PHASE_READY:
			if (conn->flight->count == 0)
				break;
			deadline = conn->progress_at + conn->socket_timeout;
			if (conn->now >= deadline)
				return redis_lost(conn->host, DISPATCH_OUTAGE,
								  "no reply from Redis for %g s",
								  conn->socket_timeout / 1000.0);
			break;
	}
	if (conn->unsent > 0)
		wait->events |= WL_SOCKET_WRITEABLE;
	if (conn->low_water > 1)
		deadline = Min(deadline, conn->now + LOOK_MS);
	wait->timeout_ms = deadline < 0 ? -1 : Max(deadline - conn->now, 0);
	return true;
}

/* ------------------------------------------------------------------------
 * Called by the core
 * ------------------------------------------------------------------------
 */

bool
redis_connection_send(void *connection, DispatchMessage *message)
{
	RedisConnection *conn = connection;

	return redis_chunk_add(conn->next, message);
}

DispatchState
redis_connection_pump(void *connection, DispatchWait *wait)
{
	RedisConnection *conn = connection;

	conn->now = clock_ms();
	if (conn->phase == PHASE_CONNECTING && !connection_connect(conn, wait))
		return DISPATCH_LOST;
	if (conn->phase == PHASE_CONNECTING)
		return DISPATCH_CONNECTING; /* connect_poll() has said what for */
	if (!connection_exchange(conn) || !connection_wait(conn, wait))
		return DISPATCH_LOST;
	return conn->phase == PHASE_READY ? DISPATCH_READY : DISPATCH_CONNECTING;
}
