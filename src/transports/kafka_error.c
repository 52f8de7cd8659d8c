/*-------------------------------------------------------------------------
 *
 * kafka_error.c
 *	  What the errors of Kafka and of librdkafka mean.
 *
 * Errors go by the names that librdkafka has for them: those with an underscore
 * are its own, the others are codes of the protocol of Kafka, under the older
 * names where there are two.  Most codes that a broker can send never get here,
 * for librdkafka deals with them by itself, for ever: no leader, a leader that
 * has moved, too few replicas, a broken connection.  They have rows all the
 * same, as other versions may see it differently.
 *
 * Kafka refuses whole batches.  Which of its messages was to blame is only
 * known when there was but one in flight, so errors that can be about one
 * message have two classes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka.h"

typedef struct KafkaErrorRow
{
	const char *name;
	DispatchErrorClass alone;
	DispatchErrorClass among_others;
} KafkaErrorRow;

#define OF_ALL(class) DISPATCH_##class, DISPATCH_##class
#define OF_ONE(class) DISPATCH_##class, DISPATCH_CULPRIT_UNKNOWN

static const KafkaErrorRow error_rows[] = {
	/* Nobody is there, or not for us at present. */
	{"_TRANSPORT", OF_ALL(OUTAGE)},
	{"_ALL_BROKERS_DOWN", OF_ALL(OUTAGE)},
	{"_RESOLVE", OF_ALL(OUTAGE)},
	{"_TIMED_OUT", OF_ALL(OUTAGE)},
	{"_TIMED_OUT_QUEUE", OF_ALL(OUTAGE)},
	{"_MSG_TIMED_OUT", OF_ALL(OUTAGE)},
	{"_CRIT_SYS_RESOURCE", OF_ALL(OUTAGE)},
	{"_INTR", OF_ALL(OUTAGE)},
	{"_RETRY", OF_ALL(OUTAGE)},
	{"BROKER_NOT_AVAILABLE", OF_ALL(OUTAGE)},
	{"LEADER_NOT_AVAILABLE", OF_ALL(OUTAGE)},
	{"NOT_LEADER_FOR_PARTITION", OF_ALL(OUTAGE)},
	{"REPLICA_NOT_AVAILABLE", OF_ALL(OUTAGE)},
	{"FENCED_LEADER_EPOCH", OF_ALL(OUTAGE)},
	{"UNKNOWN_LEADER_EPOCH", OF_ALL(OUTAGE)},
	{"REQUEST_TIMED_OUT", OF_ALL(OUTAGE)},
	{"NETWORK_EXCEPTION", OF_ALL(OUTAGE)},
	{"NOT_ENOUGH_REPLICAS", OF_ALL(OUTAGE)},
	{"NOT_ENOUGH_REPLICAS_AFTER_APPEND", OF_ALL(OUTAGE)},
	{"KAFKA_STORAGE_ERROR", OF_ALL(OUTAGE)},
	{"COORDINATOR_LOAD_IN_PROGRESS", OF_ALL(OUTAGE)},
	{"COORDINATOR_NOT_AVAILABLE", OF_ALL(OUTAGE)},
	{"NOT_COORDINATOR", OF_ALL(OUTAGE)},

	/* The producer has ended, or can be sure of nothing: a new one can. */
	{"_FATAL", OF_ALL(OUTAGE)},
	{"_GAPLESS_GUARANTEE", OF_ALL(OUTAGE)},
	{"_PURGE_QUEUE", OF_ALL(OUTAGE)},
	{"_PURGE_INFLIGHT", OF_ALL(OUTAGE)},
	{"_DESTROY", OF_ALL(OUTAGE)},
	{"_STATE", OF_ALL(OUTAGE)},
	{"_FENCED", OF_ALL(OUTAGE)},
	{"_INCONSISTENT", OF_ALL(OUTAGE)},
	{"_BAD_MSG", OF_ALL(OUTAGE)},
	{"OUT_OF_ORDER_SEQUENCE_NUMBER", OF_ALL(OUTAGE)},
	{"DUPLICATE_SEQUENCE_NUMBER", OF_ALL(OUTAGE)},
	{"UNKNOWN_PRODUCER_ID", OF_ALL(OUTAGE)},
	{"INVALID_PRODUCER_EPOCH", OF_ALL(OUTAGE)},
	{"INVALID_PRODUCER_ID_MAPPING", OF_ALL(OUTAGE)},
	{"PRODUCER_FENCED", OF_ALL(OUTAGE)},

	{"_QUEUE_FULL", OF_ALL(BACKPRESSURE)},
	{"THROTTLING_QUOTA_EXCEEDED", OF_ALL(BACKPRESSURE)},

	{"_AUTHENTICATION", OF_ALL(CONFIGURATION)},
	{"_SSL", OF_ALL(CONFIGURATION)},
	{"_INVALID_ARG", OF_ALL(CONFIGURATION)},
	{"_UNSUPPORTED_FEATURE", OF_ALL(CONFIGURATION)},
	{"SASL_AUTHENTICATION_FAILED", OF_ALL(CONFIGURATION)},
	{"UNSUPPORTED_SASL_MECHANISM", OF_ALL(CONFIGURATION)},
	{"ILLEGAL_SASL_STATE", OF_ALL(CONFIGURATION)},
	{"SECURITY_DISABLED", OF_ALL(CONFIGURATION)},
	{"CLUSTER_AUTHORIZATION_FAILED", OF_ALL(CONFIGURATION)},
	{"TRANSACTIONAL_ID_AUTHORIZATION_FAILED", OF_ALL(CONFIGURATION)},
	{"UNSUPPORTED_VERSION", OF_ALL(CONFIGURATION)},
	{"UNSUPPORTED_FOR_MESSAGE_FORMAT", OF_ALL(CONFIGURATION)},
	{"UNSUPPORTED_COMPRESSION_TYPE", OF_ALL(CONFIGURATION)},
	{"INVALID_REQUIRED_ACKS", OF_ALL(CONFIGURATION)},

	{"_UNKNOWN_TOPIC", OF_ALL(DESTINATION)},
	{"UNKNOWN_TOPIC_OR_PART", OF_ALL(DESTINATION)},
	{"TOPIC_AUTHORIZATION_FAILED", OF_ALL(DESTINATION)},

	/* Partitions are added, so that it may be there the next time. */
	{"_UNKNOWN_PARTITION", OF_ALL(EVENT_FAILED)},
	{"POLICY_VIOLATION", OF_ONE(EVENT_FAILED)},
	{"INVALID_MSG", OF_ONE(EVENT_FAILED)},
	{"UNKNOWN", OF_ONE(EVENT_FAILED)},

	{"TOPIC_EXCEPTION", OF_ALL(EVENT_REJECTED)},
	{"MSG_SIZE_TOO_LARGE", OF_ONE(EVENT_REJECTED)},
	{"RECORD_LIST_TOO_LARGE", OF_ONE(EVENT_REJECTED)},
	{"INVALID_MSG_SIZE", OF_ONE(EVENT_REJECTED)},
	{"INVALID_RECORD", OF_ONE(EVENT_REJECTED)},
	{"INVALID_TIMESTAMP", OF_ONE(EVENT_REJECTED)},

	/* Another message of its batch was to blame. */
	{"_INVALID_DIFFERENT_RECORD", OF_ALL(CULPRIT_UNKNOWN)}
};

/*
 * What is wrong with TLS comes as _SSL or as _TRANSPORT, depending on the version
 * of TLS and on who noticed first; and so does a broker that ends in the middle of
 * it.  So the text decides, of which OpenSSL has written the part that counts.
 */
static const struct
{
	const char *name;
	const char *part;
	DispatchErrorClass error_class;
}			tls_rows[] =
{
	{"_SSL", "Disconnected", DISPATCH_OUTAGE},
	{"_SSL", "unexpected eof", DISPATCH_OUTAGE},
	{"_TRANSPORT", "unexpected eof", DISPATCH_OUTAGE},
	{"_TRANSPORT", "SSL routines:", DISPATCH_CONFIGURATION}
};

DispatchErrorClass
kafka_error_class(const char *name, bool alone)
{
	for (size_t i = 0; i < lengthof(error_rows); i++)
	{
		const KafkaErrorRow *row = &error_rows[i];

		if (strcmp(row->name, name) == 0)
			return alone ? row->alone : row->among_others;
	}
	return alone ? DISPATCH_EVENT_FAILED : DISPATCH_CULPRIT_UNKNOWN;
}

bool
kafka_error_ends_connection(DispatchErrorClass error_class)
{
	switch (error_class)
	{
		case DISPATCH_DESTINATION:
		case DISPATCH_EVENT_FAILED:
		case DISPATCH_EVENT_REJECTED:
			return false;
		default:
			return true;
	}
}

/* The class of an error of a connection to a broker. */
DispatchErrorClass
kafka_error_trouble_class(const char *name, const char *text)
{
	for (size_t i = 0; i < lengthof(tls_rows); i++)
		if (strcmp(tls_rows[i].name, name) == 0 && strstr(text, tls_rows[i].part) != NULL)
			return tls_rows[i].error_class;
	return kafka_error_class(name, true);
}
