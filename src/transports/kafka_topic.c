/*-------------------------------------------------------------------------
 *
 * kafka_topic.c
 *	  Topics, by name; which of their partitions know us.
 *
 * librdkafka wants a handle for each topic.  One that it could not find it does
 * not soon look for again, but fails all records at once: just right for as long
 * as the core lets the events wait that met with that.  After that the topic gets
 * a new handle, with which it is looked for anew.
 *
 * A partition in which this producer has written nothing yet keeps no order
 * (kafka.h says why).  So it gets one record that is to be in order, the scout,
 * and no other before that is confirmed.
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

/*
 * How long to count on being known (ms).  Kafka forgets a producer that has written
 * nothing for producer.id.expiration.ms, a day if nobody has changed it.
 */
#define KNOWN_MS (10 * 60 * 1000)

struct KafkaTopics
{
	MemoryContext context;
	KafkaProducer *producer;
	HTAB	   *table;
	KafkaTopic *last;			/* the one that was opened last; NULL: none */
};

/* For that producer, as long as the context lives. */
KafkaTopics *
kafka_topics_create(MemoryContext context, KafkaProducer *producer)
{
	KafkaTopics *topics = MemoryContextAllocZero(context, sizeof(KafkaTopics));
	HASHCTL		info = {.keysize = sizeof(((KafkaTopic *) NULL)->name),
	.entrysize = sizeof(KafkaTopic), .hcxt = context};

	topics->context = context;
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

/* The topic of that name; NULL and *error if there can be none. */
static KafkaTopic *
find_or_add(KafkaTopics *topics, const char *name, const char **error)
{
	KafkaTopic *topic;
	bool		found;

	/* Most records go where the one before them went. */
	if (topics->last != NULL && strcmp(topics->last->name, name) == 0)
		return topics->last;

	*error = name_problem(name);
	if (*error != NULL)
		return NULL;
	topic = hash_search(topics->table, name, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) topic + sizeof(topic->name), 0, sizeof(KafkaTopic) - sizeof(topic->name));
		/* threads write to it: the table is gone before they have ended */
		topic->count = MemoryContextAllocZero(topics->context, sizeof(int));
		dlist_init(&topic->held);
	}
	topics->last = topic;
	return topic;
}

/*
 * The topic of that name, to send a record to; "now" is in ms.  NULL and *error
 * if there can be none of that name.
 */
KafkaTopic *
kafka_topic_open(KafkaTopics *topics, const char *name, int64 now, const char **error)
{
	KafkaTopic *topic = find_or_add(topics, name, error);

	if (topic == NULL)
		return NULL;
	if (topic->missed_at != 0 && now >= topic->missed_at + MISSING_MS)
	{
		kafka_producer_close_topic(topics->producer, topic->handle);
		topic->handle = NULL;
		topic->missed_at = 0;
	}
	if (topic->handle == NULL)
		topic->handle = kafka_producer_open_topic(topics->producer, name, topic->count, error);
	return topic->handle != NULL ? topic : NULL;
}

/* ------------------------------------------------------------------------
 * Partitions
 * ------------------------------------------------------------------------
 */

/* Of that number; the array grows as they become known. */
static KafkaPartition *
partition_get(KafkaTopics *topics, KafkaTopic *topic, int partition)
{
	if (partition >= topic->npartitions)
	{
		int			count = Max(partition + 1, *topic->count);
		KafkaPartition *partitions =
			MemoryContextAllocZero(topics->context, count * sizeof(KafkaPartition));

		if (topic->npartitions > 0)
		{
			memcpy(partitions, topic->partitions, topic->npartitions * sizeof(KafkaPartition));
			pfree(topic->partitions);
		}
		topic->partitions = partitions;
		topic->npartitions = count;
	}
	return &topic->partitions[partition];
}

static bool
partition_knows_us(const KafkaTopic *topic, int partition, int64 now)
{
	int64		confirmed_at = partition >= 0 && partition < topic->npartitions ?
		topic->partitions[partition].confirmed_at : 0;

	return confirmed_at != 0 && now < confirmed_at + KNOWN_MS;
}

/*
 * The partition of a record that has a key or has asked for one; -1: not known,
 * or not known to exist.
 */
int
kafka_topic_partition(const KafkaTopic *topic, const KafkaRecord *record)
{
	int			count = __atomic_load_n(topic->count, __ATOMIC_RELAXED);

	if (record->partition >= 0)
		return record->partition < Max(count, topic->npartitions) ? record->partition : -1;
	return count > 0 ? kafka_producer_partition(record->key, record->key_len, count) : -1;
}

/*
 * Can a record that is to be in order go there now?
 */
bool
kafka_topic_takes(const KafkaTopic *topic, int partition, int64 now)
{
	if (partition_knows_us(topic, partition, now))
		return true;
	if (partition < 0)
		return topic->nscouts == 0;
	return !topic->has_blind_scout &&
		(partition >= topic->npartitions || !topic->partitions[partition].has_scout);
}

/*
 * A record that is to be in order goes there.  Returns whether others have to wait
 * for it: then kafka_topic_scout_back() must be called when it is done with.
 */
bool
kafka_topic_scout(KafkaTopics *topics, KafkaTopic *topic, int partition, int64 now)
{
	if (partition_knows_us(topic, partition, now))
		return false;
	topic->nscouts++;
	if (partition < 0)
		topic->has_blind_scout = true;
	else
		partition_get(topics, topic, partition)->has_scout = true;
	return true;
}

void
kafka_topic_scout_back(KafkaTopic *topic, int partition)
{
	topic->nscouts--;
	if (partition < 0)
		topic->has_blind_scout = false;
	else
		topic->partitions[partition].has_scout = false;
}

/*
 * A partition has confirmed a record.  True if that is news of it.
 */
bool
kafka_topic_confirmed(KafkaTopics *topics, KafkaTopic *topic, int partition, int64 now)
{
	bool		is_news = !partition_knows_us(topic, partition, now);

	topic->delivered_at = now;
	topic->missed_at = 0;
	if (partition >= 0)
		partition_get(topics, topic, partition)->confirmed_at = now;
	return is_news;
}
