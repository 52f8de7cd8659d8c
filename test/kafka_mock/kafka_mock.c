/*-------------------------------------------------------------------------
 *
 * kafka_mock.c
 *	  A cluster of Kafka that answers as it is told to, for tests.
 *
 * librdkafka has a mock cluster that listens on the loopback; this runs one as a
 * process of its own, with a given number of brokers.  It prints their addresses
 * and the number of librdkafka's version, then takes commands, a line each, and
 * answers each with "ok" or "error: ...":
 *
 *	errors <request> <error> ...	what the next requests of that kind are answered
 *	clear <request>					none of that any more
 *	topic <name> <partitions>		a topic appears
 *	topic-error <name> <error>		a topic fails, or with NO_ERROR does no more
 *	leader <topic> <partition> <broker>		-1: there is none
 *	down <broker>, up <broker>
 *	rtt <broker> <ms>				how long its answers take
 *
 * A request is the number of its kind in Kafka's protocol: 0 produces records.
 * Errors go by their names in librdkafka; its own, as "_TRANSPORT", are taken too.
 *
 *-------------------------------------------------------------------------
 */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ERRORS 1000

static rd_kafka_mock_cluster_t *cluster;

/* The error of that name; false: there is none. */
static int
find_error(const char *name, rd_kafka_resp_err_t *error)
{
	const struct rd_kafka_err_desc *all;
	size_t		count;

	rd_kafka_get_err_descs(&all, &count);
	for (size_t i = 0; i < count; i++)
	{
		if (all[i].name == NULL || strcmp(all[i].name, name) != 0)
			continue;
		*error = all[i].code;
		return 1;
	}
	return 0;
}

/* "errors" and its arguments, of which the first is taken already. */
static const char *
push_errors(int request)
{
	static rd_kafka_resp_err_t errors[MAX_ERRORS];
	size_t		count = 0;
	char	   *word;

	while (count < MAX_ERRORS && (word = strtok(NULL, " \n")) != NULL)
		if (!find_error(word, &errors[count++]))
			return "no such error";
	rd_kafka_mock_push_request_errors_array(cluster, (int16_t) request, count, errors);
	return NULL;
}

/* Returns NULL, or what went wrong. */
static const char *
execute(const char *command)
{
	const char *first = strtok(NULL, " \n");
	int			number = first != NULL ? atoi(first) : 0;
	const char *second;
	rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;

	if (first == NULL)
		return "an argument is missing";
	if (strcmp(command, "errors") == 0)
		return push_errors(number);

	second = strtok(NULL, " \n");
	if (strcmp(command, "clear") == 0)
		rd_kafka_mock_clear_request_errors(cluster, (int16_t) number);
	else if (strcmp(command, "down") == 0)
		error = rd_kafka_mock_broker_set_down(cluster, number);
	else if (strcmp(command, "up") == 0)
		error = rd_kafka_mock_broker_set_up(cluster, number);
	else if (second == NULL)
		return "unknown command, or an argument is missing";
	else if (strcmp(command, "topic") == 0)
		error = rd_kafka_mock_topic_create(cluster, first, atoi(second), 1);
	else if (strcmp(command, "topic-error") == 0)
	{
		if (!find_error(second, &error))
			return "no such error";
		rd_kafka_mock_topic_set_error(cluster, first, error);
		return NULL;
	}
	else if (strcmp(command, "rtt") == 0)
		error = rd_kafka_mock_broker_set_rtt(cluster, number, atoi(second));
	else if (strcmp(command, "leader") == 0)
	{
		const char *broker = strtok(NULL, " \n");

		error = rd_kafka_mock_partition_set_leader(cluster, first, atoi(second),
												   broker != NULL ? atoi(broker) : -1);
	}
	else
		return "unknown command";
	return error != RD_KAFKA_RESP_ERR_NO_ERROR ? rd_kafka_err2str(error) : NULL;
}

int
main(int argc, char **argv)
{
	char		line[64 * 1024];
	char		text[512];
	rd_kafka_t *client = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), text, sizeof(text));

	if (client == NULL ||
		(cluster = rd_kafka_mock_cluster_new(client, argc > 1 ? atoi(argv[1]) : 1)) == NULL)
	{
		fprintf(stderr, "no mock cluster: %s\n", text);
		return 1;
	}
	printf("%s %d\n", rd_kafka_mock_cluster_bootstraps(cluster), rd_kafka_version());
	fflush(stdout);

	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		const char *command = strtok(line, " \n");
		const char *error = command != NULL ? execute(command) : "no command";

		if (error != NULL)
			printf("error: %s\n", error);
		else
			printf("ok\n");
		fflush(stdout);
	}
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(client);
	return 0;
}
