/*-------------------------------------------------------------------------
 *
 * kafka_connection.c
 *	  From reports to outcomes: connecting, timeouts, ending.
 *
 * A connection is a producer, which connects to as many brokers as it needs by
 * itself.  It is ready when a broker has let it in, and it ends when the producer
 * has (kafka.h says why it must), when the brokers do not want us, or when nothing
 * is confirmed for too long.
 *
 * It ends in two steps.  First nothing more is sent, and what is under way gets
 * a moment to be confirmed, for else it is written twice.  Then the producer is
 * destroyed; only now outcomes are reported of what it had not done with.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "lib/ilist.h"
#include "storage/latch.h"

#include "kafka.h"

/* How often to look whether a broker has let us in (ms): nothing tells us. */
#define LOOK_MS 10

/* How long to wait for confirmations before the end (ms). */
#define END_MS 1000

/* librdkafka never forgets a topic, so a new producer must in the end. */
#define MAX_TOPICS 10000

#define NOT_CONFIRMED "Kafka did not confirm the record in time"

typedef enum KafkaPhase
{
	PHASE_CONNECTING,
	PHASE_READY,
	PHASE_ENDING
} KafkaPhase;

struct KafkaConnection
{
	DispatchHost *host;
	KafkaProducer *producer;
	KafkaTopics *topics;
	KafkaPhase	phase;
	int64		message_timeout;	/* milliseconds, as are all of these: */
	int64		connect_timeout;
	int64		now;			/* 0: to be looked at */
	int64		deadline;		/* of PHASE_CONNECTING and PHASE_ENDING */
	int64		delivered_at;	/* when the last one was */
	int64		down_since;		/* all brokers are; 0: not known to be */
	int64		next_scan;		/* of the messages, for those that expired */

	KafkaFlights flights;
	int			nreported;		/* of them, let go of by the producer */
	bool		expired;		/* ending because of some that were not confirmed */
	bool		is_trouble;		/* Kafka's, not that of some message or topic */
	DispatchErrorClass end_class;	/* why it ends */
	char		end_error[KAFKA_ERROR_BYTES];
	DispatchErrorClass trouble_class;
	char		trouble[KAFKA_ERROR_BYTES]; /* the last one with a broker; or "" */
};

static int64
clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

KafkaConnection *
kafka_connection_create(DispatchHost *host, const DispatchValue *options)
{
	MemoryContext old = MemoryContextSwitchTo(host->context);
	KafkaConnection *conn = palloc0(sizeof(KafkaConnection));
	KafkaReport failure;

	conn->host = host;
	conn->message_timeout = (int64) (options[OPTION_MESSAGE_TIMEOUT].number * 1000);
	conn->connect_timeout = (int64) (options[OPTION_CONNECT_TIMEOUT].number * 1000 + 0.5);
	conn->now = clock_ms();
	conn->deadline = conn->now + conn->connect_timeout;
	conn->trouble_class = conn->end_class = DISPATCH_OUTAGE;
	kafka_flights_init(&conn->flights, host->context);
	conn->producer = kafka_producer_create(host->context, kafka_config_settings(options), &failure);
	if (conn->producer != NULL)
		conn->topics = kafka_topics_create(host->context, conn->producer);
	MemoryContextSwitchTo(old);
	if (conn->producer != NULL)
		return conn;
	host->explain(host, kafka_error_class(failure.error, true), failure.text);
	return NULL;
}

/* ------------------------------------------------------------------------
 * The end
 * ------------------------------------------------------------------------
 */

/*
 * A new producer is needed, which is no trouble.  Sends nothing more.  The reason
 * may be NULL, when one is to follow.
 */
static void
connection_renew(KafkaConnection *conn, const char *reason)
{
	if (reason != NULL && conn->end_error[0] == '\0')
		strlcpy(conn->end_error, reason, sizeof(conn->end_error));
	if (conn->phase == PHASE_ENDING)
		return;
	conn->phase = PHASE_ENDING;
	conn->deadline = conn->now + END_MS;
	kafka_producer_stop(conn->producer);
	/* of those that are held there will be no report */
	conn->nreported += kafka_flights_unsend_held(&conn->flights);
}

/*
 * The connection is of no use.  The first reason is told, unless a later one
 * knows that a message is to blame.
 */
static void
connection_end(KafkaConnection *conn, DispatchErrorClass error_class, const char *reason)
{
	if (!conn->is_trouble || error_class == DISPATCH_CULPRIT_UNKNOWN)
	{
		conn->is_trouble = true;
		conn->end_class = error_class;
		strlcpy(conn->end_error, reason, sizeof(conn->end_error));
	}
	connection_renew(conn, NULL);
}

/*
 * What the producer leaves behind.  A message that is left without an outcome
 * is sent again by the core, as is one that is returned; but only where none is
 * left the core takes the end for no trouble at all.
 */
static void
flight_finish(KafkaConnection *conn, KafkaFlight *flight)
{
	if (conn->expired && kafka_flight_has_expired(flight, conn->message_timeout, conn->now))
		conn->host->failed(conn->host, flight->message, DISPATCH_DESTINATION,
						   NOT_CONFIRMED);
	else if (flight->unsent && !conn->is_trouble)
		conn->host->returned(conn->host, flight->message);
}

static DispatchState
connection_finish(KafkaConnection *conn)
{
	dlist_iter	iter;

	kafka_producer_destroy(conn->producer);
	dlist_foreach(iter, &conn->flights.all)
		flight_finish(conn, dlist_container(KafkaFlight, node, iter.cur));
	conn->host->explain(conn->host, conn->end_class,
						conn->end_error[0] != '\0' ? conn->end_error : "the producer has ended");
	return DISPATCH_LOST;
}

/* ------------------------------------------------------------------------
 * Messages
 * ------------------------------------------------------------------------
 */

/*
 * A message has met an error, alone or with others in flight.  True if that is
 * the message's own, which has failed then; else it ends the connection.
 */
static bool
flight_fail(KafkaConnection *conn, KafkaFlight *flight, bool alone,
			const char *name, const char *text)
{
	DispatchErrorClass error_class;
	char		error[KAFKA_ERROR_BYTES];

	name = kafka_message_error(flight->message, name);
	error_class = kafka_error_class(name, alone);
	snprintf(error, sizeof(error), "%s (%s)", text, name);
	if (kafka_error_ends_connection(error_class))
	{
		connection_end(conn, error_class, error);
		return false;
	}
	/* That Kafka has refused it may be what ends the producer. */
	if (conn->phase == PHASE_ENDING)
		connection_renew(conn, error);
	kafka_flight_end(&conn->flights, flight);
	if (error_class == DISPATCH_DESTINATION && flight->topic->missed_at == 0)
		flight->topic->missed_at = conn->now;
	conn->host->failed(conn->host, flight->message, error_class, error);
	return true;
}

/*
 * Gives a message to the producer.  False if that is of no use.  What librdkafka
 * does not even take can be about no other message.
 */
static bool
flight_launch(KafkaConnection *conn, KafkaFlight *flight, KafkaRecord *record)
{
	const char *text;
	const char *error;

	record->topic = flight->topic->handle;
	record->opaque = flight;
	error = kafka_producer_send(conn->producer, record, &text);
	if (error == NULL)
		return true;
	kafka_flight_scout_back(flight);
	return flight_fail(conn, flight, true, error, text);
}

/* May it go now, as far as order is concerned?  Then it may be a scout. */
static bool
flight_may_go(KafkaConnection *conn, KafkaFlight *flight, const KafkaRecord *record)
{
	flight->partition = kafka_topic_partition(flight->topic, record);
	if (!kafka_topic_takes(flight->topic, flight->partition, conn->now))
		return false;
	flight->is_scout = kafka_topic_scout(conn->topics, flight->topic, flight->partition,
										 conn->now);
	return true;
}

/*
 * A scout of the topic is back, or one of its partitions knows us now: those go that
 * have waited for that.  At once, or the next message would pass them.
 */
static void
launch_held(KafkaConnection *conn, KafkaTopic *topic)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &topic->held)
	{
		KafkaFlight *flight = dlist_container(KafkaFlight, held_node, iter.cur);
		KafkaRecord record;

		if (conn->phase != PHASE_READY)
			return;
		kafka_message_record(flight->message, &record);
		if (!flight_may_go(conn, flight, &record))
			continue;
		kafka_flight_release(&conn->flights, flight);
		if (!flight_launch(conn, flight, &record))
		{
			flight->unsent = true;
			conn->nreported++;
		}
	}
}

bool
kafka_connection_send(void *connection, DispatchMessage *message)
{
	KafkaConnection *conn = connection;
	KafkaTopic *topic;
	KafkaRecord record;
	KafkaFlight *flight;
	const char *text;

	if (conn->phase != PHASE_READY || conn->flights.count >= KAFKA_MAX_FLIGHTS)
		return false;
	/* A new producer is needed, and comes when nothing is in flight. */
	if (kafka_topics_count(conn->topics) > MAX_TOPICS && conn->flights.count > 0)
		return false;
	if (conn->now == 0)
		conn->now = clock_ms();
	topic = kafka_topic_open(conn->topics, kafka_message_topic(message), conn->now, &text);
	if (topic == NULL)
	{
		conn->host->failed(conn->host, message, DISPATCH_EVENT_REJECTED, text);
		return true;
	}

	flight = kafka_flight_begin(&conn->flights, message, topic, conn->now);
	kafka_message_record(message, &record);
	if (message->key != NULL && (record.key != NULL || record.partition >= 0) &&
		!flight_may_go(conn, flight, &record))
	{
		kafka_flight_hold(&conn->flights, flight);
		return true;
	}
	if (flight_launch(conn, flight, &record))
		return true;
	kafka_flight_end(&conn->flights, flight);
	return false;
}

/* ------------------------------------------------------------------------
 * Reports of the producer
 * ------------------------------------------------------------------------
 */

static void
take_record(KafkaConnection *conn, const KafkaReport *report)
{
	KafkaFlight *flight = report->opaque;
	KafkaTopic *topic = flight->topic;
	bool		is_news = flight->is_scout;

	kafka_flight_scout_back(flight);
	if (report->error == NULL)
	{
		is_news |= kafka_topic_confirmed(conn->topics, topic, report->partition, conn->now);
		conn->delivered_at = conn->now;
		conn->down_since = 0;
		conn->trouble[0] = '\0';
		kafka_flight_end(&conn->flights, flight);
		conn->host->delivered(conn->host, flight->message);
	}
	else if (strcmp(report->error, "_PURGE_QUEUE") == 0 ||
			 strcmp(report->error, KAFKA_NOT_CONFIRMED) == 0)
	{
		/* our own doing, see connection_renew(), or that of a fatal error */
		connection_renew(conn, strcmp(report->error, KAFKA_NOT_CONFIRMED) == 0 ?
						 "librdkafka took a record for written that no broker has confirmed" : NULL);
		flight->unsent = true;
		conn->nreported++;
	}
	else if (!flight_fail(conn, flight, conn->flights.count - conn->flights.nheld == 1,
						  report->error, report->text))
		conn->nreported++;
	if (is_news)
		launch_held(conn, topic);
}

/*
 * A broker cannot be reached, or does not let us in.  librdkafka tries again,
 * and another broker may be well: only what it says when all are down counts.
 */
static void
take_trouble(KafkaConnection *conn, const KafkaReport *report)
{
	bool		all_down = strcmp(report->error, "_ALL_BROKERS_DOWN") == 0;

	if (all_down && conn->down_since == 0)
		conn->down_since = conn->now;
	/* That all are down says less than what one of them said before. */
	if (all_down && conn->trouble[0] != '\0')
		return;
	conn->trouble_class = kafka_error_trouble_class(report->error, report->text);
	strlcpy(conn->trouble, report->text, sizeof(conn->trouble));
}

/* The producer has ended.  Why it stops at a refused batch, that batch tells. */
static void
take_end(KafkaConnection *conn, const KafkaReport *report)
{
	char		error[KAFKA_ERROR_BYTES];

	snprintf(error, sizeof(error), "%.900s (%s)", report->text, report->error);
	if (strcmp(report->error, "_GAPLESS_GUARANTEE") == 0)
		connection_renew(conn, NULL);
	else
		connection_end(conn, kafka_error_class(report->error, true), error);
}

static void
take_reports(KafkaConnection *conn)
{
	KafkaReport report;

	for (;;)
	{
		kafka_producer_poll(conn->producer, &report);
		switch (report.kind)
		{
			case REPORT_NONE:
				return;
			case REPORT_RECORD:
				take_record(conn, &report);
				break;
			case REPORT_TROUBLE:
				take_trouble(conn, &report);
				break;
			case REPORT_FATAL:
				take_end(conn, &report);
				break;
		}
	}
}

/* ------------------------------------------------------------------------
 * Time
 * ------------------------------------------------------------------------
 */

/* Nothing has happened for "ms"; "what" is what did not. */
static void
connection_give_up(KafkaConnection *conn, DispatchErrorClass error_class,
				   const char *what, int64 ms)
{
	char		error[KAFKA_ERROR_BYTES];

	snprintf(error, sizeof(error), "%s for %g s", what, ms / 1000.0);
	connection_end(conn, error_class, conn->trouble[0] != '\0' ? conn->trouble : error);
}

static void
look_while_connecting(KafkaConnection *conn)
{
	if (kafka_producer_is_connected(conn->producer))
	{
		conn->phase = PHASE_READY;
		conn->down_since = 0;
		conn->trouble[0] = '\0';
	}
	else if (conn->down_since != 0 || conn->now >= conn->deadline)
		connection_give_up(conn, conn->trouble_class, "no broker has answered",
						   conn->connect_timeout);
}

/*
 * A broker that had let us in and does not any more may be about to end, and
 * say anything: that is an outage, until a new connection knows better.
 */
static void
look_while_ready(KafkaConnection *conn)
{
	if (conn->flights.count == 0)
	{
		/* Nothing can be lost: better to know than to believe. */
		if (conn->down_since != 0)
			connection_end(conn, DISPATCH_OUTAGE, conn->trouble);
		else if (kafka_topics_count(conn->topics) > MAX_TOPICS)
			connection_renew(conn, "too many topics for one producer");
		return;
	}
	if (conn->down_since != 0 && conn->now >= conn->down_since + conn->connect_timeout)
		connection_give_up(conn, DISPATCH_OUTAGE, "no broker has answered",
						   conn->connect_timeout);
	else if (kafka_flights_have_expired(&conn->flights, conn->message_timeout, conn->now,
										&conn->next_scan))
	{
		/*
		 * If others get through, or it is the only one and a broker is there,
		 * the topic is to blame, and other topics must have their turn.
		 */
		conn->expired = conn->down_since == 0 &&
			(conn->flights.count == 1 || conn->delivered_at + conn->message_timeout > conn->now);
		if (conn->expired)
			connection_renew(conn, NOT_CONFIRMED);
		else
			connection_give_up(conn, DISPATCH_OUTAGE, "no record was confirmed",
							   conn->message_timeout);
	}
}

/* When to look again; -1: need not. */
static int64
next_look(const KafkaConnection *conn)
{
	int64		next;

	if (conn->phase == PHASE_CONNECTING)
		return Min(conn->now + LOOK_MS, conn->deadline);
	if (conn->phase == PHASE_ENDING)
		return conn->deadline;
	if (conn->flights.count == 0)
		return -1;
	next = Max(kafka_flights_oldest(&conn->flights)->sent_at + conn->message_timeout,
			   conn->next_scan);
	if (conn->down_since != 0)
		next = Min(next, conn->down_since + conn->connect_timeout);
	return next;
}

DispatchState
kafka_connection_pump(void *connection, DispatchWait *wait)
{
	KafkaConnection *conn = connection;
	int64		next;

	conn->now = clock_ms();
	take_reports(conn);
	if (conn->phase == PHASE_CONNECTING)
		look_while_connecting(conn);
	if (conn->phase == PHASE_READY)
		look_while_ready(conn);
	if (conn->phase == PHASE_ENDING &&
		(conn->flights.count == conn->nreported || conn->now >= conn->deadline))
		return connection_finish(conn);

	next = next_look(conn);
	wait->fd = kafka_producer_fd(conn->producer);
	wait->events = WL_SOCKET_READABLE;
	wait->timeout_ms = next < 0 ? -1 : Max(next - conn->now, 0);
	conn->now = 0;
	return conn->phase == PHASE_READY ? DISPATCH_READY : DISPATCH_CONNECTING;
}
