/*-------------------------------------------------------------------------
 *
 * rabbitmq_receive.c
 *	  What follows from each frame that RabbitMQ sends.
 *
 * A frame out of place means that we and RabbitMQ are no longer at the same
 * point, so the connection is lost, and no message is credited.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "connect.h"
#include "rabbitmq.h"

/*
 * What RabbitMQ says is not to be shown if it repeats the password; one that is
 * the user's name, as that of guest, is no secret.
 */
static void
hide_password(const RabbitConnection *conn, char *text)
{
	const char *password = conn->options[OPTION_PASSWORD].text;

	if (*password != '\0' && strcmp(password, conn->options[OPTION_USERNAME].text) != 0 &&
		strstr(text, password) != NULL)
		strcpy(text, "(its text has the password in it)");
}

/* A frame that has no place here. */
static bool
frame_unexpected(RabbitConnection *conn, const RabbitFrame *frame)
{
	return rabbit_explain(conn->host, DISPATCH_OUTAGE,
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

	/* if that goes at once: RabbitMQ waits for it */
	rabbit_encode_close_ok(&conn->stream->out);
	(void) rabbit_stream_write(conn->stream, conn->now);

	if (conn->phase != PHASE_READY)
		return rabbit_explain(conn->host, rabbit_error_class(closed.code, SCOPE_CONNECTION),
							  "%d %s", closed.code, closed.text);
	if (!rabbit_flight_convict(conn->flight, &closed))
		return false;
	return rabbit_explain(conn->host, DISPATCH_OUTAGE, "%d %s", closed.code, closed.text);
}

static bool
take_channel_close(RabbitConnection *conn, RabbitFrame *frame)
{
	RabbitClosed closed;

	if (!rabbit_read_closed(&frame->payload, &closed))
		return frame_unexpected(conn, frame);
	hide_password(conn, closed.text);
	if (conn->phase != PHASE_READY)
		return rabbit_explain(conn->host, rabbit_error_class(closed.code, SCOPE_CONNECTION),
							  "%d %s", closed.code, closed.text);
	if (!rabbit_flight_convict(conn->flight, &closed))
		return false;

	rabbit_flight_restart(conn->flight);
	rabbit_handshake_reopen_channel(conn->handshake, &conn->stream->out);
	conn->content = CONTENT_NONE;
	conn->phase = PHASE_LOGIN;
	conn->deadline = conn->now + conn->connect_timeout;
	return true;
}

/*
 * RabbitMQ has raised an alarm.  It does not read meanwhile, and the kernel must
 * not take that for the end of the connection.
 */
static bool
take_blocked(RabbitConnection *conn, RabbitFrame *frame)
{
	char		reason[SHORT_STRING_MAX + 1];

	rabbit_copy_text(rabbit_read_short_string(&frame->payload), reason, sizeof(reason));
	hide_password(conn, reason);
	conn->blocked = true;
	connect_set_patience(conn->connector, 0);
	(void) rabbit_explain(conn->host, DISPATCH_BACKPRESSURE,
						  "RabbitMQ blocks those who publish: %s", reason);
	return true;
}

static bool
take_unblocked(RabbitConnection *conn)
{
	conn->blocked = false;
	conn->refused = true;		/* what waits is to be brought at once */
	conn->progress_at = conn->now;
	connect_set_patience(conn->connector, conn->socket_timeout);
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
	return rabbit_flight_answer(conn->flight, frame->method == METHOD_ACK, tag, multiple,
								conn->stream->written);
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
				return take_blocked(conn, frame);
			case METHOD_UNBLOCKED:
				return take_unblocked(conn);
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
	if (!rabbit_handshake_method(conn->handshake, frame, &conn->stream->out))
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
bool
rabbit_receive(RabbitConnection *conn)
{
	for (;;)
	{
		RabbitFrame frame;
		const char *error;
		RabbitBuffer *in = &conn->stream->in;
		int			len = rabbit_frame_read(in->data + in->start, in->end - in->start,
											rabbit_handshake_frame_max(conn->handshake),
											&frame, &error);

		if (len < 0)
			return rabbit_explain(conn->host, conn->phase == PHASE_READY ?
								  DISPATCH_OUTAGE : DISPATCH_CONFIGURATION,
								  "host \"%s\", port %d does not answer as RabbitMQ does: %s",
								  connect_host(conn->connector),
								  connect_port(conn->connector), error);
		if (len == 0)
			return true;
		if (!take_frame(conn, &frame))
			return false;
		rabbit_buffer_consume(in, len);
	}
}
