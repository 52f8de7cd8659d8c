/*
 * kafka_produce: what librdkafka does by itself with the records of a worker.
 *
 * The settings are those of the kafka transport (src/transports/kafka_config.c),
 * and the body is not copied either.  Prints records a second, from the first that
 * is handed over to the last report.  One record goes ahead: else librdkafka would
 * have taken the others, which is half of the work, while it still connects.
 *
 * usage: kafka_produce <servers> <topic> <records> none|one|many <batch> <body>
 *			  [<header> <value>]...
 *
 * "batch" is how many records of a partition a request may have at the most; with
 * librdkafka's default of 10000, it is its limit of bytes that counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

static const char *const settings[][2] = {
	{"enable.idempotence", "true"},
	{"enable.gapless.guarantee", "true"},
	{"acks", "all"},
	{"message.timeout.ms", "0"},
	{"partitioner", "murmur2_random"},
	{"queue.buffering.max.messages", "200000"},
	{"queue.buffering.max.kbytes", "2147483647"},
	{"linger.ms", "1"},
};

#define POLL_MS 100

static long reported;
static struct timespec last_report;

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "kafka_produce: %s: %s\n", what, why);
	exit(1);
}

static void
on_report(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
	(void) client;
	(void) opaque;
	if (message->err)
		fail("record", rd_kafka_err2str(message->err));
	clock_gettime(CLOCK_MONOTONIC, &last_report);
	reported++;
}

static void
configure(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char		error[512];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) != RD_KAFKA_CONF_OK)
		fail(name, error);
}

static rd_kafka_t *
make_client(const char *servers, const char *batch)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *client;
	char		error[512];

	configure(conf, "bootstrap.servers", servers);
	configure(conf, "batch.num.messages", batch);
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		configure(conf, settings[i][0], settings[i][1]);
	rd_kafka_conf_set_dr_msg_cb(conf, on_report);
	client = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	if (client == NULL)
		fail("producer", error);
	return client;
}

/* The key of a record, in the buffer; NULL for none. */
static const char *
make_key(const char *keys, long number, char *buffer, size_t size)
{
	if (strcmp(keys, "none") == 0)
		return NULL;
	snprintf(buffer, size, strcmp(keys, "one") == 0 ? "hot" : "%ld", number);
	return buffer;
}

static void
produce(rd_kafka_t *client, const char *topic, const char *keys, long number,
		const char *body, char **headers)
{
	rd_kafka_headers_t *list = NULL;
	rd_kafka_resp_err_t error;
	char		buffer[32];
	const char *key = make_key(keys, number, buffer, sizeof(buffer));
	size_t		key_len = key ? strlen(key) : 0;

	if (*headers != NULL)
		list = rd_kafka_headers_new(1);
	for (; *headers != NULL && headers[1] != NULL; headers += 2)
		rd_kafka_header_add(list, headers[0], -1, headers[1], -1);

	for (;;)
	{
		error = rd_kafka_producev(client,
								  RD_KAFKA_V_TOPIC(topic),
								  RD_KAFKA_V_MSGFLAGS(0),
								  RD_KAFKA_V_VALUE((void *) body, strlen(body)),
								  RD_KAFKA_V_KEY(key, key_len),
								  RD_KAFKA_V_HEADERS(list),
								  RD_KAFKA_V_END);
		if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
			return;
		if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			fail("produce", rd_kafka_err2str(error));
		rd_kafka_poll(client, POLL_MS);
	}
}

static void
await_reports(rd_kafka_t *client, long count)
{
	while (reported < count)
		rd_kafka_poll(client, POLL_MS);
}

int
main(int argc, char **argv)
{
	rd_kafka_t *client;
	long		count;
	struct timespec start;
	double		seconds;

	if (argc < 7)
		fail("usage",
			 "kafka_produce <servers> <topic> <records> none|one|many <batch> <body> ...");
	count = atol(argv[3]);
	client = make_client(argv[1], argv[5]);
	produce(client, argv[2], argv[4], 0, argv[6], argv + 7);
	await_reports(client, 1);

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (long i = 1; i <= count; i++)
	{
		produce(client, argv[2], argv[4], i, argv[6], argv + 7);
		rd_kafka_poll(client, 0);
	}
	await_reports(client, count + 1);

	seconds = last_report.tv_sec - start.tv_sec + (last_report.tv_nsec - start.tv_nsec) / 1e9;
	printf("%.1f\n", count / seconds);
	rd_kafka_destroy(client);
	return 0;
}
