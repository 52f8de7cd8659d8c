/*-------------------------------------------------------------------------
 *
 * envelope.c
 *	  What goes on the wire: the body of a message, and its attributes.
 *
 * The structured CloudEvent has its keys in the order that Django Dispatch
 * writes them, with the same spaces, for consumers that compare texts.  This
 * runs for each event that is sent: nothing here formats with printf, and a
 * body is built in one piece, in the encoding of the database, and converted
 * as a whole if it must be.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

#include "attribute_syntax.h"
#include "attributes.h"
#include "envelope.h"
#include "json.h"
#include "utf8.h"

#define STRUCTURED_TYPE "application/cloudevents+json; charset=UTF-8"

#define UUID_TEXT_LEN 36
#define TIME_TEXT_LEN 32		/* 2025-06-25T10:11:12.345678+00:00 */
#define OWN_ATTRIBUTES 6

/* Room for all keys and punctuation of the longest envelope. */
#define FIXED_LEN 256

#define MICROSECONDS_PER_DAY ((uint64) USECS_PER_DAY)
#define EPOCH_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Before year 10000, which RFC 3339 cannot write. */
#define DAYS_TO_YEAR_10000 UINT64CONST(2932897)

static void
write_uuid(char *out, const pg_uuid_t *uuid)
{
	static const char hex[] = "0123456789abcdef";

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = hex[uuid->data[i] >> 4];
		*out++ = hex[uuid->data[i] & 0xf];
	}
	*out = '\0';
}

/* Writes the last "digits" digits. */
static char *
write_digits(char *out, uint32 number, int digits)
{
	for (int i = digits - 1; i >= 0; i--)
	{
		out[i] = '0' + number % 10;
		number /= 10;
	}
	return out + digits;
}

/*
 * Writes 2025-06-25T.  Events come in the order of time, so that the day is
 * nearly always that of the last one.
 */
static char *
write_day(char *out, int julian_day)
{
	static int	written_day = -1;
	static char written[] = "0000-00-00T";

	if (julian_day != written_day)
	{
		int			year;
		int			month;
		int			day;

		j2date(julian_day, &year, &month, &day);
		write_digits(written, year, 4);
		write_digits(written + 5, month, 2);
		write_digits(written + 8, day, 2);
		written_day = julian_day;
	}
	memcpy(out, written, sizeof(written) - 1);
	return out + sizeof(written) - 1;
}

/*
 * The offset is written in digits: a Z would be as good an RFC 3339 time, but
 * Python's datetime.fromisoformat() cannot read it before 3.11.
 */
static void
write_time(char *out, uint64 microseconds)
{
	uint64		of_day = microseconds % MICROSECONDS_PER_DAY;
	uint32		second = of_day / USECS_PER_SEC;

	out = write_day(out, (int) (microseconds / MICROSECONDS_PER_DAY) + UNIX_EPOCH_JDATE);
	out = write_digits(out, second / SECS_PER_HOUR, 2);
	*out++ = ':';
	out = write_digits(out, second / SECS_PER_MINUTE % MINS_PER_HOUR, 2);
	*out++ = ':';
	out = write_digits(out, second % SECS_PER_MINUTE, 2);
	*out++ = '.';
	out = write_digits(out, of_day % USECS_PER_SEC, 6);
	memcpy(out, "+00:00", sizeof("+00:00"));
}

/* Sets what tells events apart: the identity and the time. */
static bool
set_stamps(const Event *event, DispatchMessage *message, const char **error)
{
	char	   *stamps = palloc(UUID_TEXT_LEN + 1 + TIME_TEXT_LEN + 1);
	uint64		microseconds;

	write_uuid(stamps, &event->event_id);
	message->event_id = stamps;

	if (event->created_at < -EPOCH_OFFSET ||
		event->created_at >= (int64) (DAYS_TO_YEAR_10000 * MICROSECONDS_PER_DAY) - EPOCH_OFFSET)
	{
		*error = "The time of the event is before 1970 or after 9999.";
		return false;
	}
	microseconds = event->created_at + EPOCH_OFFSET;
	write_time(stamps + UUID_TEXT_LEN + 1, microseconds);
	message->time = stamps + UUID_TEXT_LEN + 1;
	message->timestamp_ms = microseconds / 1000;
	return true;
}

static bool
set_text(const char **result, const char *text, const char *name, const char **error)
{
	const char *problem;
	size_t		len;

	*result = text;
	if (text == NULL)
		return true;
	len = strlen(text);
	if (utf8_convert(result, &len, &problem))
		return true;
	*error = psprintf("The %s of the event cannot be sent. %s", name, problem);
	return false;
}

static bool
set_texts(const Event *event, DispatchMessage *message, const char **error)
{
	return set_text(&message->event_type, event->event_type, "event type", error) &&
		set_text(&message->source, event->source, "source", error) &&
		set_text(&message->subject, event->subject, "subject", error) &&
		set_text(&message->key, event->key, "key", error);
}

static void
append_text(StringInfo body, const char *text)
{
	json_append_string(body, text, strlen(text));
}

/* Those with a place of their own, before all extensions. */
static bool
is_extension(const char *name, size_t len)
{
	static const char *const others[] = {"id", "time", "datacontenttype", "dataschema"};

	for (int i = 0; i < (int) lengthof(others); i++)
		if (strlen(others[i]) == len && memcmp(others[i], name, len) == 0)
			return false;
	return true;
}

static void
append_member(StringInfo body, const char *name, int name_len, const JsonbValue *value)
{
	JSON_APPEND_LITERAL(body, ", ");
	json_append_string(body, name, name_len);
	JSON_APPEND_LITERAL(body, ": ");
	if (value->type == jbvString)
		json_append_string(body, value->val.string.val, value->val.string.len);
	else
	{
		char	   *text = json_scalar_text(value);

		json_append_raw(body, text, strlen(text));
	}
}

static void
append_extensions(StringInfo body, const Jsonb *attributes)
{
	JsonbIterator *iterator = JsonbIteratorInit(&unconstify(Jsonb *, attributes)->root);
	JsonbIteratorToken token;
	JsonbValue	name = {0};
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = value;
		else if (token == WJB_VALUE &&
				 is_extension(name.val.string.val, name.val.string.len))
			append_member(body, name.val.string.val, name.val.string.len, &value);
	}
}

static void
append_attribute(StringInfo body, const Jsonb *attributes, const char *name)
{
	const JsonbValue *value = attributes_get(attributes, name);

	if (value != NULL)
		append_member(body, name, strlen(name), value);
}

/* id and time: ours, unless the whole CloudEvent was given. */
static void
append_stamps(StringInfo body, const Event *event, const DispatchMessage *message)
{
	if (attributes_are_given(event->attributes))
	{
		append_attribute(body, event->attributes, "id");
		append_attribute(body, event->attributes, "time");
		return;
	}
	JSON_APPEND_LITERAL(body, ", \"id\": \"");
	json_append_raw(body, message->event_id, UUID_TEXT_LEN);
	JSON_APPEND_LITERAL(body, "\", \"time\": \"");
	json_append_raw(body, message->time, TIME_TEXT_LEN);
	JSON_APPEND_LITERAL(body, "\"");
}

/* That data is JSON is said, except in an event that was given without. */
static void
append_content_type(StringInfo body, const Event *event)
{
	if (attributes_get(event->attributes, "datacontenttype") != NULL)
		append_attribute(body, event->attributes, "datacontenttype");
	else if (event->data != NULL && !attributes_are_given(event->attributes))
		JSON_APPEND_LITERAL(body, ", \"datacontenttype\": \"" JSON_TYPE "\"");
}

static void
append_base64(StringInfo body, const bytea *content)
{
	int			len = VARSIZE(content) - VARHDRSZ;
	int			size = pg_b64_enc_len(len) + 1;

	if (!json_make_room(body, size))
		return;
	body->len += pg_b64_encode(VARDATA(content), len, body->data + body->len, size);
}

static void
append_payload(StringInfo body, const Event *event)
{
	if (event->content != NULL)
	{
		JSON_APPEND_LITERAL(body, ", \"data_base64\": \"");
		append_base64(body, event->content);
		JSON_APPEND_LITERAL(body, "\"");
	}
	else if (event->data != NULL)
	{
		JSON_APPEND_LITERAL(body, ", \"data\": ");
		json_append(body, event->data);
	}
}

static void
append_cloudevent(StringInfo body, const Event *event, const DispatchMessage *message)
{
	JSON_APPEND_LITERAL(body, "{\"specversion\": \"1.0\", \"type\": ");
	append_text(body, event->event_type);
	JSON_APPEND_LITERAL(body, ", \"source\": ");
	append_text(body, event->source);
	append_stamps(body, event, message);
	if (event->subject != NULL)
	{
		JSON_APPEND_LITERAL(body, ", \"subject\": ");
		append_text(body, event->subject);
	}
	append_content_type(body, event);
	if (event->attributes != NULL)
	{
		append_attribute(body, event->attributes, "dataschema");
		append_extensions(body, event->attributes);
	}
	append_payload(body, event);
	JSON_APPEND_LITERAL(body, "}");
}

static void
append_number(StringInfo body, int64 number)
{
	char		text[MAXINT8LEN + 1];

	json_append_raw(body, text, pg_lltoa(number, text));
}

/* JSON null, or nothing at all */
static bool
is_null(const Jsonb *data)
{
	return data == NULL ||
		(JB_ROOT_IS_SCALAR(data) && JBE_ISNULL(data->root.children[0]));
}

/* Consumers of Dispytch refuse a body that is null. */
static void
append_dispytch(StringInfo body, const Event *event, const DispatchMessage *message)
{
	JSON_APPEND_LITERAL(body, "{\"id\": \"");
	json_append_raw(body, message->event_id, UUID_TEXT_LEN);
	JSON_APPEND_LITERAL(body, "\", \"type\": ");
	append_text(body, event->event_type);
	JSON_APPEND_LITERAL(body, ", \"body\": ");
	if (is_null(event->data))
		JSON_APPEND_LITERAL(body, "{}");
	else
		json_append(body, event->data);
	JSON_APPEND_LITERAL(body, ", \"timestamp\": ");
	append_number(body, message->timestamp_ms);
	JSON_APPEND_LITERAL(body, "}");
}

/* The texts of most events need no more room than this. */
static void
start_body(StringInfo body, const Event *event)
{
	Size		size = FIXED_LEN + strlen(event->event_type) + strlen(event->source) +
		(event->subject != NULL ? strlen(event->subject) : 0) +
		(event->data != NULL ? VARSIZE(event->data) : 0) +
		(event->attributes != NULL ? VARSIZE(event->attributes) : 0) +
		(event->content != NULL ? pg_b64_enc_len(VARSIZE(event->content)) : 0);

	body->len = 0;
	body->cursor = 0;
	body->maxlen = (int) Min(size, MaxAllocSize);
	body->data = palloc(body->maxlen);
}

/* What the data alone is: JSON, or the text of another media type. */
static void
append_data(StringInfo body, const Event *event, const char *content_type)
{
	JsonbValue	text;

	if (!media_type_is_json(content_type) && JsonbExtractScalar(&event->data->root, &text) &&
		text.type == jbvString)
		json_append_raw(body, text.val.string.val, text.val.string.len);
	else
		json_append(body, event->data);
}

static bool
set_body(const Event *event, DispatchMessage *message, const char **error,
		 DispatchErrorClass *error_class)
{
	StringInfoData body;
	const char *problem;

	start_body(&body, event);
	switch (message->envelope)
	{
		case DISPATCH_CLOUDEVENTS:
			append_cloudevent(&body, event, message);
			break;
		case DISPATCH_DISPYTCH:
			append_dispytch(&body, event, message);
			break;
		case DISPATCH_CLOUDEVENTS_BINARY:
		case DISPATCH_DATA:
			append_data(&body, event, message->content_type);
			break;
	}

	if (json_is_cut(&body))
	{
		pfree(body.data);
		*error = "The data of the event cannot be sent. It is longer than 1 GB as text.";
		*error_class = DISPATCH_EVENT_REJECTED;
		return false;
	}
	json_finish(&body);
	message->body = body.data;
	message->body_len = body.len;
	if (!utf8_convert(&message->body, &message->body_len, &problem))
	{
		*error = psprintf("The data of the event cannot be sent. %s", problem);
		return false;
	}
	if (message->body != body.data)
		pfree(body.data);
	return true;
}

/* The bytes as they are. */
static void
set_content(const Event *event, DispatchMessage *message)
{
	message->body = VARDATA(event->content);
	message->body_len = VARSIZE(event->content) - VARHDRSZ;
}

/* ASCII, whatever the encoding. */
static const char *
content_type(const Event *event, DispatchEnvelope envelope)
{
	const char *given;

	if (envelope == DISPATCH_CLOUDEVENTS)
		return STRUCTURED_TYPE;
	if (envelope == DISPATCH_DISPYTCH || event->attributes == NULL)
		return JSON_TYPE;
	given = attributes_get_text(event->attributes, "datacontenttype");
	return given != NULL ? given : JSON_TYPE;
}

/* Adds what the publisher set, but for the type of the content. */
static bool
add_attributes(const Jsonb *given, DispatchPair *attributes, int *count, const char **error)
{
	JsonbIterator *iterator = JsonbIteratorInit(&unconstify(Jsonb *, given)->root);
	JsonbIteratorToken token;
	JsonbValue	value;
	const char *name = NULL;
	const char *text;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = json_scalar_text(&value);
		if (token != WJB_VALUE || strcmp(name, "datacontenttype") == 0)
			continue;
		if (!set_text(&text, json_scalar_text(&value), name, error))
			return false;
		attributes[(*count)++] = (DispatchPair) {name, text};
	}
	return true;
}

/* In the order of the specification, then those that the publisher set. */
static bool
set_attributes(const Event *event, DispatchMessage *message, const char **error)
{
	int			given = event->attributes != NULL ? JB_ROOT_COUNT(event->attributes) : 0;
	DispatchPair *attributes = palloc((OWN_ATTRIBUTES + given) * sizeof(DispatchPair));
	int			count = 0;

	attributes[count++] = (DispatchPair) {"specversion", "1.0"};
	if (!attributes_are_given(event->attributes))
		attributes[count++] = (DispatchPair) {"id", message->event_id};
	attributes[count++] = (DispatchPair) {"source", message->source};
	attributes[count++] = (DispatchPair) {"type", message->event_type};
	if (!attributes_are_given(event->attributes))
		attributes[count++] = (DispatchPair) {"time", message->time};
	if (message->subject != NULL)
		attributes[count++] = (DispatchPair) {"subject", message->subject};
	if (given > 0 && !add_attributes(event->attributes, attributes, &count, error))
		return false;
	message->attributes = attributes;
	message->nattributes = count;
	return true;
}

bool
envelope_write(const Event *event, DispatchEnvelope envelope,
			   DispatchMessage *message, const char **error, DispatchErrorClass *error_class)
{
	bool		is_wrapped = envelope == DISPATCH_CLOUDEVENTS || envelope == DISPATCH_DISPYTCH;

	*message = (DispatchMessage) {.envelope = envelope, .options = message->options};
	if (!set_stamps(event, message, error) || !set_texts(event, message, error))
		return false;
	if (envelope == DISPATCH_DISPYTCH && event->content != NULL)
	{
		*error = "The binary data of the event cannot be sent in envelope \"dispytch\".";
		return false;
	}
	if (is_wrapped || event->data != NULL || event->content != NULL)
		message->content_type = content_type(event, envelope);
	if (!is_wrapped && event->content != NULL)
		set_content(event, message);
	else if ((is_wrapped || event->data != NULL) &&
			 !set_body(event, message, error, error_class))
		return false;
	return envelope != DISPATCH_CLOUDEVENTS_BINARY || set_attributes(event, message, error);
}
