/*-------------------------------------------------------------------------
 *
 * kafka.h
 *	  What the files of the kafka transport share.
 *
 *	kafka.c				the transport: options and callbacks
 *	kafka_connection.c	from reports to outcomes; connecting, timeouts, ending
 *	kafka_message.c		from messages to records
 *	kafka_topic.c		topics, by name
 *	kafka_error.c		what the errors mean
 *	kafka_config.c		options to properties; which properties users may set
 *	kafka_producer.c	a producer; the one user of librdkafka
 *	kafka_resolve.c		name resolution that ends when the producer does
 *
 * How order is kept.  librdkafka sends batches, several in flight for each
 * partition, and tries again by itself: as an idempotent producer it keeps
 * their order, and writes none twice, for as long as it gives up no batch.
 * Once it does, it would number those behind it anew and send them, and what
 * was given up could only follow later.  So it must never go on after a
 * failure, and there are two of them:
 *
 * - A message expires.  Ours never do (message.timeout.ms is 0).  The
 *	 connection has a timeout instead, and lets go of the producer whole.
 * - Kafka refuses a batch.  With enable.gapless.guarantee that stops the
 *	 producer, in the very thread that reads the refusal: nothing behind that
 *	 batch can get through.
 *
 * Either way what is in flight in other partitions gets a moment to be
 * confirmed, the producer is destroyed, and the core sends what has no outcome
 * through a new one, in the order of old.  Kafka knows the new one by another
 * id: what it had written without us hearing of it is written twice then.  That
 * is what "at least once" means.
 *
 * librdkafka works in threads of its own, which never run code of PostgreSQL.
 * All they report goes through one queue, which wakes us through a descriptor
 * and is emptied by pump().
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_KAFKA_H
#define DISPATCH_KAFKA_H

#include "dispatch_transport.h"

/* The rows of the option table, in its order. */
enum KafkaOption
{
	OPTION_BOOTSTRAP_SERVERS,
	OPTION_TOPIC,
	OPTION_PARTITION_KEY,
	OPTION_PARTITION,
	OPTION_TIMESTAMP_MS,
	OPTION_HEADERS,
	OPTION_CLIENT_ID,
	OPTION_SECURITY_PROTOCOL,
	OPTION_SASL_MECHANISM,
	OPTION_USERNAME,
	OPTION_PASSWORD,
	OPTION_TLS_CA,
	OPTION_TLS_CERTIFICATE,
	OPTION_TLS_KEY,
	OPTION_TLS_KEY_PASSWORD,
	OPTION_COMPRESSION,
	OPTION_LINGER,
	OPTION_MESSAGE_TIMEOUT,
	OPTION_CONNECT_TIMEOUT,
	OPTION_CONFIG,
	KAFKA_OPTIONS
};

/* How much of an error text is kept. */
#define KAFKA_ERROR_BYTES 1024

/* kafka_error.c */

/*
 * The class of an error, by librdkafka's name for it ("MSG_SIZE_TOO_LARGE",
 * "_TRANSPORT").  "alone": it can only be about one message, for there was no
 * other in flight.
 */
extern DispatchErrorClass kafka_error_class(const char *name, bool alone);

extern DispatchErrorClass kafka_error_trouble_class(const char *name, const char *text);

/* Does an error of that class end the connection, or only fail its message? */
extern bool kafka_error_ends_connection(DispatchErrorClass error_class);

/* kafka_config.c */

typedef struct KafkaSetting
{
	const char *name;			/* a property of librdkafka */
	const char *value;
} KafkaSetting;

/* Returns NULL, or what is wrong, as a full sentence. */
extern const char *kafka_config_check(const DispatchValue *options);

/* All properties that a producer gets; ends with a row whose name is NULL. */
extern KafkaSetting *kafka_config_settings(const DispatchValue *options);

/* kafka_producer.c */

typedef struct KafkaProducer KafkaProducer;

/* A producer's handle of a topic. */
typedef void *KafkaTopicHandle;

typedef struct KafkaRecord
{
	KafkaTopicHandle topic;
	int			partition;		/* -1: by the key */
	const char *key;			/* NULL: none */
	size_t		key_len;
	const char *body;			/* NULL: none; not copied */
	size_t		body_len;
	int64		timestamp_ms;
	const char *content_type;	/* NULL: no such header */
	int			nattributes;	/* headers of the CloudEvent, without prefix */
	const DispatchPair *attributes;
	int			nheaders;		/* more headers */
	const DispatchPair *headers;
	void	   *opaque;			/* comes back in the report */
} KafkaRecord;

typedef enum KafkaReportKind
{
	REPORT_NONE,				/* there is none at present */
	REPORT_RECORD,				/* of a record that was sent */
	REPORT_TROUBLE,				/* of a broker, or with all of them */
	REPORT_FATAL				/* the producer is of no use any more */
} KafkaReportKind;

typedef struct KafkaReport
{
	KafkaReportKind kind;
	void	   *opaque;			/* of the record */
	const char *error;			/* name; NULL: it was written */
	const char *text;			/* of the error; valid until the next call */
} KafkaReport;

extern KafkaProducer *kafka_producer_create(MemoryContext context,
											const KafkaSetting *settings,
											KafkaReport *failure);
extern const char *kafka_producer_check(const KafkaSetting *settings);
extern int	kafka_producer_fd(const KafkaProducer *producer);
extern bool kafka_producer_is_connected(KafkaProducer *producer);
extern KafkaTopicHandle kafka_producer_open_topic(KafkaProducer *producer, const char *name,
												  const char **error);
extern void kafka_producer_close_topic(KafkaProducer *producer, KafkaTopicHandle handle);
extern const char *kafka_producer_send(KafkaProducer *producer, const KafkaRecord *record,
									   const char **text);
extern void kafka_producer_poll(KafkaProducer *producer, KafkaReport *report);
extern void kafka_producer_stop(KafkaProducer *producer);
extern void kafka_producer_destroy(KafkaProducer *producer);

/* kafka_topic.c */

typedef struct KafkaTopic
{
	char		name[256];		/* hash key: must be first */
	KafkaTopicHandle handle;
	int64		delivered_at;	/* when a record last was (ms); 0: never */
	int64		missed_at;		/* since when it is not to be had (ms); 0: it is */
} KafkaTopic;

typedef struct KafkaTopics KafkaTopics;

extern KafkaTopics *kafka_topics_create(MemoryContext context, KafkaProducer *producer);
extern long kafka_topics_count(const KafkaTopics *topics);
extern KafkaTopic *kafka_topic_open(KafkaTopics *topics, const char *name, int64 now,
									const char **error);

/* kafka_message.c */

extern const char *kafka_message_topic(const DispatchMessage *message);
extern const char *kafka_message_error(const DispatchMessage *message, const char *error);
extern void kafka_message_record(const DispatchMessage *message, KafkaRecord *record);

/* kafka_resolve.c */

struct addrinfo;

/* What librdkafka calls instead of getaddrinfo() and freeaddrinfo(). */
extern int	kafka_resolve(const char *node, const char *service,
						  const struct addrinfo *hints, struct addrinfo **result,
						  void *stopping);

/* kafka_connection.c */

typedef struct KafkaConnection KafkaConnection;

extern KafkaConnection *kafka_connection_create(DispatchHost *host,
												const DispatchValue *options);
extern bool kafka_connection_send(void *connection, DispatchMessage *message);
extern DispatchState kafka_connection_pump(void *connection, DispatchWait *wait);

#endif							/* DISPATCH_KAFKA_H */
