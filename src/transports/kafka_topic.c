/*-------------------------------------------------------------------------
 *
 * kafka_topic.c
 *	  Topics, by name.
 *
 * librdkafka wants a handle for each topic.  One that it could not find it does
 * not soon look for again, but fails all records at once: just right for as long
 * as the core lets the events wait that met with that.  After that the topic gets
 * a new handle, with which it is looked for anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"

#include "kafka.h"

/* A bit less than an event waits whose destination is not fit (ms). */
#define MISSING_MS 9000

/* Kafka's own limit. */
#define MAX_NAME 249

struct KafkaTopics
{
	KafkaProducer *producer;
	HTAB	   *table;
};

/* For that producer, as long as the context lives. */
KafkaTopics *
kafka_topics_create(MemoryContext context, KafkaProducer *producer)
{
	KafkaTopics *topics = MemoryContextAlloc(context, sizeof(KafkaTopics));
	HASHCTL		info = {.keysize = sizeof(((KafkaTopic *) NULL)->name),
	.entrysize = sizeof(KafkaTopic), .hcxt = context};

	topics->producer = producer;
	topics->table = hash_create("dispatch kafka topics", 64, &info,
								HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	return topics;
}

long
kafka_topics_count(const KafkaTopics *topics)
{
	return hash_get_num_entries(topics->table);
}

/*
 * What is wrong with the name of a topic; NULL if nothing is.  librdkafka would
 * ask the brokers for it again and again.
 */
static const char *
name_problem(const char *name)
{
	size_t		len = strlen(name);

	if (len == 0)
		return "the name of the topic is empty";
	if (len > MAX_NAME)
		return "the name of the topic is longer than 249 characters";
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			   "0123456789._-") != len)
		return "the name of the topic is not valid: it must be of letters, digits, \".\", \"_\" "
			"and \"-\"";
	return NULL;
}

/*
 * The topic of that name, to send a record to; "now" is in ms.  NULL and *error
 * if there can be none of that name.
 */
KafkaTopic *
kafka_topic_open(KafkaTopics *topics, const char *name, int64 now, const char **error)
{
	KafkaTopic *topic;
	bool		found;

	*error = name_problem(name);
	if (*error != NULL)
		return NULL;

	topic = hash_search(topics->table, name, HASH_ENTER, &found);
	if (!found)
	{
		topic->handle = NULL;
		topic->delivered_at = topic->missed_at = 0;
	}
	if (topic->missed_at != 0 && now >= topic->missed_at + MISSING_MS)
	{
		kafka_producer_close_topic(topics->producer, topic->handle);
		topic->handle = NULL;
		topic->missed_at = 0;
	}
	if (topic->handle == NULL)
		topic->handle = kafka_producer_open_topic(topics->producer, name, error);
	return topic->handle != NULL ? topic : NULL;
}
