/*-------------------------------------------------------------------------
 *
 * rabbitmq_stream.c
 *	  Input and output of a connection to RabbitMQ, encrypted or not.
 *
 * The only place that reads from and writes to the socket.  What could not be
 * written stays in a buffer; the connection takes no message while there is
 * much in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>

#include "connect.h"
#include "rabbitmq.h"

/* Room for input; a frame that is larger makes more. */
#define INPUT_BYTES (64 * 1024)

/* Room for output; a message that is larger makes more, for a while. */
#define OUTPUT_BYTES (1024 * 1024)
#define KEPT_BYTES (4 * OUTPUT_BYTES)

/* Of ciphertext that is not sent, no more is made. */
#define CIPHER_BYTES (256 * 1024)

/* In the current memory context. */
RabbitStream *
rabbit_stream_create(DispatchHost *host, Connector *connector)
{
	RabbitStream *stream = palloc0(sizeof(RabbitStream));

	stream->host = host;
	stream->connector = connector;
	rabbit_buffer_init(&stream->in, INPUT_BYTES);
	rabbit_buffer_init(&stream->out, OUTPUT_BYTES);
	return stream;
}

/* Whether frames can be exchanged. */
bool
rabbit_stream_is_open(const RabbitStream *stream)
{
	return stream->tls == NULL || stream->tls_is_ready;
}

size_t
rabbit_stream_unsent(const RabbitStream *stream)
{
	return stream->out.end - stream->out.start;
}

bool
rabbit_stream_wants_to_write(const RabbitStream *stream)
{
	const char *cipher;

	return rabbit_stream_unsent(stream) > 0 ||
		(stream->tls != NULL && rabbit_tls_to_send(stream->tls, &cipher) > 0);
}

static bool
stream_lost(RabbitStream *stream, const char *text)
{
	return rabbit_explain(stream->host, DISPATCH_OUTAGE, "%s", text);
}

/*
 * With TLS 1.3 a server looks at our certificate only after the handshake is
 * done for us: so what is refused before it says anything else is a matter of
 * configuration, too.
 */
static bool
tls_lost(RabbitStream *stream)
{
	return rabbit_explain(stream->host,
						  !stream->has_heard && rabbit_tls_was_refused(stream->tls) ?
						  DISPATCH_CONFIGURATION : DISPATCH_OUTAGE,
						  "TLS connection broke: %s", rabbit_tls_error(stream->tls));
}

/* ------------------------------------------------------------------------
 * Output
 * ------------------------------------------------------------------------
 */

/*
 * Writes what the socket takes; returns how much.  An error is only noted:
 * RabbitMQ may have said why it closed the connection, and that is still to be
 * read.
 */
static size_t
socket_write(RabbitStream *stream, const char *data, size_t len, int64 now)
{
	size_t		sent = 0;

	while (sent < len && stream->send_errno == 0)
	{
		ssize_t		n = send(connect_socket(stream->connector), data + sent, len - sent,
							 MSG_NOSIGNAL);

		if (n >= 0)
			sent += n;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			break;
		else if (errno != EINTR)
			stream->send_errno = errno;
	}
	if (sent > 0)
		stream->sent_at = now;
	return sent;
}

/* Those bytes are gone.  What a large message took is given back. */
static void
consume_output(RabbitStream *stream, size_t len)
{
	RabbitBuffer *out = &stream->out;

	stream->written += len;
	rabbit_buffer_consume(out, len);
	if (out->end == 0 && out->size > KEPT_BYTES)
	{
		out->data = repalloc(out->data, OUTPUT_BYTES);
		out->size = OUTPUT_BYTES;
	}
}

/* False, after explain(), when the connection is lost. */
bool
rabbit_stream_write(RabbitStream *stream, int64 now)
{
	const char *frames = stream->out.data + stream->out.start;

	if (stream->tls == NULL)
	{
		consume_output(stream, socket_write(stream, frames, rabbit_stream_unsent(stream), now));
		return true;
	}
	for (;;)
	{
		const char *cipher;
		size_t		len = rabbit_tls_to_send(stream->tls, &cipher);

		if (stream->tls_is_ready && rabbit_stream_unsent(stream) > 0 && len < CIPHER_BYTES)
		{
			ssize_t		n;

			frames = stream->out.data + stream->out.start;
			n = rabbit_tls_write(stream->tls, frames, rabbit_stream_unsent(stream));
			if (n < 0)
				return tls_lost(stream);
			consume_output(stream, n);
			if (n > 0)
				continue;
			len = rabbit_tls_to_send(stream->tls, &cipher);
		}
		if (len > 0)
			len = socket_write(stream, cipher, len, now);
		if (len == 0)
			return true;
		rabbit_tls_sent(stream->tls, len);
	}
}

/* ------------------------------------------------------------------------
 * Input
 * ------------------------------------------------------------------------
 */

static bool
advance_tls(RabbitStream *stream, int64 now)
{
	switch (rabbit_tls_advance(stream->tls))
	{
		case TLS_HANDSHAKE:
			return true;
		case TLS_READY:
			stream->tls_is_ready = true;
			return true;
		case TLS_FAILED:
			break;
	}
	(void) rabbit_stream_write(stream, now);	/* tells RabbitMQ why */
	return rabbit_explain(stream->host, DISPATCH_CONFIGURATION,
						  "TLS with host \"%s\", port %d failed: %s",
						  connect_host(stream->connector), connect_port(stream->connector),
						  rabbit_tls_error(stream->tls));
}

/* Connected: encrypts if so configured.  False, after explain(), if it failed. */
bool
rabbit_stream_open(RabbitStream *stream, const DispatchValue *options, int64 now)
{
	stream->received_at = stream->sent_at = now;
	if (!options[OPTION_TLS].boolean)
		return true;
	stream->received = MemoryContextAlloc(stream->host->context, INPUT_BYTES);
	stream->tls = rabbit_tls_create(stream->host, options, connect_host(stream->connector));
	return stream->tls != NULL && advance_tls(stream, now);
}

/*
 * Takes "len" encrypted bytes.  The end of the encryption may come with the
 * reason for it, so that is read first.
 */
static bool
read_cipher(RabbitStream *stream, size_t len, int64 now)
{
	ssize_t		n;

	if (!rabbit_tls_put_received(stream->tls, stream->received, len))
		return stream_lost(stream, "out of memory");
	if (!stream->tls_is_ready && !advance_tls(stream, now))
		return false;
	while (stream->tls_is_ready)
	{
		n = rabbit_tls_read(stream->tls, rabbit_buffer_reserve(&stream->in, INPUT_BYTES),
							INPUT_BYTES);
		if (n < 0)
			stream->tls_is_over = true;
		if (n <= 0)
			break;
		stream->has_heard = true;
		stream->in.end += n;
	}
	return true;
}

/* Receives once. */
StreamRead
rabbit_stream_read(RabbitStream *stream, int64 now)
{
	char	   *room = stream->tls != NULL ? stream->received :
		rabbit_buffer_reserve(&stream->in, INPUT_BYTES);
	ssize_t		n;

	if (stream->tls_is_over)
	{
		(void) tls_lost(stream);
		return STREAM_LOST;
	}
	n = recv(connect_socket(stream->connector), room, INPUT_BYTES, 0);
	if (n > 0)
	{
		stream->received_at = now;
		if (stream->tls == NULL)
			stream->in.end += n;
		else if (!read_cipher(stream, n, now))
			return STREAM_LOST;
		return STREAM_INPUT;
	}
	if (n < 0 && errno == EINTR)
		return STREAM_INPUT;
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
	{
		if (stream->send_errno == 0)
			return STREAM_NOTHING;
		errno = stream->send_errno;
	}
	(void) stream_lost(stream, n == 0 ? "RabbitMQ closed the connection" :
					   psprintf("connection to RabbitMQ broke: %m"));
	return STREAM_LOST;
}
