/*-------------------------------------------------------------------------
 *
 * rabbitmq_message.c
 *	  From a message of the core to a message as RabbitMQ is to get it.
 *
 * Properties that the event does not set come from the event itself, so that a
 * consumer can tell events apart and route them without a look at the body.
 * In the envelope cloudevents_binary the attributes go into the headers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/time.h>

#include "rabbitmq.h"

/* The event's option, else the backend's; NULL if neither is set. */
static const char *
option_text(const DispatchMessage *message, int option)
{
	const DispatchValue *value = &message->options[option];

	return value->is_set ? value->text : NULL;
}

/* What fits into a short string, else nothing. */
static const char *
short_text(const char *text)
{
	return strlen(text) <= SHORT_STRING_MAX ? text : NULL;
}

const char *
rabbit_message_id(const DispatchMessage *message)
{
	const char *id = option_text(message, OPTION_MESSAGE_ID);

	return id != NULL ? id : message->event_id;
}

/* NULL, or why they cannot be sent: the library does not check names. */
static const char *
add_attributes(RabbitTable *headers, const DispatchMessage *message)
{
	const char *prefix = message->options[OPTION_CLOUDEVENTS_PREFIX].text;

	for (int i = 0; i < message->nattributes; i++)
	{
		const DispatchPair *attribute = &message->attributes[i];
		char	   *name = psprintf("%s%s", prefix, attribute->name);
		RabbitValue *value = rabbit_table_add(headers, name);

		if (strlen(name) > SHORT_STRING_MAX)
			return "The name of an extension attribute is too long for a header: 255 bytes with its prefix.";
		value->kind = VALUE_STRING;
		value->text = attribute->value;
		value->len = strlen(attribute->value);
	}
	return NULL;
}

/*
 * RabbitMQ takes milliseconds from its receipt on, as text.  What has expired
 * already goes all the same: who waits for it may still have it.
 */
static const char *
expiration_text(const DispatchMessage *message)
{
	const DispatchValue *value = &message->options[OPTION_EXPIRATION];
	double		ms = value->number * 1000;
	struct timeval now;

	if (!value->is_set)
		return NULL;
	if (value->boolean)
	{
		gettimeofday(&now, NULL);
		ms = value->integer - (now.tv_sec * 1000.0 + now.tv_usec / 1000);
	}
	ms = Min(Max(ms, 0), EXPIRATION_MAX * 1000.0);
	return psprintf(INT64_FORMAT, (int64) (ms + 0.5));
}

static int64
timestamp_of(const DispatchMessage *message)
{
	const DispatchValue *value = &message->options[OPTION_TIMESTAMP];

	if (!value->is_set)
		return message->timestamp_ms / 1000;
	return Max(value->boolean ? value->integer / 1000 : (int64) value->number, 0);
}

/*
 * Fills in *publish, which points to the message and into the current memory
 * context.  NULL, or why the message can never be sent.
 */
const char *
rabbit_message_publish(const DispatchMessage *message, RabbitPublish *publish)
{
	const DispatchValue *options = message->options;
	RabbitTable *headers = NULL;
	const char *problem = NULL;

	if (message->envelope == DISPATCH_CLOUDEVENTS_BINARY || options[OPTION_HEADERS].is_set)
		headers = rabbit_table_create();
	if (message->envelope == DISPATCH_CLOUDEVENTS_BINARY)
		problem = add_attributes(headers, message);
	if (problem == NULL && options[OPTION_HEADERS].is_set)
		problem = rabbit_headers_read(headers, options[OPTION_HEADERS].text);

	memset(publish, 0, sizeof(*publish));
	publish->exchange = options[OPTION_EXCHANGE].text;
	publish->routing_key = options[OPTION_ROUTING_KEY].text;
	publish->content_type = option_text(message, OPTION_CONTENT_TYPE);
	publish->content_encoding = option_text(message, OPTION_CONTENT_ENCODING);
	publish->headers = headers;
	publish->delivery_mode = (int) options[OPTION_DELIVERY_MODE].integer;
	publish->priority = options[OPTION_PRIORITY].is_set ?
		(int) options[OPTION_PRIORITY].integer : -1;
	publish->correlation_id = option_text(message, OPTION_CORRELATION_ID);
	publish->reply_to = option_text(message, OPTION_REPLY_TO);
	publish->expiration = expiration_text(message);
	publish->message_id = rabbit_message_id(message);
	publish->timestamp = timestamp_of(message);
	publish->type = option_text(message, OPTION_TYPE);
	publish->user_id = option_text(message, OPTION_USER_ID);
	publish->app_id = option_text(message, OPTION_APP_ID);
	publish->body = message->body;
	publish->body_len = message->body == NULL ? 0 : message->body_len;
	if (publish->content_type == NULL)
		publish->content_type = message->content_type;
	if (publish->type == NULL)
		publish->type = short_text(message->event_type);
	return problem;
}
