/*-------------------------------------------------------------------------
 *
 * redis.c
 *	  The redis transport: XADD to streams, or PUBLISH to channels.
 *
 * This file holds what the core sees of it, the options and the callbacks;
 * redis.h says where the rest is, and how order is kept.
 *
 * Redis needs to let the user run PING, MULTI and EXEC, XADD or PUBLISH, and
 * SELECT when db is not 0.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "redis.h"

PG_MODULE_MAGIC;

static const char *const modes[] = {"stream", "pubsub", NULL};

#define BACKEND DISPATCH_OF_BACKEND
#define EVENT DISPATCH_OF_EVENT

/* Fields that the option "fields" must not bring. */
static const char *const own_fields[] = {
	"event_id", "event_type", "source", "timestamp", "cloud_event", "data",
	"payload", "content-type", "ce_*", NULL
};

static const DispatchOption redis_options[] = {
	[OPTION_HOST] = {"host", DISPATCH_TEXT, BACKEND, "localhost", 1, 255, NULL,
	"Host name or numeric address of the Redis server"},
	[OPTION_PORT] = {"port", DISPATCH_INTEGER, BACKEND, "6379", 1, 65535, NULL,
	"TCP port of the Redis server"},
	[OPTION_DB] = {"db", DISPATCH_INTEGER, BACKEND, "0", 0, PG_INT32_MAX, NULL,
	"Number of the Redis database"},
	[OPTION_USERNAME] = {"username", DISPATCH_TEXT, BACKEND, NULL, 0, 0, NULL,
	"ACL user (Redis 6 or later); without it, the default user"},
	[OPTION_PASSWORD] = {"password", DISPATCH_TEXT, BACKEND | DISPATCH_SECRET,
	NULL, 0, 0, NULL, "Password of the user"},
	[OPTION_MODE] = {"mode", DISPATCH_ENUM, BACKEND, "stream", 0, 0, modes,
	"XADD to a stream, or PUBLISH to a channel, where only those who listen "
	"at that moment receive the event"},
	[OPTION_STREAM_NAME] = {"stream_name", DISPATCH_TEMPLATE, BACKEND | EVENT,
	"events", 1, 65535, NULL, "Key of the stream, or name of the channel"},
	[OPTION_MAX_LEN] = {"max_len", DISPATCH_INTEGER, BACKEND | EVENT, NULL,
	1, INT64CONST(1) << 53, NULL,
	"Trim the stream to this many entries, read or not; without it, never"},
	[OPTION_MAX_LEN_EXACT] = {"max_len_exact", DISPATCH_BOOLEAN,
	BACKEND | EVENT, "false", 0, 0, NULL,
	"Trim to exactly max_len, which is slower, instead of a little above it"},
	[OPTION_FIELDS] = {"fields", DISPATCH_SCALARS, EVENT, NULL, 0, 0, own_fields,
	"More fields for the stream entry"},
	[OPTION_CONNECT_TIMEOUT] = {"connect_timeout", DISPATCH_NUMBER, BACKEND,
	"5", 0.001, 3600, NULL, "Seconds until connected and logged in"},
	[OPTION_SOCKET_TIMEOUT] = {"socket_timeout", DISPATCH_NUMBER, BACKEND,
	"5", 0.001, 3600, NULL, "Seconds that Redis may be silent while a reply is due"},
	[OPTION_TLS] = {"tls", DISPATCH_BOOLEAN, BACKEND, "false", 0, 0, NULL,
	"Not supported: must be false"},
	[OPTION_TLS + 1] = {NULL}
};

static const char *
redis_check(const DispatchValue *options)
{
	if (options[OPTION_TLS].boolean)
		return "The redis transport cannot encrypt its connection itself: "
			"leave the option \"tls\" out, run a TLS tunnel such as stunnel on "
			"the host of PostgreSQL, and set \"host\" and \"port\" to the "
			"tunnel's end there.";
	return NULL;
}

static void *
redis_open(DispatchHost *host, const DispatchValue *options)
{
	const char *wrong = redis_check(options);

	if (wrong != NULL)
	{
		/* never in plain text what was meant to be encrypted */
		redis_lost(host, DISPATCH_CONFIGURATION, "%s", wrong);
		return NULL;
	}
	return redis_connection_create(host, options);
}

static const DispatchTransport redis_transport = {
	.version = DISPATCH_TRANSPORT_VERSION,
	.name = "redis",
	.description = "Redis streams, or Redis publish/subscribe",
	.options = redis_options,
	.destination = "stream_name",
	.check = redis_check,
	.open = redis_open,
	.send = redis_connection_send,
	.pump = redis_connection_pump
	/* no close: the reset callbacks of the host's context do all */
};

const DispatchTransport *
dispatch_transport_init(void)
{
	return &redis_transport;
}
