/*-------------------------------------------------------------------------
 *
 * rabbitmq_codec.c
 *	  What we say to RabbitMQ, in its form on the wire.
 *
 * The only file that uses rabbitmq-c: its encoders of methods, properties and
 * tables, which check bounds and allocate nothing.  A frame is written in
 * place: its payload, then the seven bytes before it and the one after.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <amqp.h>
#include <amqp_framing.h>

#include "port/pg_bswap.h"

#include "rabbitmq.h"

/* Bytes of a frame before its payload. */
#define FRAME_HEAD (FRAME_OVERHEAD - 1)

/* Longer than any method of ours but start-ok, with two short strings. */
#define METHOD_BYTES 1024

/* A name and a password, and what we say of ourselves, at most so long. */
#define LOGIN_BYTES 8192

StaticAssertDecl(METHOD_START == AMQP_CONNECTION_START_METHOD, "connection.start");
StaticAssertDecl(METHOD_SECURE == AMQP_CONNECTION_SECURE_METHOD, "connection.secure");
StaticAssertDecl(METHOD_TUNE == AMQP_CONNECTION_TUNE_METHOD, "connection.tune");
StaticAssertDecl(METHOD_OPEN_OK == AMQP_CONNECTION_OPEN_OK_METHOD, "connection.open-ok");
StaticAssertDecl(METHOD_CLOSE == AMQP_CONNECTION_CLOSE_METHOD, "connection.close");
StaticAssertDecl(METHOD_CLOSE_OK == AMQP_CONNECTION_CLOSE_OK_METHOD, "connection.close-ok");
StaticAssertDecl(METHOD_BLOCKED == AMQP_CONNECTION_BLOCKED_METHOD, "connection.blocked");
StaticAssertDecl(METHOD_UNBLOCKED == AMQP_CONNECTION_UNBLOCKED_METHOD, "connection.unblocked");
StaticAssertDecl(METHOD_CHANNEL_OPEN_OK == AMQP_CHANNEL_OPEN_OK_METHOD, "channel.open-ok");
StaticAssertDecl(METHOD_CHANNEL_CLOSE == AMQP_CHANNEL_CLOSE_METHOD, "channel.close");
StaticAssertDecl(METHOD_RETURN == AMQP_BASIC_RETURN_METHOD, "basic.return");
StaticAssertDecl(METHOD_ACK == AMQP_BASIC_ACK_METHOD, "basic.ack");
StaticAssertDecl(METHOD_NACK == AMQP_BASIC_NACK_METHOD, "basic.nack");
StaticAssertDecl(METHOD_CONFIRM_SELECT_OK == AMQP_CONFIRM_SELECT_OK_METHOD, "confirm.select-ok");
StaticAssertDecl((int) FRAME_METHOD == AMQP_FRAME_METHOD, "method frame");
StaticAssertDecl((int) FRAME_HEADER == AMQP_FRAME_HEADER, "header frame");
StaticAssertDecl((int) FRAME_BODY == AMQP_FRAME_BODY, "body frame");
StaticAssertDecl((int) FRAME_HEARTBEAT == AMQP_FRAME_HEARTBEAT, "heartbeat frame");

/* ------------------------------------------------------------------------
 * Buffers
 * ------------------------------------------------------------------------
 */

/* In the current memory context. */
void
rabbit_buffer_init(RabbitBuffer *buffer, size_t size)
{
	buffer->data = palloc(size);
	buffer->size = size;
	buffer->start = buffer->end = 0;
}

/* Room for so many more bytes; returns where they go. */
char *
rabbit_buffer_reserve(RabbitBuffer *buffer, size_t len)
{
	if (buffer->size - buffer->end < len && buffer->start > 0)
	{
		memmove(buffer->data, buffer->data + buffer->start,
				buffer->end - buffer->start);
		buffer->end -= buffer->start;
		buffer->start = 0;
	}
	if (buffer->size - buffer->end < len)
	{
		size_t		size = Max(buffer->size * 2, buffer->end + len);

		buffer->data = repalloc_huge(buffer->data, size);
		buffer->size = size;
	}
	return buffer->data + buffer->end;
}

/* Those were written. */
void
rabbit_buffer_consume(RabbitBuffer *buffer, size_t len)
{
	buffer->start += len;
	if (buffer->start == buffer->end)
		buffer->start = buffer->end = 0;
}

/* ------------------------------------------------------------------------
 * Frames
 * ------------------------------------------------------------------------
 */

/* Puts a frame around a payload that lies FRAME_HEAD bytes into "frame". */
static void
finish_frame(RabbitBuffer *out, RabbitFrameType type, int channel, size_t len)
{
	char	   *frame = out->data + out->end;
	uint16		channel_n = pg_hton16((uint16) channel);
	uint32		len_n = pg_hton32((uint32) len);

	frame[0] = (char) type;
	memcpy(frame + 1, &channel_n, sizeof(channel_n));
	memcpy(frame + 3, &len_n, sizeof(len_n));
	frame[FRAME_HEAD + len] = (char) AMQP_FRAME_END;
	out->end += len + FRAME_OVERHEAD;
}

static bool
append_method(RabbitBuffer *out, int channel, amqp_method_number_t method,
			  void *fields, size_t max)
{
	char	   *frame = rabbit_buffer_reserve(out, max + FRAME_OVERHEAD);
	uint32		method_n = pg_hton32(method);
	amqp_bytes_t encoded = {
		.bytes = frame + FRAME_HEAD + sizeof(method_n),
		.len = max - sizeof(method_n)
	};
	int			len = amqp_encode_method(method, fields, encoded);

	if (len < 0)
		return false;
	memcpy(frame + FRAME_HEAD, &method_n, sizeof(method_n));
	finish_frame(out, FRAME_METHOD, channel, sizeof(method_n) + len);
	return true;
}

/* Of a method that always fits. */
static void
append_short_method(RabbitBuffer *out, int channel, amqp_method_number_t method,
					void *fields)
{
	if (!append_method(out, channel, method, fields, METHOD_BYTES))
		elog(ERROR, "could not encode %s", amqp_method_name(method));
}

void
rabbit_encode_heartbeat(RabbitBuffer *out)
{
	(void) rabbit_buffer_reserve(out, FRAME_OVERHEAD);
	finish_frame(out, FRAME_HEARTBEAT, 0, 0);
}

/* ------------------------------------------------------------------------
 * Values
 * ------------------------------------------------------------------------
 */

static amqp_bytes_t
bytes_of(const char *text, size_t len)
{
	return (amqp_bytes_t) {.len = len, .bytes = unconstify(char *, text)};
}

static amqp_bytes_t
text_of(const char *text)
{
	return text == NULL ? amqp_empty_bytes : bytes_of(text, strlen(text));
}

static amqp_table_t table_of(const RabbitTable *table);

static amqp_field_value_t
value_of(const RabbitValue *value)
{
	amqp_field_value_t result = {.kind = AMQP_FIELD_KIND_VOID};

	switch (value->kind)
	{
		case VALUE_NULL:
			break;
		case VALUE_BOOLEAN:
			result.kind = AMQP_FIELD_KIND_BOOLEAN;
			result.value.boolean = value->boolean;
			break;
		case VALUE_INTEGER:
			/* clients read this kind right that take the other for unsigned */
			if (value->integer >= PG_INT32_MIN && value->integer <= PG_INT32_MAX)
			{
				result.kind = AMQP_FIELD_KIND_I32;
				result.value.i32 = (int32) value->integer;
				break;
			}
			result.kind = AMQP_FIELD_KIND_I64;
			result.value.i64 = value->integer;
			break;
		case VALUE_DOUBLE:
			result.kind = AMQP_FIELD_KIND_F64;
			result.value.f64 = value->number;
			break;
		case VALUE_STRING:
			result.kind = AMQP_FIELD_KIND_UTF8;
			result.value.bytes = bytes_of(value->text, value->len);
			break;
		case VALUE_BINARY:
			result.kind = AMQP_FIELD_KIND_BYTES;
			result.value.bytes = bytes_of(value->text, value->len);
			break;
		case VALUE_TIMESTAMP:
			result.kind = AMQP_FIELD_KIND_TIMESTAMP;
			result.value.u64 = (uint64) value->integer;
			break;
		case VALUE_ARRAY:
			result.kind = AMQP_FIELD_KIND_ARRAY;
			result.value.array.num_entries = value->table->count;
			result.value.array.entries =
				palloc(Max(value->table->count, 1) * sizeof(amqp_field_value_t));
			for (int i = 0; i < value->table->count; i++)
				result.value.array.entries[i] = value_of(&value->table->fields[i].value);
			break;
		case VALUE_TABLE:
			result.kind = AMQP_FIELD_KIND_TABLE;
			result.value.table = table_of(value->table);
			break;
	}
	return result;
}

static amqp_table_t
table_of(const RabbitTable *table)
{
	amqp_table_t result = {.num_entries = table->count};

	result.entries = palloc(Max(table->count, 1) * sizeof(amqp_table_entry_t));
	for (int i = 0; i < table->count; i++)
	{
		result.entries[i].key = text_of(table->fields[i].name);
		result.entries[i].value = value_of(&table->fields[i].value);
	}
	return result;
}

/* ------------------------------------------------------------------------
 * The connection and its channel
 * ------------------------------------------------------------------------
 */

static amqp_table_entry_t
text_entry(const char *name, const char *text)
{
	return (amqp_table_entry_t) {
		.key = text_of(name),
		.value = {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = text_of(text)}
	};
}

static amqp_table_entry_t
true_entry(const char *name)
{
	return (amqp_table_entry_t) {
		.key = text_of(name),
		.value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}
	};
}

/* False if name and password are too long. */
bool
rabbit_encode_start_ok(RabbitBuffer *out, const char *connection_name,
					   const char *username, const char *password)
{
	amqp_table_entry_t capabilities[] = {
		true_entry("publisher_confirms"),
		true_entry("basic.nack"),
		true_entry("connection.blocked"),
		true_entry("authentication_failure_close"),
	};
	amqp_table_entry_t properties[] = {
		text_entry("product", "dispatch"),
		text_entry("platform", "PostgreSQL " PG_VERSION),
		text_entry("connection_name", connection_name),
		{
			.key = text_of("capabilities"),
			.value = {
				.kind = AMQP_FIELD_KIND_TABLE,
				.value.table = {lengthof(capabilities), capabilities}
			}
		}
	};
	size_t		response_len = strlen(username) + strlen(password) + 2;
	char	   *response = palloc0(response_len + 1);
	amqp_connection_start_ok_t fields = {
		.client_properties = {lengthof(properties), properties},
		.mechanism = text_of("PLAIN"),
		.response = bytes_of(response, response_len),
		.locale = text_of("en_US")
	};
	bool		fits;

	strcpy(response + 1, username);
	strcpy(response + 2 + strlen(username), password);
	fits = append_method(out, 0, AMQP_CONNECTION_START_OK_METHOD, &fields, LOGIN_BYTES);
	explicit_bzero(response, response_len);
	return fits;
}

void
rabbit_encode_tune_ok(RabbitBuffer *out, int channel_max, int frame_max,
					  int heartbeat)
{
	amqp_connection_tune_ok_t fields = {
		.channel_max = channel_max,
		.frame_max = frame_max,
		.heartbeat = heartbeat
	};

	append_short_method(out, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &fields);
}

bool
rabbit_encode_open(RabbitBuffer *out, const char *vhost)
{
	amqp_connection_open_t fields = {.virtual_host = text_of(vhost)};

	return append_method(out, 0, AMQP_CONNECTION_OPEN_METHOD, &fields, METHOD_BYTES);
}

void
rabbit_encode_close(RabbitBuffer *out)
{
	amqp_connection_close_t fields = {
		.reply_code = AMQP_REPLY_SUCCESS,
		.reply_text = text_of("closed by dispatch")
	};

	append_short_method(out, 0, AMQP_CONNECTION_CLOSE_METHOD, &fields);
}

void
rabbit_encode_close_ok(RabbitBuffer *out)
{
	amqp_connection_close_ok_t fields = {0};

	append_short_method(out, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &fields);
}

void
rabbit_encode_channel_open(RabbitBuffer *out)
{
	amqp_channel_open_t fields = {.out_of_band = amqp_empty_bytes};

	append_short_method(out, CHANNEL, AMQP_CHANNEL_OPEN_METHOD, &fields);
}

void
rabbit_encode_channel_close_ok(RabbitBuffer *out)
{
	amqp_channel_close_ok_t fields = {0};

	append_short_method(out, CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &fields);
}

void
rabbit_encode_confirm_select(RabbitBuffer *out)
{
	amqp_confirm_select_t fields = {0};

	append_short_method(out, CHANNEL, AMQP_CONFIRM_SELECT_METHOD, &fields);
}

/* ------------------------------------------------------------------------
 * Messages
 * ------------------------------------------------------------------------
 */

static void
set_text(amqp_basic_properties_t *properties, amqp_flags_t flag,
		 amqp_bytes_t *property, const char *text)
{
	if (text == NULL)
		return;
	properties->_flags |= flag;
	*property = text_of(text);
}

static void
set_properties(const RabbitPublish *publish, amqp_basic_properties_t *p)
{
	memset(p, 0, sizeof(*p));
	set_text(p, AMQP_BASIC_CONTENT_TYPE_FLAG, &p->content_type, publish->content_type);
	set_text(p, AMQP_BASIC_CONTENT_ENCODING_FLAG, &p->content_encoding,
			 publish->content_encoding);
	set_text(p, AMQP_BASIC_CORRELATION_ID_FLAG, &p->correlation_id, publish->correlation_id);
	set_text(p, AMQP_BASIC_REPLY_TO_FLAG, &p->reply_to, publish->reply_to);
	set_text(p, AMQP_BASIC_EXPIRATION_FLAG, &p->expiration, publish->expiration);
	set_text(p, AMQP_BASIC_MESSAGE_ID_FLAG, &p->message_id, publish->message_id);
	set_text(p, AMQP_BASIC_TYPE_FLAG, &p->type, publish->type);
	set_text(p, AMQP_BASIC_USER_ID_FLAG, &p->user_id, publish->user_id);
	set_text(p, AMQP_BASIC_APP_ID_FLAG, &p->app_id, publish->app_id);
	p->_flags |= AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG;
	p->delivery_mode = publish->delivery_mode;
	p->timestamp = (uint64) publish->timestamp;
	if (publish->priority >= 0)
	{
		p->_flags |= AMQP_BASIC_PRIORITY_FLAG;
		p->priority = publish->priority;
	}
	if (publish->headers != NULL && publish->headers->count > 0)
	{
		p->_flags |= AMQP_BASIC_HEADERS_FLAG;
		p->headers = table_of(publish->headers);
	}
}

/* The content header: class, weight, size of the body, properties. */
static bool
append_content_header(RabbitBuffer *out, const RabbitPublish *publish,
					  size_t frame_max)
{
	amqp_basic_properties_t properties;
	char	   *payload = rabbit_buffer_reserve(out, frame_max) + FRAME_HEAD;
	uint16		class_n = pg_hton16(AMQP_BASIC_CLASS);
	uint64		size_n = pg_hton64(publish->body_len);
	const size_t fixed = 2 * sizeof(class_n) + sizeof(size_n);
	amqp_bytes_t encoded = {
		.bytes = payload + fixed,
		.len = frame_max - FRAME_OVERHEAD - fixed
	};
	int			len;

	set_properties(publish, &properties);
	len = amqp_encode_properties(AMQP_BASIC_CLASS, &properties, encoded);
	if (len < 0)
		return false;
	memcpy(payload, &class_n, sizeof(class_n));
	memset(payload + sizeof(class_n), 0, sizeof(class_n));
	memcpy(payload + 2 * sizeof(class_n), &size_n, sizeof(size_n));
	finish_frame(out, FRAME_HEADER, CHANNEL, fixed + len);
	return true;
}

static void
append_body(RabbitBuffer *out, const char *body, size_t len, size_t frame_max)
{
	while (len > 0)
	{
		size_t		part = Min(len, frame_max - FRAME_OVERHEAD);
		char	   *frame = rabbit_buffer_reserve(out, part + FRAME_OVERHEAD);

		memcpy(frame + FRAME_HEAD, body, part);
		finish_frame(out, FRAME_BODY, CHANNEL, part);
		body += part;
		len -= part;
	}
}

/*
 * Appends a message, whole or not at all.  NULL, or why it cannot be sent.
 * Scratch memory is of the current context.
 */
const char *
rabbit_encode_publish(RabbitBuffer *out, const RabbitPublish *publish,
					  size_t frame_max)
{
	size_t		unsent = out->end - out->start;
	amqp_basic_publish_t fields = {
		.exchange = text_of(publish->exchange),
		.routing_key = text_of(publish->routing_key),
		.mandatory = 1
	};

	if (!append_method(out, CHANNEL, AMQP_BASIC_PUBLISH_METHOD, &fields, METHOD_BYTES))
		return "The exchange or the routing key is longer than 255 bytes.";
	if (!append_content_header(out, publish, frame_max))
	{
		out->end = out->start + unsent;
		return "The headers and properties do not fit into a frame, or one is longer than it may be.";
	}
	append_body(out, publish->body, publish->body_len, frame_max);
	return NULL;
}
