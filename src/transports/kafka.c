/*-------------------------------------------------------------------------
 *
 * kafka.c
 *	  The kafka transport: records in topics of Apache Kafka.
 *
 * This file holds what the core sees of it, the options and the callbacks;
 * kafka.h says where the rest is, and how order is kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "kafka.h"

PG_MODULE_MAGIC;

static const char *const protocols[] = {
	"plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL
};

static const char *const mechanisms[] = {
	"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", NULL
};

static const char *const codecs[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};

/* Headers that the option "headers" must not bring. */
static const char *const own_headers[] = {"content-type", "ce_*", NULL};

#define BACKEND DISPATCH_OF_BACKEND
#define EVENT DISPATCH_OF_EVENT
#define SECRET DISPATCH_SECRET

/* No name, login or certificate is longer. */
#define MAX_TEXT 65536

/* The end of the year 9999. */
#define MAX_TIMESTAMP_MS INT64CONST(253402300799999)

static const DispatchOption kafka_options[] = {
	[OPTION_BOOTSTRAP_SERVERS] = {"bootstrap_servers", DISPATCH_TEXT,
	BACKEND | DISPATCH_REQUIRED, NULL, 1, MAX_TEXT, NULL,
	"Some brokers of the cluster: host:port, separated by commas"},
	[OPTION_TOPIC] = {"topic", DISPATCH_TEMPLATE, BACKEND | EVENT, "events", 1, 249, NULL,
	"Name of the topic"},
	[OPTION_PARTITION_KEY] = {"partition_key", DISPATCH_TEMPLATE,
	BACKEND | EVENT | DISPATCH_NO_ADDRESS, NULL,
	0, 0, NULL, "Key of the record; without it, the key of the event"},
	[OPTION_PARTITION] = {"partition", DISPATCH_INTEGER, EVENT, NULL, 0, PG_INT32_MAX, NULL,
	"Number of the partition; without it, by the key, or any"},
	[OPTION_TIMESTAMP_MS] = {"timestamp_ms", DISPATCH_INTEGER, EVENT, NULL,
	1, MAX_TIMESTAMP_MS, NULL,
	"Time of the record, in milliseconds since 1970; without it, when the event was published"},
	[OPTION_HEADERS] = {"headers", DISPATCH_SCALARS, EVENT, NULL, 0, 0, own_headers,
	"More headers for the record"},
	[OPTION_CLIENT_ID] = {"client_id", DISPATCH_TEXT, BACKEND, "dispatch", 1, 255, NULL,
	"How the brokers call us in logs, metrics and quotas"},
	[OPTION_SECURITY_PROTOCOL] = {"security_protocol", DISPATCH_ENUM, BACKEND, "plaintext",
	0, 0, protocols, "With or without a login (SASL) and encryption (TLS)"},
	[OPTION_SASL_MECHANISM] = {"sasl_mechanism", DISPATCH_ENUM, BACKEND, NULL,
	0, 0, mechanisms, "How to log in"},
	[OPTION_USERNAME] = {"username", DISPATCH_TEXT, BACKEND, NULL, 1, MAX_TEXT, NULL,
	"User to log in as"},
	[OPTION_PASSWORD] = {"password", DISPATCH_TEXT, BACKEND | SECRET, NULL, 1, MAX_TEXT, NULL,
	"Password of the user"},
	[OPTION_TLS_CA] = {"tls_ca", DISPATCH_TEXT, BACKEND, NULL, 1, 1 << 20, NULL,
	"Certificates of the authorities to trust, in PEM; without it, those of the system"},
	[OPTION_TLS_CERTIFICATE] = {"tls_certificate", DISPATCH_TEXT, BACKEND, NULL,
	1, MAX_TEXT, NULL, "Our own certificate, in PEM"},
	[OPTION_TLS_KEY] = {"tls_key", DISPATCH_TEXT, BACKEND | SECRET, NULL, 1, MAX_TEXT, NULL,
	"Private key of tls_certificate, in PEM"},
	[OPTION_TLS_KEY_PASSWORD] = {"tls_key_password", DISPATCH_TEXT, BACKEND | SECRET, NULL,
	1, MAX_TEXT, NULL, "Password of tls_key"},
	[OPTION_COMPRESSION] = {"compression", DISPATCH_ENUM, BACKEND, "none", 0, 0, codecs,
	"How batches are compressed"},
	[OPTION_LINGER] = {"linger", DISPATCH_NUMBER, BACKEND, "0.001", 0, 60, NULL,
	"Seconds that a record may wait for others of its batch"},
	[OPTION_MESSAGE_TIMEOUT] = {"message_timeout", DISPATCH_NUMBER, BACKEND, "30",
	1, 3600, NULL, "Seconds until a record must have been confirmed"},
	[OPTION_CONNECT_TIMEOUT] = {"connect_timeout", DISPATCH_NUMBER, BACKEND, "10",
	0.001, 3600, NULL, "Seconds until connected and logged in"},
	[OPTION_CONFIG] = {"config", DISPATCH_SCALARS, BACKEND, NULL, 0, 0, NULL,
	"More properties of librdkafka, of those that may be set"},
	[KAFKA_OPTIONS] = {NULL}
};

static void *
kafka_open(DispatchHost *host, const DispatchValue *options)
{
	const char *wrong = kafka_config_check(options);

	if (wrong != NULL)
	{
		/* a newer version may know better than the one that stored them */
		host->explain(host, DISPATCH_CONFIGURATION, wrong);
		return NULL;
	}
	return kafka_connection_create(host, options);
}

static const DispatchTransport kafka_transport = {
	.version = DISPATCH_TRANSPORT_VERSION,
	.name = "kafka",
	.description = "topics of Apache Kafka",
	.options = kafka_options,
	.destination = "topic",
	.check = kafka_config_check,
	.open = kafka_open,
	.send = kafka_connection_send,
	.pump = kafka_connection_pump
	/* no close: the reset callbacks of the host's context do all */
};

const DispatchTransport *
dispatch_transport_init(void)
{
	return &kafka_transport;
}
