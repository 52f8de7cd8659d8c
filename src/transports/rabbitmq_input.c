/*-------------------------------------------------------------------------
 *
 * rabbitmq_input.c
 *	  What RabbitMQ says, taken apart.
 *
 * Nothing here trusts the broker: every read is bounded by its frame, every
 * frame by the size that was agreed upon, and tables are passed over by their
 * length.  Nothing is allocated.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rabbitmq.h"

#define FRAME_END 0xCE
#define BASIC_CLASS 60

/* ------------------------------------------------------------------------
 * Values
 * ------------------------------------------------------------------------
 */

/* So many bytes of the payload; NULL if it has less. */
static const unsigned char *
take(RabbitReader *reader, size_t len)
{
	const unsigned char *taken = reader->at;

	if (reader->broken || (size_t) (reader->end - reader->at) < len)
	{
		reader->broken = true;
		return NULL;
	}
	reader->at += len;
	return taken;
}

/* An unsigned number in network order, of 1 to 8 bytes. */
uint64
rabbit_read_number(RabbitReader *reader, int bytes)
{
	const unsigned char *at = take(reader, bytes);
	uint64		number = 0;

	for (int i = 0; at != NULL && i < bytes; i++)
		number = number << 8 | at[i];
	return number;
}

static RabbitText
read_text(RabbitReader *reader, int length_bytes)
{
	size_t		len = rabbit_read_number(reader, length_bytes);
	const char *data = (const char *) take(reader, len);

	return (RabbitText) {data, data == NULL ? 0 : len};
}

RabbitText
rabbit_read_short_string(RabbitReader *reader)
{
	return read_text(reader, 1);
}

/* Terminates a text, cut to fit; a NUL inside ends it. */
void
rabbit_copy_text(RabbitText text, char *target, size_t size)
{
	size_t		len = Min(text.len, size - 1);

	if (len > 0)
		memcpy(target, text.data, len);
	target[len] = '\0';
}

/* ------------------------------------------------------------------------
 * Frames
 * ------------------------------------------------------------------------
 */

static bool
frame_type_is_known(int type)
{
	return type == FRAME_METHOD || type == FRAME_HEADER || type == FRAME_BODY ||
		type == FRAME_HEARTBEAT;
}

/*
 * Takes the first frame off the input.  Returns its length, 0 if it is not
 * there as a whole yet, or -1 with *error set if it is none.
 */
int
rabbit_frame_read(const char *data, size_t len, size_t frame_max,
				  RabbitFrame *frame, const char **error)
{
	RabbitReader reader = {
		(const unsigned char *) data, (const unsigned char *) data + len, false
	};
	size_t		payload_len;

	/* The answer of a server that speaks another version of the protocol. */
	if (len > 0 && !frame_type_is_known((unsigned char) *data))
	{
		*error = *data == 'A' ? "it refuses AMQP 0-9-1" : "it sent what is no frame of AMQP";
		return -1;
	}
	frame->type = rabbit_read_number(&reader, 1);
	frame->channel = rabbit_read_number(&reader, 2);
	payload_len = rabbit_read_number(&reader, 4);
	if (reader.broken)
		return 0;
	if (payload_len > frame_max - FRAME_OVERHEAD)
	{
		*error = "it sent a frame that is too large";
		return -1;
	}
	frame->payload.at = take(&reader, payload_len);
	frame->payload.end = reader.at;
	frame->payload.broken = false;
	if (rabbit_read_number(&reader, 1) != FRAME_END)
	{
		if (reader.broken)
			return 0;
		*error = "it sent a frame that does not end where it should";
		return -1;
	}
	frame->method = 0;
	if (frame->type == FRAME_METHOD)
		frame->method = rabbit_read_number(&frame->payload, 4);
	if (frame->payload.broken)
	{
		*error = "it sent a method without a number";
		return -1;
	}
	return payload_len + FRAME_OVERHEAD;
}

/* ------------------------------------------------------------------------
 * Methods; false if one is not well formed
 * ------------------------------------------------------------------------
 */

bool
rabbit_read_start(RabbitReader *reader, RabbitText *mechanisms)
{
	(void) rabbit_read_number(reader, 2);	/* version of the protocol */
	(void) read_text(reader, 4);	/* properties of the server, a table */
	*mechanisms = read_text(reader, 4);
	(void) read_text(reader, 4);	/* locales */
	return !reader->broken;
}

bool
rabbit_read_closed(RabbitReader *reader, RabbitClosed *closed)
{
	closed->code = rabbit_read_number(reader, 2);
	rabbit_copy_text(rabbit_read_short_string(reader), closed->text, sizeof(closed->text));
	(void) rabbit_read_number(reader, 4);	/* class and method to blame */
	return !reader->broken;
}

bool
rabbit_read_return(RabbitReader *reader, RabbitReturned *returned)
{
	returned->code = rabbit_read_number(reader, 2);
	(void) rabbit_read_short_string(reader);	/* the code as text */
	rabbit_copy_text(rabbit_read_short_string(reader), returned->exchange,
					 sizeof(returned->exchange));
	rabbit_copy_text(rabbit_read_short_string(reader), returned->routing_key,
					 sizeof(returned->routing_key));
	return !reader->broken;
}

/*
 * The properties that come before the id of the message, in the order of their
 * flags, the highest bit first.
 */
static const enum
{
	SHORT_STRING,
	TABLE,
	OCTET
}			before_message_id[] = {
	SHORT_STRING,				/* content_type */
	SHORT_STRING,				/* content_encoding */
	TABLE,						/* headers */
	OCTET,						/* delivery_mode */
	OCTET,						/* priority */
	SHORT_STRING,				/* correlation_id */
	SHORT_STRING,				/* reply_to */
	SHORT_STRING,				/* expiration */
};

bool
rabbit_read_return_header(RabbitReader *reader, RabbitReturned *returned)
{
	uint32		flag = 1 << 15;
	uint32		flags;
	RabbitText	id = {NULL, 0};

	if (rabbit_read_number(reader, 2) != BASIC_CLASS)
		return false;
	(void) rabbit_read_number(reader, 2);	/* weight */
	returned->body_left = rabbit_read_number(reader, 8);
	flags = rabbit_read_number(reader, 2);

	for (int i = 0; i < (int) lengthof(before_message_id); i++, flag >>= 1)
	{
		if ((flags & flag) == 0)
			continue;
		switch (before_message_id[i])
		{
			case SHORT_STRING:
				(void) rabbit_read_short_string(reader);
				break;
			case TABLE:
				(void) read_text(reader, 4);
				break;
			case OCTET:
				(void) rabbit_read_number(reader, 1);
				break;
		}
	}
	if ((flags & flag) != 0)
		id = rabbit_read_short_string(reader);
	rabbit_copy_text(id, returned->message_id, sizeof(returned->message_id));
	return !reader->broken;
}
