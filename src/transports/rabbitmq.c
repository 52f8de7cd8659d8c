/*-------------------------------------------------------------------------
 *
 * rabbitmq.c
 *	  The rabbitmq transport: basic.publish to exchanges, with confirms.
 *
 * This file holds what the core sees of it, the options and the callbacks;
 * rabbitmq.h says where the rest is, and why it is made as it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "connect.h"
#include "rabbitmq.h"

PG_MODULE_MAGIC;

static const char *const prefixes[] = {"cloudEvents_", "cloudEvents:", "ce-", NULL};

#define BACKEND DISPATCH_OF_BACKEND
#define EVENT DISPATCH_OF_EVENT
#define BOTH (DISPATCH_OF_BACKEND | DISPATCH_OF_EVENT)

/* Headers that the option "headers" must not bring. */
static const char *const own_headers[] = {
	"cloudEvents_*", "cloudEvents:*", "ce-*", NULL
};

static const DispatchOption rabbitmq_options[] = {
	[OPTION_HOST] = {"host", DISPATCH_TEXT, BACKEND, "localhost", 1, 4096, NULL,
	"Host of RabbitMQ, or several to be tried in turn: \"name[:port], ...\""},
	[OPTION_PORT] = {"port", DISPATCH_INTEGER, BACKEND, "5672", 1, 65535, NULL,
	"TCP port, where \"host\" names none; with TLS it is 5671 as a rule"},
	[OPTION_VHOST] = {"vhost", DISPATCH_TEXT, BACKEND, "/", 1, SHORT_STRING_MAX, NULL,
	"Virtual host"},
	[OPTION_USERNAME] = {"username", DISPATCH_TEXT, BACKEND, "guest", 1, SHORT_STRING_MAX,
	NULL, "User to log in as"},
	[OPTION_PASSWORD] = {"password", DISPATCH_TEXT, BACKEND | DISPATCH_SECRET, "guest",
	0, 4096, NULL, "Password of the user"},
	[OPTION_EXCHANGE] = {"exchange", DISPATCH_TEMPLATE, BOTH, "", 0, SHORT_STRING_MAX, NULL,
	"Exchange, which must be there; the empty one leads to the queue that the "
	"routing key names"},
	[OPTION_ROUTING_KEY] = {"routing_key", DISPATCH_TEMPLATE, BOTH, "{event_type}",
	0, SHORT_STRING_MAX, NULL, "Routing key"},
	[OPTION_DELIVERY_MODE] = {"delivery_mode", DISPATCH_INTEGER, BOTH, "2", 1, 2, NULL,
	"2: persistent; 1: transient, which a restart of RabbitMQ may lose"},
	[OPTION_PRIORITY] = {"priority", DISPATCH_INTEGER, BOTH, NULL, 0, 255, NULL,
	"Priority, for queues that have priorities"},
	[OPTION_EXPIRATION] = {"expiration", DISPATCH_TIME, BOTH, NULL, 0, EXPIRATION_MAX, NULL,
	"How long the message may wait in a queue, or until when"},
	[OPTION_HEADERS] = {"headers", DISPATCH_OBJECT, EVENT, NULL, 2, 65536, own_headers,
	"Headers, typed as in JSON, with tables and arrays; {\"$timestamp\": seconds} and "
	"{\"$binary\": base64} for what JSON has no type"},
	[OPTION_CONTENT_TYPE] = {"content_type", DISPATCH_TEXT, BOTH, NULL, 1, SHORT_STRING_MAX,
	NULL, "MIME type of the body; without it, what the envelope says"},
	[OPTION_CONTENT_ENCODING] = {"content_encoding", DISPATCH_TEXT, BOTH, NULL,
	1, SHORT_STRING_MAX, NULL, "MIME encoding of the body"},
	[OPTION_CORRELATION_ID] = {"correlation_id", DISPATCH_TEXT, EVENT, NULL,
	1, SHORT_STRING_MAX, NULL, "Correlation id"},
	[OPTION_REPLY_TO] = {"reply_to", DISPATCH_TEXT, BOTH, NULL, 1, SHORT_STRING_MAX, NULL,
	"Queue for replies"},
	[OPTION_MESSAGE_ID] = {"message_id", DISPATCH_TEXT, EVENT, NULL, 1, SHORT_STRING_MAX,
	NULL, "Id of the message; without it, the id of the event"},
	[OPTION_TIMESTAMP] = {"timestamp", DISPATCH_TIME, EVENT, NULL,
	0, INT64CONST(1) << 53, NULL,
	"Seconds since 1970, or a point in time; without it, the time of the event"},
	[OPTION_TYPE] = {"type", DISPATCH_TEXT, BOTH, NULL, 1, SHORT_STRING_MAX, NULL,
	"Type of the message; without it, the type of the event"},
	[OPTION_USER_ID] = {"user_id", DISPATCH_TEXT, BOTH, NULL, 1, SHORT_STRING_MAX, NULL,
	"User id, which RabbitMQ compares with the user that logged in"},
	[OPTION_APP_ID] = {"app_id", DISPATCH_TEXT, BOTH, NULL, 1, SHORT_STRING_MAX, NULL,
	"Id of the application"},
	[OPTION_CLOUDEVENTS_PREFIX] = {"cloudevents_prefix", DISPATCH_ENUM, BACKEND,
	"cloudEvents_", 0, 0, prefixes,
	"What the headers of envelope cloudevents_binary begin with"},
	[OPTION_HEARTBEAT] = {"heartbeat", DISPATCH_INTEGER, BACKEND, "10", 1, 3600, NULL,
	"Seconds between heartbeats; RabbitMQ may want fewer; after two without a sign of "
	"life it is given up"},
	[OPTION_CONNECT_TIMEOUT] = {"connect_timeout", DISPATCH_NUMBER, BACKEND,
	"10", 0.001, 3600, NULL, "Seconds until connected and logged in, all hosts together"},
	[OPTION_SOCKET_TIMEOUT] = {"socket_timeout", DISPATCH_NUMBER, BACKEND,
	"30", 0.001, 3600, NULL, "Seconds without progress while a confirm is due"},
	[OPTION_TLS] = {"tls", DISPATCH_BOOLEAN, BACKEND, "false", 0, 0, NULL,
	"Encrypt the connection, and verify the server: TLS 1.2 or later"},
	[OPTION_TLS_CA] = {"tls_ca", DISPATCH_TEXT, BACKEND, NULL, 1, 1048576, NULL,
	"Certificates of the authorities to trust, PEM; without it, those of the system"},
	[OPTION_TLS_CERTIFICATE] = {"tls_certificate", DISPATCH_TEXT, BACKEND, NULL,
	1, 1048576, NULL, "Certificate to show to the server, with its chain, PEM"},
	[OPTION_TLS_KEY] = {"tls_key", DISPATCH_TEXT, BACKEND | DISPATCH_SECRET, NULL,
	1, 65536, NULL, "Private key of tls_certificate, PEM, not encrypted"},
	[OPTION_TLS_KEY + 1] = {NULL}
};

static const char *
rabbitmq_check(const DispatchValue *options)
{
	ConnectHost hosts[CONNECT_MAX_HOSTS];
	const char *problem = NULL;

	if (connect_parse_hosts(options[OPTION_HOST].text, options[OPTION_PORT].integer,
							hosts, &problem) == 0)
		return psprintf("The value of option \"host\" is not valid: %s", problem);
	return rabbit_tls_check(options);
}

static const DispatchTransport rabbitmq_transport = {
	.version = DISPATCH_TRANSPORT_VERSION,
	.name = "rabbitmq",
	.description = "RabbitMQ exchanges, with publisher confirms",
	.options = rabbitmq_options,
	.destination = "routing_key",
	.check = rabbitmq_check,
	.open = rabbit_connection_create,
	.send = rabbit_connection_send,
	.pump = rabbit_connection_pump,
	.close = rabbit_connection_close
};

const DispatchTransport *
dispatch_transport_init(void)
{
	return &rabbitmq_transport;
}
