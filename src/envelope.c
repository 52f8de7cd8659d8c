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

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

#include "envelope.h"
#include "json.h"
#include "utf8.h"

#define STRUCTURED_TYPE "application/cloudevents+json; charset=UTF-8"
#define JSON_TYPE "application/json"

#define UUID_TEXT_LEN 36
#define TIME_TEXT_LEN 32		/* 2025-06-25T10:11:12.345678+00:00 */
#define MAX_ATTRIBUTES 6

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

static void
append_cloudevent(StringInfo body, const Event *event, const DispatchMessage *message)
{
	JSON_APPEND_LITERAL(body, "{\"specversion\": \"1.0\", \"type\": ");
	append_text(body, event->event_type);
	JSON_APPEND_LITERAL(body, ", \"source\": ");
	append_text(body, event->source);
	JSON_APPEND_LITERAL(body, ", \"id\": \"");
	json_append_raw(body, message->event_id, UUID_TEXT_LEN);
	JSON_APPEND_LITERAL(body, "\", \"time\": \"");
	json_append_raw(body, message->time, TIME_TEXT_LEN);
	JSON_APPEND_LITERAL(body, "\"");
	if (event->subject != NULL)
	{
		JSON_APPEND_LITERAL(body, ", \"subject\": ");
		append_text(body, event->subject);
	}
	if (event->data != NULL)
	{
		JSON_APPEND_LITERAL(body, ", \"datacontenttype\": \"" JSON_TYPE "\", \"data\": ");
		json_append(body, event->data);
	}
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
		(event->data != NULL ? VARSIZE(event->data) : 0);

	body->len = 0;
	body->cursor = 0;
	body->maxlen = (int) Min(size, MaxAllocSize);
	body->data = palloc(body->maxlen);
}

static bool
set_body(const Event *event, DispatchMessage *message, const char **error)
{
	StringInfoData body;
	const char *problem;

	message->content_type = JSON_TYPE;
	start_body(&body, event);
	switch (message->envelope)
	{
		case DISPATCH_CLOUDEVENTS:
			message->content_type = STRUCTURED_TYPE;
			append_cloudevent(&body, event, message);
			break;
		case DISPATCH_DISPYTCH:
			append_dispytch(&body, event, message);
			break;
		case DISPATCH_CLOUDEVENTS_BINARY:
		case DISPATCH_DATA:
			json_append(&body, event->data);
			break;
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

/* In the order of the specification. */
static void
set_attributes(DispatchMessage *message)
{
	DispatchPair *attributes = palloc(MAX_ATTRIBUTES * sizeof(DispatchPair));
	int			count = 0;

	attributes[count++] = (DispatchPair) {"specversion", "1.0"};
	attributes[count++] = (DispatchPair) {"id", message->event_id};
	attributes[count++] = (DispatchPair) {"source", message->source};
	attributes[count++] = (DispatchPair) {"type", message->event_type};
	attributes[count++] = (DispatchPair) {"time", message->time};
	if (message->subject != NULL)
		attributes[count++] = (DispatchPair) {"subject", message->subject};
	message->attributes = attributes;
	message->nattributes = count;
}

bool
envelope_write(const Event *event, DispatchEnvelope envelope,
			   DispatchMessage *message, const char **error)
{
	bool		is_wrapped = envelope == DISPATCH_CLOUDEVENTS || envelope == DISPATCH_DISPYTCH;

	*message = (DispatchMessage) {.envelope = envelope, .options = message->options};
	if (!set_stamps(event, message, error) || !set_texts(event, message, error))
		return false;
	if ((is_wrapped || event->data != NULL) && !set_body(event, message, error))
		return false;
	if (envelope == DISPATCH_CLOUDEVENTS_BINARY)
		set_attributes(message);
	return true;
}
