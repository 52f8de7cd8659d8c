/*-------------------------------------------------------------------------
 *
 * kafka_topic.c
 *	  Topics, and those that take no events at present.
 *
 * A topic that does not exist, that we may not write to, or that has not enough
 * replicas must delay its own events only.  Yet each try has a price that others
 * pay: librdkafka waits for a missing topic to appear, and a refused batch ends
 * the producer (see kafka.h).  So a topic that has failed is refused at once
 * for a while; then one single event finds out whether it is well again.
 *
 * What is refused is remembered beyond the end of the producer, which may be
 * the topic's doing.  A worker serves one backend, so this is not per connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "kafka.h"

/* As long as the core lets an event wait that such an error has met (ms). */
#define REFUSE_MS 9000

/* Kafka's own limit. */
#define MAX_NAME 249

static HTAB *topics = NULL;

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

/* The topic of a valid name. */
static KafkaTopic *
find_topic(const char *name)
{
	KafkaTopic *topic;
	bool		found;

	if (topics == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(topic->name);
		control.entrysize = sizeof(KafkaTopic);
		control.hcxt = TopMemoryContext;
		topics = hash_create("dispatch kafka topics", 64, &control,
							 HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	topic = hash_search(topics, name, HASH_ENTER, &found);
	if (!found)
		memset((char *) topic + sizeof(topic->name), 0, sizeof(KafkaTopic) - sizeof(topic->name));
	return topic;
}

/* For a new producer, which has no handles yet. */
void
kafka_topics_renew(void)
{
	HASH_SEQ_STATUS scan;
	KafkaTopic *topic;

	if (topics == NULL)
		return;
	hash_seq_init(&scan, topics);
	while ((topic = hash_seq_search(&scan)) != NULL)
	{
		topic->handle = NULL;
		topic->probing = false;
		topic->delivered_at = 0;
		if (topic->refused_until == 0)
			hash_search(topics, topic->name, HASH_REMOVE, NULL);
	}
}

long
kafka_topics_count(void)
{
	return topics != NULL ? hash_get_num_entries(topics) : 0;
}

/* May a record be sent to it?  If it was refused before, this one is the probe. */
static bool
takes_record(KafkaTopic *topic, int64 now)
{
	if (topic->refused_until == 0)
		return true;
	if (topic->probing || now < topic->refused_until)
		return false;
	topic->probing = true;
	return true;
}

/*
 * The topic of that name, with a handle, to send a record to.  NULL if it takes
 * none, with the class of the error and its text.
 */
KafkaTopic *
kafka_topic_open(KafkaProducer *producer, const char *name, int64 now,
				 DispatchErrorClass *error_class, const char **error)
{
	KafkaTopic *topic;

	*error_class = DISPATCH_EVENT_REJECTED;
	*error = name_problem(name);
	if (*error != NULL)
		return NULL;

	topic = find_topic(name);
	*error_class = DISPATCH_DESTINATION;
	*error = topic->error;
	if (!takes_record(topic, now))
		return NULL;

	/* Only a new handle makes librdkafka ask anew for a topic it misses. */
	if (topic->probing && topic->handle != NULL)
	{
		kafka_producer_close_topic(producer, topic->handle);
		topic->handle = NULL;
	}
	if (topic->handle == NULL)
		topic->handle = kafka_producer_open_topic(producer, name, error);
	if (topic->handle == NULL)
		topic->probing = false;
	return topic->handle != NULL ? topic : NULL;
}

/* "error" may be the topic's own. */
void
kafka_topic_refuse(KafkaTopic *topic, int64 now, const char *error)
{
	topic->refused_until = now + REFUSE_MS;
	topic->probing = false;
	if (error != topic->error)
		strlcpy(topic->error, error, sizeof(topic->error));
}

void
kafka_topic_accept(KafkaTopic *topic, int64 now)
{
	topic->refused_until = 0;
	topic->probing = false;
	topic->delivered_at = now;
}
