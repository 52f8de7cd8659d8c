/*-------------------------------------------------------------------------
 *
 * kafka_config.c
 *	  From options to properties of librdkafka; which ones users may set.
 *
 * Properties of librdkafka can load libraries, run commands and read files of
 * the server, and can give away what we promise.  So the option "config" takes
 * those of a list and no others, which is what librdkafka's authors advise.  A
 * second list only says why some are refused, for those who expect them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include "kafka.h"

/* ------------------------------------------------------------------------
 * What users may set
 * ------------------------------------------------------------------------
 */

typedef struct KafkaProperty
{
	const char *name;
	const char *const *choices; /* ends with NULL; NULL: an integer, or a text */
	int64		min;			/* 0, 0: a text */
	int64		max;
} KafkaProperty;

static const char *const booleans[] = {"true", "false", NULL};
static const char *const families[] = {"any", "v4", "v6", NULL};

#define MAX_SOCKET_BUFFER 100000000
#define DAY_MS (24 * 3600 * 1000)

/* Unless the user sets them: what we set, and what librdkafka does. */
#define RECONNECT_BACKOFF_MAX_MS 1000
#define LIBRDKAFKA_RECONNECT_BACKOFF_MS 100

/* Ranges are librdkafka's, narrowed where it would accept what breaks us. */
static const KafkaProperty properties[] = {
	{"allow.auto.create.topics", booleans, 0, 0},
	{"batch.num.messages", NULL, 1, 1000000},
	{"batch.size", NULL, 1, PG_INT32_MAX},
	{"broker.address.family", families, 0, 0},
	{"broker.address.ttl", NULL, 0, DAY_MS},
	{"compression.level", NULL, -1, 12},
	{"connections.max.idle.ms", NULL, 0, PG_INT32_MAX},
	{"message.max.bytes", NULL, 1000, 1000000000},
	{"metadata.max.age.ms", NULL, 1, DAY_MS},
	{"reconnect.backoff.max.ms", NULL, 0, 10000},
	{"reconnect.backoff.ms", NULL, 0, 10000},
	{"retry.backoff.ms", NULL, 1, 300000},
	{"socket.connection.setup.timeout.ms", NULL, 1000, 300000},
	{"socket.nagle.disable", booleans, 0, 0},
	{"socket.receive.buffer.bytes", NULL, 0, MAX_SOCKET_BUFFER},
	{"socket.send.buffer.bytes", NULL, 0, MAX_SOCKET_BUFFER},
	{"ssl.cipher.suites", NULL, 0, 0},
	{"ssl.curves.list", NULL, 0, 0},
	{"ssl.sigalgs.list", NULL, 0, 0},
	{"sticky.partitioning.linger.ms", NULL, 0, 900000},
	{"topic.metadata.propagation.max.ms", NULL, 0, 60000},
	{"topic.metadata.refresh.fast.interval.ms", NULL, 1, 60000},
	{"topic.metadata.refresh.interval.ms", NULL, 1000, 3600000},
};

/* A '*' at either end stands for anything. */
static const struct
{
	const char *pattern;
	const char *reason;
}			refusals[] =
{
	{"plugin.library.paths", "it loads libraries into the server"},
	{"ssl.engine*", "it loads libraries into the server"},
	{"ssl.providers", "it loads libraries into the server"},
	{"sasl.kerberos.*", "it runs commands on the server"},
	{"*.location", "it names a file of the server; the options tls_ca, tls_certificate and "
	"tls_key take the text of a certificate or key"},
	{"ssl.ca.certificate.stores", "it names a file of the server"},
	{"ssl.keystore.*", "it names a file of the server"},
	{"*oauthbearer*", "it makes the server read files and call URLs"},
	{"https.*", "it makes the server read files and call URLs"},
	{"ssl.endpoint.identification.algorithm", "certificates are always verified"},
	{"enable.ssl.certificate.verification", "certificates are always verified"},
	{"ssl.ca.pem", "it is set by the option tls_ca"},
	{"ssl.certificate.pem", "it is set by the option tls_certificate"},
	{"ssl.key.pem", "it is set by the option tls_key"},
	{"ssl.key.password", "it is set by the option tls_key_password"},
	{"bootstrap.servers", "it is set by the option bootstrap_servers"},
	{"metadata.broker.list", "it is set by the option bootstrap_servers"},
	{"client.id", "it is set by the option client_id"},
	{"security.protocol", "it is set by the option security_protocol"},
	{"sasl.mechanism", "it is set by the option sasl_mechanism"},
	{"sasl.mechanisms", "it is set by the option sasl_mechanism"},
	{"sasl.username", "it is set by the option username"},
	{"sasl.password", "it is set by the option password"},
	{"compression.*", "it is set by the option compression"},
	{"linger.ms", "it is set by the option linger"},
	{"queue.buffering.max.ms", "it is set by the option linger"},
	{"message.timeout.ms", "it is set by the option message_timeout"},
	{"delivery.timeout.ms", "it is set by the option message_timeout"},
	{"socket.timeout.ms", "it follows from the option message_timeout"},
	{"request.timeout.ms", "it follows from the option message_timeout"},
	{"enable.idempotence", "without it events could be reordered and duplicated"},
	{"enable.gapless.guarantee", "without it events could be reordered"},
	{"max.in.flight*", "it would reorder events"},
	{"acks", "an event is delivered when all replicas in sync have it, and not before"},
	{"request.required.acks", "an event is delivered when all replicas in sync have it, and not "
	"before"},
	{"retries", "what is sent again, and when, is decided by dispatch"},
	{"message.send.max.retries", "what is sent again, and when, is decided by dispatch"},
	{"partitioner", "a key must go to the partition to which producers in Java send it"},
	{"transactional.id", "it would change what \"delivered\" means"},
	{"transaction.*", "it would change what \"delivered\" means"},
	{"delivery.report.only.error", "no event could be known to be delivered"},
	{"queue.buffering.*", "dispatch decides how many events are in flight"},
	{"queuing.strategy", "it would reorder events"},
	{"debug", "it would write passwords and events to the log of the server"},
	{"log*", "the log of the server is not for it to configure"},
	{"internal.*", "it interferes with the signals of the server"},
	{"test.*", "it is for tests of librdkafka"},
	{"*_cb", "it is no setting but code"},
	{"opaque", "it is no setting but code"},
	{"interceptors", "it is no setting but code"},
};

static bool
pattern_matches(const char *pattern, const char *name)
{
	size_t		len = strlen(pattern);
	size_t		name_len = strlen(name);
	bool		any_begin = pattern[0] == '*';
	bool		any_end = pattern[len - 1] == '*';

	if (any_begin && any_end)
		return strstr(name, pnstrdup(pattern + 1, len - 2)) != NULL;
	if (any_end)
		return strncmp(name, pattern, len - 1) == 0;
	if (any_begin)
		return name_len >= len - 1 && strcmp(name + name_len - (len - 1), pattern + 1) == 0;
	return strcmp(name, pattern) == 0;
}

static const char *
refusal(const char *name)
{
	for (size_t i = 0; i < lengthof(refusals); i++)
		if (pattern_matches(refusals[i].pattern, name))
			return psprintf("Property \"%s\" cannot be set: %s.", name, refusals[i].reason);
	return psprintf("There is no property \"%s\" that can be set.", name);
}

static const char *
check_integer(const KafkaProperty *property, const char *value)
{
	char	   *end;
	int64		number;

	errno = 0;
	number = strtoi64(value, &end, 10);
	if (errno == 0 && end != value && *end == '\0' &&
		number >= property->min && number <= property->max)
		return NULL;
	return psprintf("Property \"%s\" must be an integer from " INT64_FORMAT " to "
					INT64_FORMAT ".", property->name, property->min, property->max);
}

static const char *
check_choice(const KafkaProperty *property, const char *value)
{
	const char *list = "";

	for (const char *const *choice = property->choices; *choice != NULL; choice++)
	{
		if (strcmp(*choice, value) == 0)
			return NULL;
		list = psprintf("%s%s%s", list, *list == '\0' ? "" : " or ", *choice);
	}
	return psprintf("Property \"%s\" must be %s.", property->name, list);
}

static const char *
check_text(const KafkaProperty *property, const char *value)
{
	size_t		len = strlen(value);

	for (size_t i = 0; i < len; i++)
		if (!isgraph((unsigned char) value[i]))
			len = 0;
	if (len > 0 && len <= 1024)
		return NULL;
	return psprintf("Property \"%s\" must be a text without blanks.", property->name);
}

static const char *
check_property(const DispatchPair *pair)
{
	for (size_t i = 0; i < lengthof(properties); i++)
	{
		const KafkaProperty *property = &properties[i];

		if (strcmp(property->name, pair->name) != 0)
			continue;
		if (pair->value == NULL)
			return psprintf("Property \"%s\" has no value.", pair->name);
		if (property->choices != NULL)
			return check_choice(property, pair->value);
		if (property->min == 0 && property->max == 0)
			return check_text(property, pair->value);
		return check_integer(property, pair->value);
	}
	return refusal(pair->name);
}

/* ------------------------------------------------------------------------
 * Other checks that the table of options cannot express
 * ------------------------------------------------------------------------
 */

/* The end of a host name or address; NULL: it is none. */
static const char *
skip_host(const char *text)
{
	const char *start = text;

	if (*text == '[')
	{
		text++;
		while (isxdigit((unsigned char) *text) || *text == ':' || *text == '.')
			text++;
		return *text == ']' ? text + 1 : NULL;
	}
	while (isalnum((unsigned char) *text) || strchr("._-", *text ? *text : '/') != NULL)
		text++;
	return text > start ? text : NULL;
}

/* The end of ":9092"; NULL: it is no port. */
static const char *
skip_port(const char *text)
{
	int			port = 0;
	const char *digit;

	if (*text != ':')
		return text;
	for (digit = text + 1; isdigit((unsigned char) *digit) && port <= 65535; digit++)
		port = port * 10 + (*digit - '0');
	return port > 0 && port <= 65535 ? digit : NULL;
}

static bool
servers_are_valid(const char *text)
{
	for (;;)
	{
		text = skip_host(text);
		if (text != NULL)
			text = skip_port(text);
		if (text == NULL || (*text != '\0' && *text != ','))
			return false;
		if (*text == '\0')
			return true;
		text++;
	}
}

static bool
protocol_has(const DispatchValue *options, const char *part)
{
	return strstr(options[OPTION_SECURITY_PROTOCOL].text, part) != NULL;
}

static const char *
check_login(const DispatchValue *options)
{
	bool		logs_in = protocol_has(options, "sasl");

	if (logs_in && !options[OPTION_SASL_MECHANISM].is_set)
		return "With this security_protocol, the option \"sasl_mechanism\" must be set.";
	if (logs_in && (!options[OPTION_USERNAME].is_set || !options[OPTION_PASSWORD].is_set))
		return "With this security_protocol, the options \"username\" and \"password\" must be set.";
	/* A login that silently does not take place is a hole. */
	if (!logs_in && (options[OPTION_SASL_MECHANISM].is_set || options[OPTION_USERNAME].is_set ||
					 options[OPTION_PASSWORD].is_set))
		return "The options \"sasl_mechanism\", \"username\" and \"password\" need the "
			"security_protocol \"sasl_ssl\" or \"sasl_plaintext\".";
	return NULL;
}

static const char *
check_tls(const DispatchValue *options)
{
	for (int i = OPTION_TLS_CA; i <= OPTION_TLS_KEY_PASSWORD; i++)
		if (options[i].is_set && !protocol_has(options, "ssl"))
			return "The options \"tls_...\" need the security_protocol \"ssl\" or \"sasl_ssl\".";
	for (int i = OPTION_TLS_CA; i <= OPTION_TLS_KEY; i++)
		if (options[i].is_set && strstr(options[i].text, "-----BEGIN ") == NULL)
			return "The options \"tls_ca\", \"tls_certificate\" and \"tls_key\" take the text of a "
				"PEM file, from \"-----BEGIN\" on.";
	if (options[OPTION_TLS_CERTIFICATE].is_set != options[OPTION_TLS_KEY].is_set)
		return "The options \"tls_certificate\" and \"tls_key\" need each other.";
	if (options[OPTION_TLS_KEY_PASSWORD].is_set && !options[OPTION_TLS_KEY].is_set)
		return "The option \"tls_key_password\" needs \"tls_key\".";
	return NULL;
}

/* What the option "config" sets a property to, which has been checked; else this. */
static long
configured_ms(const DispatchValue *options, const char *name, long otherwise)
{
	for (int i = 0; i < options[OPTION_CONFIG].npairs; i++)
		if (strcmp(options[OPTION_CONFIG].pairs[i].name, name) == 0)
			return strtol(options[OPTION_CONFIG].pairs[i].value, NULL, 10);
	return otherwise;
}

/* With these a record is given up before it has been sent, or sent again. */
static const char *const shorter_than_timeout[] = {
	"retry.backoff.ms",
	"topic.metadata.propagation.max.ms",
};

/* Times that are right each by itself, and deliver nothing together. */
static const char *
check_times(const DispatchValue *options)
{
	double		timeout = options[OPTION_MESSAGE_TIMEOUT].number;
	long		most = configured_ms(options, "reconnect.backoff.max.ms",
									 RECONNECT_BACKOFF_MAX_MS);

	if (options[OPTION_LINGER].number >= timeout)
		return "The option \"linger\" must be less than \"message_timeout\".";
	for (size_t i = 0; i < lengthof(shorter_than_timeout); i++)
		if (configured_ms(options, shorter_than_timeout[i], 0) >= timeout * 1000)
			return psprintf("Property \"%s\" must be less than the option \"message_timeout\", "
							"which is %g s.", shorter_than_timeout[i], timeout);
	if (configured_ms(options, "reconnect.backoff.ms", LIBRDKAFKA_RECONNECT_BACKOFF_MS) > most)
		return psprintf("Property \"reconnect.backoff.ms\" must not be more than "
						"\"reconnect.backoff.max.ms\", which is %ld.", most);
	return NULL;
}

const char *
kafka_config_check(const DispatchValue *options)
{
	const char *wrong;

	if (!servers_are_valid(options[OPTION_BOOTSTRAP_SERVERS].text))
		return "The option \"bootstrap_servers\" must be a list like \"host:9092,[::1]:9092\", "
			"without blanks.";
	wrong = check_login(options);
	if (wrong == NULL)
		wrong = check_tls(options);
	for (int i = 0; wrong == NULL && i < options[OPTION_CONFIG].npairs; i++)
		wrong = check_property(&options[OPTION_CONFIG].pairs[i]);
	if (wrong == NULL)
		wrong = check_times(options);
	if (wrong == NULL)
		wrong = kafka_producer_check(kafka_config_settings(options));
	return wrong;
}

/* ------------------------------------------------------------------------
 * Properties
 * ------------------------------------------------------------------------
 */

/* Those that are the same for all; the user may override the last group. */
static const KafkaSetting fixed_settings[] = {
	/* kafka.h says why */
	{"enable.idempotence", "true"},
	{"enable.gapless.guarantee", "true"},
	{"acks", "all"},
	{"message.timeout.ms", "0"},
	{"partitioner", "murmur2_random"},
	{"delivery.report.only.error", "false"},
	{"log.queue", "true"},

	/* The core bounds what is in flight, and its bodies are not copied. */
	{"queue.buffering.max.messages", "1000000"},
	{"queue.buffering.max.kbytes", "2147483647"},

	/* All that we receive is metadata: no broker shall fill our memory. */
	{"receive.message.max.bytes", "100000000"},
	{"socket.keepalive.enable", "true"},

	{"allow.auto.create.topics", "false"},
	{"reconnect.backoff.max.ms", CppAsString2(RECONNECT_BACKOFF_MAX_MS)},
};

/* Options that are properties under another name. */
static const struct
{
	int			option;
	const char *property;
}			text_settings[] =
{
	{OPTION_BOOTSTRAP_SERVERS, "bootstrap.servers"},
	{OPTION_CLIENT_ID, "client.id"},
	{OPTION_SECURITY_PROTOCOL, "security.protocol"},
	{OPTION_SASL_MECHANISM, "sasl.mechanisms"},
	{OPTION_USERNAME, "sasl.username"},
	{OPTION_PASSWORD, "sasl.password"},
	{OPTION_TLS_CA, "ssl.ca.pem"},
	{OPTION_TLS_CERTIFICATE, "ssl.certificate.pem"},
	{OPTION_TLS_KEY, "ssl.key.pem"},
	{OPTION_TLS_KEY_PASSWORD, "ssl.key.password"},
	{OPTION_COMPRESSION, "compression.codec"},
};

#define OTHER_SETTINGS 7

/* Of the time for a record, so that it can be tried a second time. */
#define BROKER_SHARE 0.4		/* for a broker, until replicas have caught up */
#define REQUEST_SHARE 0.5		/* until its reply must be here */
#define LOOK_SHARE 0.5			/* for a topic to appear */

/* It should not take that long: what is news to one broker is not to another. */
#define LOOK_MAX_MS 2000

#define MAX_REQUEST_MS 300000	/* librdkafka's own limit */

static const char *
share_of_timeout(const DispatchValue *options, double share, double max_ms)
{
	double		ms = options[OPTION_MESSAGE_TIMEOUT].number * 1000 * share;

	return psprintf("%d", (int) Min(ms, max_ms));
}

KafkaSetting *
kafka_config_settings(const DispatchValue *options)
{
	int			npairs = options[OPTION_CONFIG].npairs;
	KafkaSetting *settings = palloc((lengthof(fixed_settings) + lengthof(text_settings) +
									 OTHER_SETTINGS + npairs) * sizeof(KafkaSetting));
	KafkaSetting *next = settings;

	memcpy(settings, fixed_settings, sizeof(fixed_settings));
	next += lengthof(fixed_settings);
	for (size_t i = 0; i < lengthof(text_settings); i++)
		if (options[text_settings[i].option].is_set)
			*next++ = (KafkaSetting) {text_settings[i].property,
				options[text_settings[i].option].text};
	if (protocol_has(options, "ssl"))
	{
		*next++ = (KafkaSetting) {"enable.ssl.certificate.verification", "true"};
		*next++ = (KafkaSetting) {"ssl.endpoint.identification.algorithm", "https"};
	}
	*next++ = (KafkaSetting) {"linger.ms",
		psprintf("%g", options[OPTION_LINGER].number * 1000)};
	*next++ = (KafkaSetting) {"request.timeout.ms",
		share_of_timeout(options, BROKER_SHARE, MAX_REQUEST_MS)};
	*next++ = (KafkaSetting) {"socket.timeout.ms",
		share_of_timeout(options, REQUEST_SHARE, MAX_REQUEST_MS)};
	*next++ = (KafkaSetting) {"topic.metadata.propagation.max.ms",
		share_of_timeout(options, LOOK_SHARE, LOOK_MAX_MS)};
	for (int i = 0; i < npairs; i++)
		*next++ = (KafkaSetting) {options[OPTION_CONFIG].pairs[i].name,
			options[OPTION_CONFIG].pairs[i].value};
	*next = (KafkaSetting) {NULL, NULL};
	return settings;
}
