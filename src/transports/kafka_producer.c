/*-------------------------------------------------------------------------
 *
 * kafka_producer.c
 *	  A producer of librdkafka, fit for a process of PostgreSQL.
 *
 * Nothing here blocks, but for the end: destroying a producer waits for its
 * threads, which all of them look at once whether they are to end (and name
 * resolution, which would not, is our own: see kafka_resolve.c).
 *
 * No callback of ours runs in a thread of librdkafka, except those that resolve
 * names and place records, which touch nothing of PostgreSQL's.  Reports, errors
 * and logs are events of one queue.  Its io_event writes to an eventfd when
 * something has come in since we last looked, so the descriptor is read first and
 * the queue after it, until it is empty.
 *
 * A body is not copied: it belongs to the core, which keeps it until its
 * outcome or until this producer is gone.
 *
 * A producer dies with the memory context it was made in.  A process that ends
 * by an error does not get so far as to delete contexts, and exit() with threads
 * of librdkafka at work would crash in the clean-up of OpenSSL; so the one that
 * is alive is destroyed before exit, too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <librdkafka/rdkafka.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "kafka.h"

struct KafkaProducer
{
	MemoryContextCallback callback;
	rd_kafka_t *client;			/* NULL: destroyed */
	rd_kafka_queue_t *queue;
	rd_kafka_event_t *event;	/* whose messages are being reported; or NULL */
	int			fd;				/* -1: none */
	int			stopping;		/* for kafka_resolve() */
	List	   *topics;			/* handles that are open */
	rd_kafka_headers_t *headers;	/* of a record that is being made; or NULL */
	StringInfoData name;		/* of one of them */
	MemoryContext context;
	char		text[KAFKA_ERROR_BYTES];
};

/* To be destroyed before the process ends. */
static KafkaProducer *alive = NULL;

/* It tells brokers how it fares from this version on, unless told not to. */
#define FIRST_WITH_METRICS 0x02050000

/* Logs of librdkafka are for those who look for a fault in it. */
#define LOG_OF_LIBRARY DEBUG1

/* ------------------------------------------------------------------------
 * Beginning and end
 * ------------------------------------------------------------------------
 */

static void
free_headers(KafkaProducer *producer)
{
	if (producer->headers != NULL)
		rd_kafka_headers_destroy(producer->headers);
	producer->headers = NULL;
}

/* Waits for the threads.  May be called twice. */
void
kafka_producer_destroy(KafkaProducer *producer)
{
	rd_kafka_t *client = producer->client;
	ListCell   *lc;

	__atomic_store_n(&producer->stopping, 1, __ATOMIC_SEQ_CST);
	producer->client = NULL;
	free_headers(producer);
	if (alive == producer)
		alive = NULL;
	if (producer->event != NULL)
		rd_kafka_event_destroy(producer->event);
	producer->event = NULL;
	if (client != NULL)
	{
		foreach(lc, producer->topics)
			rd_kafka_topic_destroy(lfirst(lc));
		if (producer->queue != NULL)
		{
			rd_kafka_queue_io_event_enable(producer->queue, -1, NULL, 0);
			rd_kafka_queue_destroy(producer->queue);
		}
		rd_kafka_purge(client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
					   RD_KAFKA_PURGE_F_NON_BLOCKING);
		rd_kafka_destroy(client);
	}
	if (producer->fd >= 0)
	{
		close(producer->fd);
		producer->fd = -1;
		ReleaseExternalFD();
	}
}

static void
release(void *producer)
{
	kafka_producer_destroy(producer);
}

static void
destroy_before_exit(int code, Datum arg)
{
	if (alive != NULL)
		kafka_producer_destroy(alive);
}

/*
 * Where a record goes that has not asked for a partition: as Java has it.  Nothing
 * else tells us how many there are without waiting.
 */
static int32_t
place_record(const rd_kafka_topic_t *topic, const void *key, size_t key_len,
			 int32_t count, void *known_count, void *opaque)
{
	__atomic_store_n((int *) known_count, (int) count, __ATOMIC_RELAXED);
	return rd_kafka_msg_partitioner_murmur2_random(topic, key, key_len, count, NULL, NULL);
}

/*
 * A configuration with all settings; NULL and *error if there is something
 * wrong with one.  Raises no error, as it would be leaked then.
 */
static rd_kafka_conf_t *
make_conf(const KafkaSetting *settings, char *error, size_t error_size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	/* In 2.5.0, by what a broker asks for it could be made to abort. */
	if (rd_kafka_version() >= FIRST_WITH_METRICS)
		(void) rd_kafka_conf_set(conf, "enable.metrics.push", "false", error, error_size);

	for (; settings->name != NULL; settings++)
	{
		if (rd_kafka_conf_set(conf, settings->name, settings->value,
							  error, error_size) == RD_KAFKA_CONF_OK)
			continue;
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	rd_kafka_topic_conf_set_partitioner_cb(rd_kafka_conf_get_default_topic_conf(conf),
										   place_record);
	return conf;
}

/*
 * Returns NULL, or what is wrong with the settings, as a full sentence.  Starts
 * no threads: it is for sessions that configure a backend.
 */
const char *
kafka_producer_check(const KafkaSetting *settings)
{
	char		error[KAFKA_ERROR_BYTES];
	rd_kafka_conf_t *conf = make_conf(settings, error, sizeof(error));

	if (conf == NULL)
		return psprintf("librdkafka says: %s.", error);
	rd_kafka_conf_destroy(conf);
	return NULL;
}

/* The descriptor that wakes us; false with an error if there can be none. */
static bool
open_fd(KafkaProducer *producer, KafkaReport *failure)
{
	failure->error = "_CRIT_SYS_RESOURCE";
	failure->text = "too many open files";
	if (!AcquireExternalFD())
		return false;
	producer->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (producer->fd >= 0)
		return true;
	ReleaseExternalFD();
	return false;
}

/*
 * Starts a producer, which lives as long as the context.  NULL and the error and
 * text of *failure if it cannot be started.
 */
KafkaProducer *
kafka_producer_create(MemoryContext context, const KafkaSetting *settings,
					  KafkaReport *failure)
{
	static bool exit_is_watched = false;
	static const uint64 one = 1;
	KafkaProducer *producer = MemoryContextAllocZero(context, sizeof(KafkaProducer));
	MemoryContext old;
	rd_kafka_conf_t *conf;

	if (!exit_is_watched)
		on_proc_exit(destroy_before_exit, 0);
	exit_is_watched = true;

	producer->context = context;
	producer->fd = -1;
	old = MemoryContextSwitchTo(context);
	initStringInfo(&producer->name);
	MemoryContextSwitchTo(old);
	producer->callback.func = release;
	producer->callback.arg = producer;
	MemoryContextRegisterResetCallback(context, &producer->callback);

	if (!open_fd(producer, failure))
		return NULL;

	failure->error = "_INVALID_ARG";
	failure->text = producer->text;
	conf = make_conf(settings, producer->text, sizeof(producer->text));
	if (conf == NULL)
		return NULL;
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	rd_kafka_conf_set_resolve_cb(conf, kafka_resolve);
	rd_kafka_conf_set_opaque(conf, &producer->stopping);

	producer->client = rd_kafka_new(RD_KAFKA_PRODUCER, conf,
									producer->text, sizeof(producer->text));
	if (producer->client == NULL)
	{
		failure->error = rd_kafka_err2name(rd_kafka_last_error());
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	alive = producer;
	rd_kafka_set_log_queue(producer->client, NULL);
	producer->queue = rd_kafka_queue_get_main(producer->client);
	rd_kafka_queue_io_event_enable(producer->queue, producer->fd, &one, sizeof(one));
	return producer;
}

/* Readable when there may be reports. */
int
kafka_producer_fd(const KafkaProducer *producer)
{
	return producer->fd;
}

/* Whether a broker has let us in and said what cluster it is of. */
bool
kafka_producer_is_connected(KafkaProducer *producer)
{
	char	   *cluster = rd_kafka_clusterid(producer->client, 0);

	if (cluster == NULL)
		return false;
	rd_kafka_mem_free(producer->client, cluster);
	return true;
}

/*
 * Sends nothing any more.  What was not sent yet is reported as _PURGE_QUEUE,
 * what is under way as it turns out.
 */
void
kafka_producer_stop(KafkaProducer *producer)
{
	rd_kafka_purge(producer->client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

/* ------------------------------------------------------------------------
 * Sending
 * ------------------------------------------------------------------------
 */

/*
 * A handle for the topic; NULL and *error if there cannot be one.  *count becomes
 * the number of its partitions; it must live as long as the producer.
 */
KafkaTopicHandle
kafka_producer_open_topic(KafkaProducer *producer, const char *name, int *count,
						  const char **error)
{
	MemoryContext old;
	rd_kafka_topic_conf_t *conf = rd_kafka_default_topic_conf_dup(producer->client);
	rd_kafka_topic_t *topic;

	rd_kafka_topic_conf_set_opaque(conf, count);
	topic = rd_kafka_topic_new(producer->client, name, conf);
	if (topic == NULL)
	{
		rd_kafka_topic_conf_destroy(conf);
		*error = rd_kafka_err2str(rd_kafka_last_error());
		return NULL;
	}
	old = MemoryContextSwitchTo(producer->context);
	producer->topics = lappend(producer->topics, topic);
	MemoryContextSwitchTo(old);
	return topic;
}

void
kafka_producer_close_topic(KafkaProducer *producer, KafkaTopicHandle handle)
{
	producer->topics = list_delete_ptr(producer->topics, handle);
	rd_kafka_topic_destroy(handle);
}

/* Which of so many partitions a key belongs to. */
int
kafka_producer_partition(const char *key, size_t key_len, int count)
{
	return rd_kafka_msg_partitioner_murmur2(NULL, key, key_len, count, NULL, NULL);
}

static void
add_header(KafkaProducer *producer, const char *name, const char *value)
{
	rd_kafka_header_add(producer->headers, name, -1, value,
						value != NULL ? (ssize_t) strlen(value) : 0);
}

/* NULL if there are none.  The producer has them, until the record does. */
static rd_kafka_headers_t *
make_headers(KafkaProducer *producer, const KafkaRecord *record)
{
	int			count = (record->content_type != NULL) + record->nattributes + record->nheaders;

	if (count == 0)
		return NULL;
	producer->headers = rd_kafka_headers_new(count);
	for (int i = 0; i < record->nattributes; i++)
	{
		resetStringInfo(&producer->name);
		appendStringInfoString(&producer->name, "ce_");
		appendStringInfoString(&producer->name, record->attributes[i].name);
		add_header(producer, producer->name.data, record->attributes[i].value);
	}
	if (record->content_type != NULL)
		add_header(producer, "content-type", record->content_type);
	for (int i = 0; i < record->nheaders; i++)
		add_header(producer, record->headers[i].name, record->headers[i].value);
	return producer->headers;
}

/*
 * Takes a record to be sent.  Returns NULL, or the name of the error that it met
 * with, and its text; _QUEUE_FULL means that no more can be taken now.
 */
const char *
kafka_producer_send(KafkaProducer *producer, const KafkaRecord *record, const char **text)
{
	rd_kafka_headers_t *headers = make_headers(producer, record);
	rd_kafka_resp_err_t error;

	error = rd_kafka_producev(producer->client,
							  RD_KAFKA_V_RKT((rd_kafka_topic_t *) record->topic),
							  RD_KAFKA_V_PARTITION(record->partition),
							  RD_KAFKA_V_MSGFLAGS(0),
							  RD_KAFKA_V_VALUE((void *) record->body, record->body_len),
							  RD_KAFKA_V_KEY(record->key, record->key_len),
							  RD_KAFKA_V_TIMESTAMP(record->timestamp_ms),
							  RD_KAFKA_V_HEADERS(headers),
							  RD_KAFKA_V_OPAQUE(record->opaque),
							  RD_KAFKA_V_END);
	if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		producer->headers = NULL;
		return NULL;
	}
	free_headers(producer);
	*text = rd_kafka_err2str(error);
	return rd_kafka_err2name(error);
}

/* ------------------------------------------------------------------------
 * Reports
 * ------------------------------------------------------------------------
 */

/*
 * Text of brokers must not forge lines of our log; and a text is to be the same
 * when the error is.
 */
static void
copy_text(char *to, size_t size, const char *from)
{
	char	   *varying;

	strlcpy(to, from, size);
	varying = strstr(to, " (after ");
	if (varying != NULL)
		*varying = '\0';
	for (char *c = to; *c != '\0'; c++)
		if ((unsigned char) *c < ' ' || *c == '\177')
			*c = ' ';
}

static void
forward_log(KafkaProducer *producer, rd_kafka_event_t *event)
{
	const char *facility;
	const char *text;
	int			level;

	if (rd_kafka_event_log(event, &facility, &text, &level) != 0)
		return;
	copy_text(producer->text, sizeof(producer->text), text);
	elog(LOG_OF_LIBRARY, "librdkafka: %s: %s", facility, producer->text);
}

static void
report_error(KafkaProducer *producer, rd_kafka_event_t *event, KafkaReport *report)
{
	rd_kafka_resp_err_t error = rd_kafka_event_error(event);
	const char *text = rd_kafka_event_error_string(event);
	char		reason[KAFKA_ERROR_BYTES];

	report->kind = REPORT_TROUBLE;
	if (rd_kafka_event_error_is_fatal(event) || error == RD_KAFKA_RESP_ERR__FATAL)
	{
		report->kind = REPORT_FATAL;
		reason[0] = '\0';
		error = rd_kafka_fatal_error(producer->client, reason, sizeof(reason));
		text = reason;
	}
	report->error = rd_kafka_err2name(error);
	copy_text(producer->text, sizeof(producer->text),
			  text != NULL && *text != '\0' ? text : rd_kafka_err2str(error));
	report->text = producer->text;
}

/*
 * The next message of an event that reports on several; false: no more.
 *
 * With a batch that is confirmed, librdkafka also reports those before it as
 * delivered (rd_kafka_dr_implicit_ack() in its sources), which kafka.h says must
 * not be believed.  They have no offset; by a broker's answer it is one, or -1.
 */
static bool
report_record(KafkaProducer *producer, KafkaReport *report)
{
	const rd_kafka_message_t *message = rd_kafka_event_message_next(producer->event);

	if (message == NULL)
		return false;
	report->kind = REPORT_RECORD;
	report->opaque = message->_private;
	report->partition = message->partition;
	report->error = NULL;
	if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		report->error = rd_kafka_err2name(message->err);
		report->text = rd_kafka_err2str(message->err);
	}
	else if (message->offset == RD_KAFKA_OFFSET_INVALID)
		report->error = KAFKA_NOT_CONFIRMED;
	return true;
}

/* The next report, if there is one. */
void
kafka_producer_poll(KafkaProducer *producer, KafkaReport *report)
{
	uint64		count;

	report->kind = REPORT_NONE;
	if (producer->event == NULL)
		(void) !read(producer->fd, &count, sizeof(count));
	while (report->kind == REPORT_NONE)
	{
		if (producer->event == NULL)
			producer->event = rd_kafka_queue_poll(producer->queue, 0);
		if (producer->event == NULL)
			return;
		switch (rd_kafka_event_type(producer->event))
		{
			case RD_KAFKA_EVENT_DR:
				if (report_record(producer, report))
					return;
				break;
			case RD_KAFKA_EVENT_ERROR:
				report_error(producer, producer->event, report);
				break;
			case RD_KAFKA_EVENT_LOG:
				forward_log(producer, producer->event);
				break;
		}
		rd_kafka_event_destroy(producer->event);
		producer->event = NULL;
	}
}
