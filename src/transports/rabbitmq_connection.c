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

#include <sys/socket.h>

#include "storage/latch.h"
#include "utils/memutils.h"

#include "connect.h"
#include "rabbitmq.h"

/* Room for input; a frame that is larger makes more. */
#define INPUT_BYTES (64 * 1024)

/* With so many bytes unsent, no message is taken. */
#define OUTPUT_BYTES (1024 * 1024)

/* Of ciphertext that is not sent, no more is made. */
#define CIPHER_BYTES (256 * 1024)

/* Input is read for so many times before the core has its turn again. */
#define READS_AT_ONCE 64

typedef enum RabbitPhase
{
	PHASE_CONNECTING,
	PHASE_TLS,
	PHASE_LOGIN,				/* also while a channel is opened again */
	PHASE_READY
} RabbitPhase;

/* What has to follow a basic.return. */
typedef enum RabbitContent
{
	CONTENT_NONE,
	CONTENT_HEADER,
	CONTENT_BODY
} RabbitContent;

typedef struct RabbitConnection
{
	DispatchHost *host;
	const DispatchValue *options;
	MemoryContext scratch;		/* for a call of ours */
	RabbitPhase phase;
	Connector  *connector;
	RabbitTls  *tls;			/* NULL: not encrypted */
	RabbitHandshake *handshake;
	RabbitFlight *flight;
	bool		is_sound;		/* no call is under way, or ended half-way */

	int64		connect_timeout;	/* milliseconds, as are all of these: */
	int64		socket_timeout;
	int64		now;			/* when pump() was called */
	int64		deadline;		/* for everything before PHASE_READY */
	int64		progress_at;	/* of what is in flight */
	int64		received_at;
	int64		sent_at;

	RabbitBuffer in;
	RabbitBuffer out;
	uint64		written;		/* bytes of out that are gone */
	char	   *received;		/* encrypted; NULL without TLS */
	int			send_errno;		/* 0: can be written to */

	bool		blocked;		/* RabbitMQ takes no messages */
	bool		refused;		/* send() took none since the last pump() */
	RabbitContent content;
	RabbitReturned returned;	/* while its content comes in */
} RabbitConnection;

/* Of this process: a host that lets nobody in is not to be tried first. */
static unsigned int failed_logins = 0;

/*
 * Explains the loss of the connection; returns false for the convenience of
 * the callers.
 */
bool
rabbit_lost(DispatchHost *host, DispatchErrorClass error_class,
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

	conn->host = host;
	conn->options = options;
	conn->scratch = AllocSetContextCreate(host->context, "dispatch rabbitmq scratch",
										  ALLOCSET_DEFAULT_SIZES);
	conn->connect_timeout = seconds_to_ms(options[OPTION_CONNECT_TIMEOUT].number);
	conn->socket_timeout = seconds_to_ms(options[OPTION_SOCKET_TIMEOUT].number);
	conn->deadline = clock_ms() + conn->connect_timeout;
	rabbit_buffer_init(&conn->in, INPUT_BYTES);
	rabbit_buffer_init(&conn->out, OUTPUT_BYTES);
	conn->handshake = rabbit_handshake_create(host, options);
	conn->flight = rabbit_flight_create(host);
	conn->connector = connect_start(host->context, options[OPTION_HOST].text,
									options[OPTION_PORT].integer, failed_logins,
									conn->deadline);
	MemoryContextSwitchTo(old_context);
	return conn;
}

static size_t
unsent_bytes(const RabbitConnection *conn)
{
	return conn->out.end - conn->out.start;
}

/* ------------------------------------------------------------------------
 * Frames
 * ------------------------------------------------------------------------
 */

/* What RabbitMQ says is not to be shown if it repeats the password. */
static void
hide_password(const RabbitConnection *conn, char *text)
{
	const char *password = conn->options[OPTION_PASSWORD].text;

	if (*password != '\0' && strstr(text, password) != NULL)
		strcpy(text, "(its text has the password in it)");
}

/* A frame that has no place here. */
static bool
frame_unexpected(RabbitConnection *conn, const RabbitFrame *frame)
{
	return rabbit_lost(conn->host, DISPATCH_OUTAGE,
					   "RabbitMQ sent an unexpected or malformed frame "
					   "(type %d, channel %d, method %u.%u)",
					   (int) frame->type, frame->channel,
					   frame->method >> 16, frame->method & 0xFFFF);
}

static bool
take_connection_close(RabbitConnection *conn, RabbitFrame *frame)
{
	RabbitClosed closed;

	if (!rabbit_read_closed(&frame->payload, &closed))
		return frame_unexpected(conn, frame);
	hide_password(conn, closed.text);
	if (conn->phase != PHASE_READY)
		return rabbit_lost(conn->host, rabbit_error_class(closed.code, SCOPE_CONNECTION),
						   "%d %s", closed.code, closed.text);
	if (!rabbit_flight_convict(conn->flight, &closed))
		return false;
	return rabbit_lost(conn->host, DISPATCH_OUTAGE, "%d %s", closed.code, closed.text);
}

static bool
take_channel_close(RabbitConnection *conn, RabbitFrame *frame)
{
	RabbitClosed closed;

	if (!rabbit_read_closed(&frame->payload, &closed))
		return frame_unexpected(conn, frame);
	hide_password(conn, closed.text);
	if (conn->phase != PHASE_READY)
		return rabbit_lost(conn->host, rabbit_error_class(closed.code, SCOPE_CONNECTION),
						   "%d %s", closed.code, closed.text);
	if (!rabbit_flight_convict(conn->flight, &closed))
		return false;

	rabbit_flight_restart(conn->flight);
	rabbit_handshake_reopen_channel(conn->handshake, &conn->out);
	conn->content = CONTENT_NONE;
	conn->phase = PHASE_LOGIN;
	conn->deadline = conn->now + conn->connect_timeout;
	return true;
}

/*
 * Blocked, RabbitMQ does not read, and the kernel must not take that for the
 * end of the connection.
 */
static bool
set_blocked(RabbitConnection *conn, bool blocked)
{
	conn->blocked = blocked;
	conn->progress_at = conn->now;
	connect_set_patience(conn->connector, blocked ? 0 : conn->socket_timeout);
	return true;
}

static bool
take_confirm(RabbitConnection *conn, RabbitFrame *frame)
{
	uint64		tag = rabbit_read_number(&frame->payload, 8);
	bool		multiple = (rabbit_read_number(&frame->payload, 1) & 1) != 0;

	if (frame->payload.broken)
		return frame_unexpected(conn, frame);
	conn->progress_at = conn->now;
	if (frame->method == METHOD_ACK)
		return rabbit_flight_ack(conn->flight, tag, multiple, conn->written);
	return rabbit_flight_nack(conn->flight, tag, multiple);
}

static bool
take_return(RabbitConnection *conn, RabbitFrame *frame)
{
	if (!rabbit_read_return(&frame->payload, &conn->returned))
		return frame_unexpected(conn, frame);
	conn->content = CONTENT_HEADER;
	return true;
}

/* The header or a part of the body of a message that was returned. */
static bool
take_content(RabbitConnection *conn, RabbitFrame *frame)
{
	uint64		len = frame->payload.end - frame->payload.at;

	if (conn->content == CONTENT_HEADER && frame->type == FRAME_HEADER)
	{
		if (!rabbit_read_return_header(&frame->payload, &conn->returned))
			return frame_unexpected(conn, frame);
		conn->content = CONTENT_BODY;
	}
	else if (conn->content == CONTENT_BODY && frame->type == FRAME_BODY &&
			 len <= conn->returned.body_left)
		conn->returned.body_left -= len;
	else
		return frame_unexpected(conn, frame);

	if (conn->returned.body_left > 0)
		return true;
	conn->content = CONTENT_NONE;
	return rabbit_flight_return(conn->flight, &conn->returned);
}

static bool
take_method(RabbitConnection *conn, RabbitFrame *frame)
{
	if (frame->channel == 0)
	{
		switch (frame->method)
		{
			case METHOD_CLOSE:
				return take_connection_close(conn, frame);
			case METHOD_BLOCKED:
				return set_blocked(conn, true);
			case METHOD_UNBLOCKED:
				return set_blocked(conn, false);
		}
	}
	else if (frame->channel == CHANNEL)
	{
		if (frame->method == METHOD_CHANNEL_CLOSE)
			return take_channel_close(conn, frame);
		if (conn->phase == PHASE_READY && conn->content == CONTENT_NONE)
		{
			switch (frame->method)
			{
				case METHOD_ACK:
				case METHOD_NACK:
					return take_confirm(conn, frame);
				case METHOD_RETURN:
					return take_return(conn, frame);
			}
		}
	}
	if (conn->phase == PHASE_READY)
		return frame_unexpected(conn, frame);
	if (!rabbit_handshake_method(conn->handshake, frame, &conn->out))
		return false;
	if (rabbit_handshake_done(conn->handshake))
		conn->phase = PHASE_READY;
	return true;
}

static bool
take_frame(RabbitConnection *conn, RabbitFrame *frame)
{
	if (frame->type == FRAME_HEARTBEAT && frame->channel == 0)
		return true;
	if (frame->type == FRAME_METHOD)
		return take_method(conn, frame);
	if (frame->channel == CHANNEL && conn->phase == PHASE_READY)
		return take_content(conn, frame);
	return frame_unexpected(conn, frame);
}

/* Takes all frames that are in the input as a whole. */
static bool
take_input(RabbitConnection *conn)
{
	for (;;)
	{
		RabbitFrame frame;
		const char *error;
		int			len = rabbit_frame_read(conn->in.data + conn->in.start,
											conn->in.end - conn->in.start,
											rabbit_handshake_frame_max(conn->handshake),
											&frame, &error);

		if (len < 0)
			return rabbit_lost(conn->host, conn->phase == PHASE_READY ?
							   DISPATCH_OUTAGE : DISPATCH_CONFIGURATION,
							   "host \"%s\", port %d does not answer as RabbitMQ does: %s",
							   connect_host(conn->connector),
							   connect_port(conn->connector), error);
		if (len == 0)
			return true;
		if (!take_frame(conn, &frame))
			return false;
		rabbit_buffer_consume(&conn->in, len);
	}
}

/* ------------------------------------------------------------------------
 * Input and output
 * ------------------------------------------------------------------------
 */

static bool
connection_broken(RabbitConnection *conn, const char *text)
{
	return rabbit_lost(conn->host, DISPATCH_OUTAGE, "%s", text);
}

static bool
tls_broken(RabbitConnection *conn)
{
	return rabbit_lost(conn->host, DISPATCH_OUTAGE, "TLS connection broke: %s",
					   rabbit_tls_error(conn->tls));
}

/*
 * Writes what the socket takes; returns how much.  An error is only noted:
 * RabbitMQ may have said why it closed the connection, and that is still to be
 * read.
 */
static size_t
socket_write(RabbitConnection *conn, const char *data, size_t len)
{
	size_t		sent = 0;

	while (sent < len && conn->send_errno == 0)
	{
		ssize_t		n = send(connect_socket(conn->connector), data + sent, len - sent,
							 MSG_NOSIGNAL);

		if (n >= 0)
			sent += n;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		else if (errno != EINTR)
			conn->send_errno = errno;
	}
	if (sent > 0)
		conn->progress_at = conn->sent_at = conn->now;
	return sent;
}

static void
output_written(RabbitConnection *conn, size_t len)
{
	rabbit_buffer_consume(&conn->out, len);
	conn->written += len;
}

static bool
write_output(RabbitConnection *conn)
{
	const char *cipher;
	size_t		len;

	if (conn->tls == NULL)
	{
		output_written(conn, socket_write(conn, conn->out.data + conn->out.start,
										  unsent_bytes(conn)));
		return true;
	}
	for (;;)
	{
		len = rabbit_tls_to_send(conn->tls, &cipher);
		if (conn->phase > PHASE_TLS && unsent_bytes(conn) > 0 && len < CIPHER_BYTES)
		{
			ssize_t		n = rabbit_tls_write(conn->tls, conn->out.data + conn->out.start,
											 unsent_bytes(conn));

			if (n < 0)
				return tls_broken(conn);
			output_written(conn, n);
			if (n > 0)
				continue;
		}
		if (len == 0)
			return true;
		len = socket_write(conn, cipher, len);
		if (len == 0)
			return true;
		rabbit_tls_sent(conn->tls, len);
	}
}

/* Takes "len" encrypted bytes. */
static bool
read_cipher(RabbitConnection *conn, size_t len)
{
	ssize_t		n;

	if (!rabbit_tls_put_received(conn->tls, conn->received, len))
		return connection_broken(conn, "out of memory");
	if (conn->phase == PHASE_TLS)
	{
		switch (rabbit_tls_advance(conn->tls))
		{
			case TLS_HANDSHAKE:
				return true;
			case TLS_FAILED:
				(void) write_output(conn);	/* tells RabbitMQ why */
				return rabbit_lost(conn->host, DISPATCH_CONFIGURATION,
								   "TLS with host \"%s\", port %d failed: %s",
								   connect_host(conn->connector),
								   connect_port(conn->connector),
								   rabbit_tls_error(conn->tls));
			case TLS_READY:
				conn->phase = PHASE_LOGIN;
				rabbit_handshake_begin(conn->handshake, &conn->out);
				break;
		}
	}
	do
	{
		char	   *room = rabbit_buffer_reserve(&conn->in, INPUT_BYTES);

		n = rabbit_tls_read(conn->tls, room, INPUT_BYTES);
		if (n < 0)
			return tls_broken(conn);
		conn->in.end += n;
		if (!take_input(conn))
			return false;
	} while (n > 0);
	return true;
}

/*
 * Receives once.  Sets *more; false when the connection is lost.
 */
static bool
read_input(RabbitConnection *conn, bool *more)
{
	char	   *room = conn->tls != NULL ? conn->received :
		rabbit_buffer_reserve(&conn->in, INPUT_BYTES);
	ssize_t		n = recv(connect_socket(conn->connector), room, INPUT_BYTES, 0);

	*more = true;
	if (n > 0)
	{
		conn->received_at = conn->now;
		if (conn->tls != NULL)
			return read_cipher(conn, n);
		conn->in.end += n;
		return take_input(conn);
	}
	if (n == 0)
		return connection_broken(conn, "RabbitMQ closed the connection");
	if (errno == EINTR)
		return true;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
	{
		*more = false;
		if (conn->send_errno == 0)
			return true;
		errno = conn->send_errno;
	}
	return connection_broken(conn, psprintf("connection to RabbitMQ broke: %m"));
}

/*
 * Moves input and output as far as that goes, but not for ever: who talks
 * faster than we listen must not keep the core from its other duties.
 */
static bool
exchange(RabbitConnection *conn)
{
	bool		more = true;

	for (int i = 0; more && i < READS_AT_ONCE; i++)
		if (!write_output(conn) || !read_input(conn, &more))
			return false;
	return write_output(conn);
}

/* ------------------------------------------------------------------------
 * Phases and timeouts
 * ------------------------------------------------------------------------
 */

static bool
begin(RabbitConnection *conn)
{
	conn->received_at = conn->sent_at = conn->progress_at = conn->now;
	connect_set_patience(conn->connector, conn->socket_timeout);
	if (!conn->options[OPTION_TLS].boolean)
	{
		conn->phase = PHASE_LOGIN;
		rabbit_handshake_begin(conn->handshake, &conn->out);
		return true;
	}
	conn->phase = PHASE_TLS;
	conn->received = MemoryContextAlloc(conn->host->context, INPUT_BYTES);
	conn->tls = rabbit_tls_create(conn->host, conn->options,
								  connect_host(conn->connector));
	/* the first step only writes */
	return conn->tls != NULL && rabbit_tls_advance(conn->tls) != TLS_FAILED;
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
	const char *cipher;

	if (conn->phase == PHASE_READY)
	{
		if (conn->now - conn->received_at >= 2 * heartbeat)
			return rabbit_lost(conn->host, DISPATCH_OUTAGE,
							   "no heartbeat from RabbitMQ for %g s", 2 * heartbeat / 1000.0);
		deadline = Min(conn->received_at + 2 * heartbeat, conn->sent_at + heartbeat / 2);
		if (rabbit_flight_count(conn->flight) > 0 && !conn->blocked)
		{
			if (conn->now - conn->progress_at >= conn->socket_timeout)
				return rabbit_lost(conn->host, DISPATCH_OUTAGE,
								   "no confirm from RabbitMQ for %g s",
								   conn->socket_timeout / 1000.0);
			deadline = Min(deadline, conn->progress_at + conn->socket_timeout);
		}
	}
	else if (conn->now >= deadline)
		return rabbit_lost(conn->host, DISPATCH_OUTAGE,
						   "no answer to the login from host \"%s\", port %d: timeout expired",
						   connect_host(conn->connector), connect_port(conn->connector));

	wait->fd = connect_socket(conn->connector);
	wait->events = WL_SOCKET_READABLE;
	if (unsent_bytes(conn) > 0 ||
		(conn->tls != NULL && rabbit_tls_to_send(conn->tls, &cipher) > 0))
		wait->events |= WL_SOCKET_WRITEABLE;
	wait->timeout_ms = Max(deadline - conn->now, 0);
	return true;
}

/* Whether another message can be taken. */
static bool
has_room(const RabbitConnection *conn)
{
	return !conn->blocked && unsent_bytes(conn) < OUTPUT_BYTES;
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
				return rabbit_lost(conn->host, DISPATCH_OUTAGE, "%s", error);
			case CONNECT_DONE:
				break;
		}
		if (!begin(conn))
			return false;
	}
	if (conn->phase == PHASE_READY && unsent_bytes(conn) == 0 &&
		conn->now - conn->sent_at >= heartbeat_ms(conn) / 2)
		rabbit_encode_heartbeat(&conn->out);
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

	if (!has_room(conn) ||
		!rabbit_flight_may_add(conn->flight, message->options[OPTION_EXCHANGE].text))
	{
		conn->refused = true;
		return false;
	}

	conn->is_sound = false;
	old_context = MemoryContextSwitchTo(conn->scratch);
	problem = rabbit_message_publish(message, &publish);
	if (problem == NULL)
		problem = rabbit_encode_publish(&conn->out, &publish,
										rabbit_handshake_frame_max(conn->handshake));
	MemoryContextSwitchTo(old_context);

	if (problem != NULL)
		conn->host->failed(conn->host, message, DISPATCH_EVENT_REJECTED, problem);
	else
	{
		if (rabbit_flight_count(conn->flight) == 0)
			conn->progress_at = clock_ms();
		rabbit_flight_add(conn->flight, message, conn->written + unsent_bytes(conn));
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

	if (!conn->is_sound || conn->phase != PHASE_READY || unsent_bytes(conn) > 0)
		return;
	rabbit_encode_close(&conn->out);
	(void) write_output(conn);
}
