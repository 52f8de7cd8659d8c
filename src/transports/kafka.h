/*-------------------------------------------------------------------------
 *
 * kafka.h
 *	  What the files of the kafka transport share.
 *
 *	kafka.c				the transport: options and callbacks
 *	kafka_connection.c	from reports to outcomes; connecting, timeouts, ending
 *	kafka_message.c		from messages to records
 *	kafka_topic.c		topics, by name; which partitions know us
 *	kafka_flight.c		the messages that a producer has, or is to get
 *	kafka_error.c		what the errors mean
 *	kafka_config.c		options to properties; which properties users may set
 *	kafka_producer.c	a producer; the one user of librdkafka
 *	kafka_resolve.c		name resolution that ends when the producer does
 *
 * How order is kept.  librdkafka sends batches, small ones several at a time for each
 * partition, and tries again by itself: as an idempotent producer it numbers
 * them, and a broker refuses one that comes before those that it should follow.
 * So their order is kept, and none is written twice, under two conditions.
 *
 * The first is that the broker knows the producer.  Of one that it has no record
 * of in that partition, it takes any number for the first: when it has refused a
 * batch (it was not the leader yet, say), the next one, already on its way, is
 * written.  librdkafka then believes that the former was, too, and reports it as
 * delivered.  So an event with a key goes to a partition alone until that has
 * confirmed one to this producer (kafka_topic.c); and what librdkafka has only
 * concluded, with no answer of a broker, is never taken for delivered.
 *
 * The second is that librdkafka gives up no batch.  Once it does, it would number
 * those behind it anew and send them, and what was given up could only follow
 * later.  So it must never go on after a failure, and there are two of them:
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
 * The same happens inside of librdkafka when leaders move: a batch comes to a
 * broker that is not the leader yet, the next one when it is, and is refused for
 * its number; librdkafka then counts anew, in all partitions, and what others
 * have written without having said so comes again, in order (seen with 2.0.2).
 *
 * librdkafka works in threads of its own, which never run code of PostgreSQL.
 * All they report goes through one queue, which wakes us through a descriptor
 * and is emptied by pump().
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_KAFKA_H
#define DISPATCH_KAFKA_H

#include "lib/ilist.h"

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

/* Of a report: librdkafka takes the record for written, but no broker said so. */
#define KAFKA_NOT_CONFIRMED "dispatch:NOT_CONFIRMED"

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
	int			partition;		/* that it was written to */
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
												  int *count, const char **error);
extern int	kafka_producer_partition(const char *key, size_t key_len, int count);
extern void kafka_producer_close_topic(KafkaProducer *producer, KafkaTopicHandle handle);
extern const char *kafka_producer_send(KafkaProducer *producer, const KafkaRecord *record,
									   const char **text);
extern void kafka_producer_poll(KafkaProducer *producer, KafkaReport *report);
extern void kafka_producer_stop(KafkaProducer *producer);
extern void kafka_producer_destroy(KafkaProducer *producer);

/* kafka_topic.c */

/* A partition, as this producer has met it. */
typedef struct KafkaPartition
{
	int64		confirmed_at;	/* when it last confirmed a record (ms); 0: never */
	bool		has_scout;		/* a record is on its way to find out */
} KafkaPartition;

typedef struct KafkaTopic
{
	char		name[256];		/* hash key: must be first */
	KafkaTopicHandle handle;
	int64		delivered_at;	/* when a record last was (ms); 0: never */
	int64		missed_at;		/* since when it is not to be had (ms); 0: it is */
	int		   *count;			/* of partitions; 0: not known yet */
	KafkaPartition *partitions;
	int			npartitions;	/* of them */
	int			nscouts;		/* to all of its partitions */
	bool		has_blind_scout;	/* one of them is to an unknown partition */
	dlist_head	held;			/* flights that wait for a scout, in order */
} KafkaTopic;

typedef struct KafkaTopics KafkaTopics;

extern KafkaTopics *kafka_topics_create(MemoryContext context, KafkaProducer *producer);
extern long kafka_topics_count(const KafkaTopics *topics);
extern KafkaTopic *kafka_topic_open(KafkaTopics *topics, const char *name, int64 now,
									const char **error);
extern int	kafka_topic_partition(const KafkaTopic *topic, const KafkaRecord *record);
extern bool kafka_topic_takes(const KafkaTopic *topic, int partition, int64 now);
extern bool kafka_topic_scout(KafkaTopics *topics, KafkaTopic *topic, int partition, int64 now);
extern void kafka_topic_scout_back(KafkaTopic *topic, int partition);
extern bool kafka_topic_confirmed(KafkaTopics *topics, KafkaTopic *topic, int partition,
								  int64 now);

/* kafka_flight.c */

/* So many at the most: librdkafka has room for more, so that it never refuses one. */
#define KAFKA_MAX_FLIGHTS 200000

/* A message that the producer has, or is to get. */
typedef struct KafkaFlight
{
	dlist_node	node;			/* in all or unused */
	dlist_node	held_node;		/* in the topic's, if it is held */
	DispatchMessage *message;
	KafkaTopic *topic;
	int64		sent_at;
	int			partition;		/* where it goes, if that matters; -1: not known */
	bool		is_held;		/* the producer does not have it yet */
	bool		is_scout;
	bool		unsent;			/* the producer let go of it before it was */
} KafkaFlight;

typedef struct KafkaFlights
{
	MemoryContext context;
	dlist_head	all;			/* the oldest first */
	dlist_head	unused;
	int			count;
	int			nheld;			/* of them */
} KafkaFlights;

extern void kafka_flights_init(KafkaFlights *flights, MemoryContext context);
extern KafkaFlight *kafka_flight_begin(KafkaFlights *flights, DispatchMessage *message,
									   KafkaTopic *topic, int64 now);
extern void kafka_flight_hold(KafkaFlights *flights, KafkaFlight *flight);
extern void kafka_flight_release(KafkaFlights *flights, KafkaFlight *flight);
extern void kafka_flight_scout_back(KafkaFlight *flight);
extern void kafka_flight_end(KafkaFlights *flights, KafkaFlight *flight);
extern int	kafka_flights_unsend_held(KafkaFlights *flights);
extern bool kafka_flight_has_expired(const KafkaFlight *flight, int64 timeout, int64 now);
extern bool kafka_flights_have_expired(const KafkaFlights *flights, int64 timeout, int64 now,
									   int64 *next_scan);
extern const KafkaFlight *kafka_flights_oldest(const KafkaFlights *flights);

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
