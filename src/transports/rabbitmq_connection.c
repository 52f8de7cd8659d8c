/*-------------------------------------------------------------------------
 *
 * rabbitmq_connection.c
 *	  A connection to RabbitMQ, from the name of the host to the last confirm.
 *
 * It goes through phases: a host is reached, the connection is encrypted if so
 * configured, we log in and open a channel, and then it carries messages.
 * Nothing here waits; pump() does what can be done at once and returns.
 *
 * A RabbitMQ that is short of memory or disk says that it is blocked, and reads
 * no further.  That is no reason to give the connection up: what it has not
 * read it will read when it has recovered, and sending it again over another
 * connection would deliver it twice.  So we wait, and only silence is taken
 * for an outage: RabbitMQ sends heartbeats while it is blocked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/latch.h"
#include "utils/memutils.h"

#include "connect.h"
#include "rabbitmq.h"

/* With so many bytes unsent, no message is taken. */
#define UNSENT_BYTES (1024 * 1024)

/* Input is read for so many times before the core has its turn again. */
#define READS_AT_ONCE 64

/*
 * Of this process, since somebody let us in: a host that does not is not to be
 * tried first again and again.
 */
static unsigned int failed_logins = 0;

/*
 * Explains why the connection is lost, or held up; returns false for the
 * convenience of those who lose it.
 */
bool
rabbit_explain(DispatchHost *host, DispatchErrorClass error_class,
			   const char *format,...)
{
	char		text[1024];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	host->explain(host, error_class, text);
	return false;
}

void *
rabbit_connection_create(DispatchHost *host, const DispatchValue *options)
{
	MemoryContext old_context = MemoryContextSwitchTo(host->context);
	RabbitConnection *conn = palloc0(sizeof(RabbitConnection));
	ConnectHost hosts[CONNECT_MAX_HOSTS];
	const char *problem = NULL;
	int			nhosts = connect_parse_hosts(options[OPTION_HOST].text,
											 options[OPTION_PORT].integer,
											 hosts, &problem);

	if (nhosts == 0)			/* of no backend that was checked */
	{
		rabbit_explain(host, DISPATCH_CONFIGURATION, "option \"host\": %s", problem);
		return NULL;
	}
	conn->host = host;
	conn->options = options;
	conn->scratch = AllocSetContextCreate(host->context, "dispatch rabbitmq scratch",
										  ALLOCSET_DEFAULT_SIZES);
	conn->connect_timeout = seconds_to_ms(options[OPTION_CONNECT_TIMEOUT].number);
	conn->socket_timeout = seconds_to_ms(options[OPTION_SOCKET_TIMEOUT].number);
	conn->deadline = clock_ms() + conn->connect_timeout;
	conn->handshake = rabbit_handshake_create(host, options);
	conn->flight = rabbit_flight_create(host);
	conn->connector = connect_start(host->context, hosts, nhosts, failed_logins,
									conn->deadline);
	conn->stream = rabbit_stream_create(host, conn->connector);
	MemoryContextSwitchTo(old_context);
	return conn;
}

/* ------------------------------------------------------------------------
 * Phases and timeouts
 * ------------------------------------------------------------------------
 */

static void
begin_login(RabbitConnection *conn)
{
	conn->phase = PHASE_LOGIN;
	rabbit_handshake_begin(conn->handshake, &conn->stream->out);
}

/* The host is reached. */
static bool
begin(RabbitConnection *conn)
{
	connect_set_patience(conn->connector, conn->socket_timeout);
	conn->phase = PHASE_TLS;
	if (!rabbit_stream_open(conn->stream, conn->options, conn->now))
		return false;
	if (rabbit_stream_is_open(conn->stream))
		begin_login(conn);
	return true;
}

/*
 * Moves input and output as far as that goes, but not for ever: who talks
 * faster than we listen must not keep the core from its other duties.
 */
static bool
exchange(RabbitConnection *conn)
{
	RabbitStream *stream = conn->stream;

	for (int i = 0; i < READS_AT_ONCE; i++)
	{
		uint64		written = stream->written;

		if (!rabbit_stream_write(stream, conn->now))
			return false;
		if (stream->written > written && written < conn->end_of_messages)
			conn->progress_at = conn->now;
		switch (rabbit_stream_read(stream, conn->now))
		{
			case STREAM_LOST:
				return false;
			case STREAM_NOTHING:
				return true;
			case STREAM_INPUT:
				break;
		}
		if (conn->phase == PHASE_TLS && rabbit_stream_is_open(stream))
			begin_login(conn);
		if (!rabbit_receive(conn))
			return false;
	}
	return true;
}

static int64
heartbeat_ms(const RabbitConnection *conn)
{
	return rabbit_handshake_heartbeat(conn->handshake) * INT64CONST(1000);
}

/*
 * Says what to wait for; false when that has taken too long already.  Called
 * after input was read, so that time that we were busy counts as no silence.
 */
static bool
wait_for_more(RabbitConnection *conn, DispatchWait *wait)
{
	int64		heartbeat = heartbeat_ms(conn);
	int64		deadline = conn->deadline;
	RabbitStream *stream = conn->stream;

	if (conn->phase == PHASE_READY)
	{
		if (conn->now - stream->received_at >= 2 * heartbeat)
			return rabbit_explain(conn->host, DISPATCH_OUTAGE,
								  "no heartbeat from RabbitMQ for %g s", 2 * heartbeat / 1000.0);
		deadline = stream->received_at + 2 * heartbeat;
		if (!rabbit_stream_wants_to_write(stream))
			deadline = Min(deadline, stream->sent_at + heartbeat / 2);
		if (rabbit_flight_count(conn->flight) > 0 && !conn->blocked)
		{
			if (conn->now - conn->progress_at >= conn->socket_timeout)
				return rabbit_explain(conn->host, DISPATCH_OUTAGE,
									  "no confirm from RabbitMQ for %g s",
									  conn->socket_timeout / 1000.0);
			deadline = Min(deadline, conn->progress_at + conn->socket_timeout);
		}
	}
	else if (conn->now >= deadline)
		return rabbit_explain(conn->host, DISPATCH_OUTAGE,
							  "no answer to the login from host \"%s\", port %d: timeout expired",
							  connect_host(conn->connector), connect_port(conn->connector));

	wait->fd = connect_socket(conn->connector);
	wait->events = WL_SOCKET_READABLE;
	if (rabbit_stream_wants_to_write(stream))
		wait->events |= WL_SOCKET_WRITEABLE;
	wait->timeout_ms = Max(deadline - conn->now, 0);
	return true;
}

/* Whether another message can be taken. */
static bool
has_room(const RabbitConnection *conn)
{
	return !conn->blocked && rabbit_stream_unsent(conn->stream) < UNSENT_BYTES;
}

static bool
advance(RabbitConnection *conn, DispatchWait *wait)
{
	const char *error;

	if (conn->phase == PHASE_CONNECTING)
	{
		switch (connect_poll(conn->connector, conn->now, wait, &error))
		{
			case CONNECT_PENDING:
				return true;
			case CONNECT_FAILED:
				return rabbit_explain(conn->host, DISPATCH_OUTAGE, "%s", error);
			case CONNECT_DONE:
				break;
		}
		if (!begin(conn))
			return false;
	}
	if (conn->phase == PHASE_READY && !rabbit_stream_wants_to_write(conn->stream) &&
		conn->now - conn->stream->sent_at >= heartbeat_ms(conn) / 2)
		rabbit_encode_heartbeat(&conn->stream->out);
	if (!exchange(conn) || !wait_for_more(conn, wait))
		return false;

	/* what was refused can be taken now: have it brought again */
	if (conn->refused && has_room(conn))
		wait->timeout_ms = 0;
	conn->refused = false;
	return true;
}

/* ------------------------------------------------------------------------
 * Called by the core
 * ------------------------------------------------------------------------
 */

bool
rabbit_connection_send(void *connection, DispatchMessage *message)
{
	RabbitConnection *conn = connection;
	MemoryContext old_context;
	RabbitPublish publish;
	const char *problem;

	conn->refused = !has_room(conn);
	if (conn->refused ||
		!rabbit_flight_may_add(conn->flight, message->options[OPTION_EXCHANGE].text))
		return false;

	conn->is_sound = false;
	old_context = MemoryContextSwitchTo(conn->scratch);
	problem = rabbit_message_publish(message, &publish);
	if (problem == NULL)
		problem = rabbit_encode_publish(&conn->stream->out, &publish,
										rabbit_handshake_frame_max(conn->handshake));
	MemoryContextSwitchTo(old_context);

	if (problem != NULL)
		conn->host->failed(conn->host, message, DISPATCH_EVENT_REJECTED, problem);
	else
	{
		if (rabbit_flight_count(conn->flight) == 0)
			conn->progress_at = clock_ms();
		conn->end_of_messages = conn->stream->written + rabbit_stream_unsent(conn->stream);
		rabbit_flight_add(conn->flight, message, conn->end_of_messages);
	}
	MemoryContextReset(conn->scratch);
	conn->is_sound = true;
	return true;
}

DispatchState
rabbit_connection_pump(void *connection, DispatchWait *wait)
{
	RabbitConnection *conn = connection;
	MemoryContext old_context = MemoryContextSwitchTo(conn->scratch);
	bool		alive;

	conn->is_sound = false;
	conn->now = clock_ms();
	alive = advance(conn, wait);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(conn->scratch);
	if (!alive)
	{
		if (conn->phase == PHASE_TLS || conn->phase == PHASE_LOGIN)
			failed_logins++;
		return DISPATCH_LOST;
	}
	conn->is_sound = true;
	if (conn->phase == PHASE_READY)
		failed_logins = 0;
	return conn->phase == PHASE_READY && !conn->blocked ? DISPATCH_READY : DISPATCH_CONNECTING;
}

/*
 * Says goodbye, if that goes at once: RabbitMQ logs a warning for who just
 * leaves.
 */
void
rabbit_connection_close(void *connection)
{
	RabbitConnection *conn = connection;

	if (!conn->is_sound || conn->phase != PHASE_READY ||
		rabbit_stream_unsent(conn->stream) > 0)
		return;
	rabbit_encode_close(&conn->stream->out);
	(void) rabbit_stream_write(conn->stream, conn->now);
}
