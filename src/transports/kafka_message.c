/*-------------------------------------------------------------------------
 *
 * kafka_message.c
 *	  From messages to records.
 *
 * As the Kafka binding of CloudEvents has it: in binary mode the attributes are
 * headers with the prefix "ce_", as they are, and the header content-type tells
 * the modes apart.  An event without data is a record without a value.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka.h"

const char *
kafka_message_topic(const DispatchMessage *message)
{
	return message->options[OPTION_TOPIC].text;
}

/* The message's own key, unless partition_key says otherwise; "" is none. */
static const char *
record_key(const DispatchMessage *message)
{
	const DispatchValue *key = &message->options[OPTION_PARTITION_KEY];

	if (!key->is_set)
		return message->key;
	return key->text_len > 0 ? key->text : NULL;
}

/*
 * Fills in all but the topic and the opaque pointer.  The record refers to the
 * message.
 */
void
kafka_message_record(const DispatchMessage *message, KafkaRecord *record)
{
	const DispatchValue *partition = &message->options[OPTION_PARTITION];
	const DispatchValue *timestamp = &message->options[OPTION_TIMESTAMP_MS];
	const DispatchValue *headers = &message->options[OPTION_HEADERS];

	record->key = record_key(message);
	record->key_len = record->key != NULL ? strlen(record->key) : 0;
	record->partition = partition->is_set ? (int) partition->integer : -1;
	record->body = message->body;
	record->body_len = message->body_len;
	record->timestamp_ms = timestamp->is_set ? timestamp->integer : message->timestamp_ms;
	record->content_type = message->content_type;
	record->attributes = message->attributes;
	record->nattributes = message->nattributes;
	record->headers = headers->pairs;
	record->nheaders = headers->npairs;
}

/*
 * The error that a message has met with.  When librdkafka sees a topic go, no
 * partition is known; only a message that has asked for one is to blame for that.
 */
const char *
kafka_message_error(const DispatchMessage *message, const char *error)
{
	if (strcmp(error, "_UNKNOWN_PARTITION") == 0 && !message->options[OPTION_PARTITION].is_set)
		return "_UNKNOWN_TOPIC";
	return error;
}
