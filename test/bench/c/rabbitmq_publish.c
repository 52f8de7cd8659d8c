/*
 * rabbitmq_publish: what rabbitmq-c does by itself with the messages of a worker.
 *
 * As the worker's they are persistent, mandatory and confirmed, and many are on
 * their way at once: half of the window is always with the broker.  Prints
 * messages a second, from the first publish to the last confirm; the login is not
 * in it.
 *
 * usage: rabbitmq_publish <port> <queue> <messages> <window> <body>
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

#define CHANNEL 1
#define FRAME_MAX 131072
#define EVENT_ID "019aa4be-0000-7000-8000-000000000000"

static unsigned long confirmed;
static struct timespec last_confirm;

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "rabbitmq_publish: %s: %s\n", what, why);
	exit(1);
}

static void
must(int status, const char *what)
{
	if (status != AMQP_STATUS_OK)
		fail(what, amqp_error_string2(status));
}

static void
must_reply(amqp_rpc_reply_t reply, const char *what)
{
	if (reply.reply_type != AMQP_RESPONSE_NORMAL)
		fail(what, "refused");
}

static amqp_connection_state_t
open_connection(int port)
{
	amqp_connection_state_t connection = amqp_new_connection();
	amqp_socket_t *socket = amqp_tcp_socket_new(connection);

	if (socket == NULL)
		fail("socket", "out of memory");
	must(amqp_socket_open(socket, "127.0.0.1", port), "connect");
	must_reply(amqp_login(connection, "/", 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN,
						  "guest", "guest"), "login");
	amqp_channel_open(connection, CHANNEL);
	must_reply(amqp_get_rpc_reply(connection), "channel");
	amqp_confirm_select(connection, CHANNEL);
	must_reply(amqp_get_rpc_reply(connection), "confirms");
	return connection;
}

/* Waits for one confirm, which may be of all messages up to it. */
static void
await_confirm(amqp_connection_state_t connection)
{
	amqp_frame_t frame;
	const amqp_basic_ack_t *ack;

	must(amqp_simple_wait_frame(connection, &frame), "confirm");
	if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
		fail("confirm", "the broker has not taken a message");
	ack = frame.payload.method.decoded;
	clock_gettime(CLOCK_MONOTONIC, &last_confirm);
	confirmed = ack->multiple ? ack->delivery_tag : confirmed + 1;
	amqp_maybe_release_buffers(connection);
}

static void
publish(amqp_connection_state_t connection, const char *queue, const char *body)
{
	amqp_basic_properties_t properties = {0};

	properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
		AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_TYPE_FLAG;
	properties.content_type = amqp_cstring_bytes("application/cloudevents+json; charset=utf-8");
	properties.delivery_mode = AMQP_DELIVERY_PERSISTENT;
	properties.message_id = amqp_cstring_bytes(EVENT_ID);
	properties.timestamp = time(NULL);
	properties.type = amqp_cstring_bytes("order.created");
	must(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, amqp_cstring_bytes(queue),
							1, 0, &properties, amqp_cstring_bytes(body)), "publish");
}

int
main(int argc, char **argv)
{
	amqp_connection_state_t connection;
	unsigned long count;
	unsigned long window;
	struct timespec start;
	double		seconds;

	if (argc != 6)
		fail("usage", "rabbitmq_publish <port> <queue> <messages> <window> <body>");
	count = strtoul(argv[3], NULL, 10);
	window = strtoul(argv[4], NULL, 10);
	connection = open_connection(atoi(argv[1]));
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (unsigned long sent = 1; sent <= count; sent++)
	{
		publish(connection, argv[2], argv[5]);
		if (sent - confirmed >= window)
			while (sent - confirmed > window / 2)
				await_confirm(connection);
	}
	while (confirmed < count)
		await_confirm(connection);

	seconds = last_confirm.tv_sec - start.tv_sec + (last_confirm.tv_nsec - start.tv_nsec) / 1e9;
	printf("%.1f\n", count / seconds);
	amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
	return 0;
}
