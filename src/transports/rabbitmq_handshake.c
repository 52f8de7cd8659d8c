/*-------------------------------------------------------------------------
 *
 * rabbitmq_handshake.c
 *	  From the first byte to a channel in confirm mode.
 *
 * Each side waits for the other at each step, and nothing may come out of
 * turn.  When RabbitMQ closes the channel because of an event, the last two
 * steps are taken again on the same connection.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rabbitmq.h"

/* Channels that we ask for at most; one is used. */
#define CHANNEL_MAX 1

/* What RabbitMQ is to say next. */
typedef enum HandshakeStep
{
	STEP_START,
	STEP_TUNE,
	STEP_OPEN_OK,
	STEP_CHANNEL_OPEN_OK,
	STEP_CONFIRM_SELECT_OK,
	STEP_DONE
} HandshakeStep;

struct RabbitHandshake
{
	DispatchHost *host;
	HandshakeStep step;
	const char *username;
	const char *password;
	const char *vhost;
	int			frame_max;
	int			heartbeat;		/* seconds; ours, then the agreed one */
};

static const struct
{
	uint32		method;
	const char *name;
}			expected[] = {
	[STEP_START] = {METHOD_START, "connection.start"},
	[STEP_TUNE] = {METHOD_TUNE, "connection.tune"},
	[STEP_OPEN_OK] = {METHOD_OPEN_OK, "connection.open-ok"},
	[STEP_CHANNEL_OPEN_OK] = {METHOD_CHANNEL_OPEN_OK, "channel.open-ok"},
	[STEP_CONFIRM_SELECT_OK] = {METHOD_CONFIRM_SELECT_OK, "confirm.select-ok"},
};

/* The options live as long as the connection. */
RabbitHandshake *
rabbit_handshake_create(DispatchHost *host, const DispatchValue *options)
{
	RabbitHandshake *handshake = palloc0(sizeof(RabbitHandshake));

	handshake->host = host;
	handshake->username = options[OPTION_USERNAME].text;
	handshake->password = options[OPTION_PASSWORD].text;
	handshake->vhost = options[OPTION_VHOST].text;
	handshake->heartbeat = (int) options[OPTION_HEARTBEAT].integer;
	handshake->frame_max = FRAME_MAX;
	return handshake;
}

void
rabbit_handshake_begin(RabbitHandshake *handshake, RabbitBuffer *out)
{
	static const char protocol[] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};

	memcpy(rabbit_buffer_reserve(out, sizeof(protocol)), protocol, sizeof(protocol));
	out->end += sizeof(protocol);
	handshake->step = STEP_START;
}

void
rabbit_handshake_reopen_channel(RabbitHandshake *handshake, RabbitBuffer *out)
{
	rabbit_encode_channel_close_ok(out);
	rabbit_encode_channel_open(out);
	handshake->step = STEP_CHANNEL_OPEN_OK;
}

bool
rabbit_handshake_done(const RabbitHandshake *handshake)
{
	return handshake->step == STEP_DONE;
}

int
rabbit_handshake_frame_max(const RabbitHandshake *handshake)
{
	return handshake->frame_max;
}

int
rabbit_handshake_heartbeat(const RabbitHandshake *handshake)
{
	return handshake->heartbeat;
}

/* Whether a word is in a list with blanks between. */
static bool
list_has(RabbitText list, const char *word)
{
	size_t		word_len = strlen(word);
	const char *end = list.data + list.len;

	for (const char *at = list.data; at < end;)
	{
		const char *blank = memchr(at, ' ', end - at);
		size_t		len = (blank == NULL ? end : blank) - at;

		if (len == word_len && memcmp(at, word, len) == 0)
			return true;
		at += len + 1;
	}
	return false;
}

static bool
answer_start(RabbitHandshake *handshake, RabbitFrame *frame, RabbitBuffer *out)
{
	RabbitText	mechanisms;

	if (!rabbit_read_start(&frame->payload, &mechanisms))
		return false;
	if (!list_has(mechanisms, "PLAIN"))
		return rabbit_explain(handshake->host, DISPATCH_CONFIGURATION,
							  "RabbitMQ does not offer to log in by name and "
							  "password (mechanism PLAIN)");
	if (!rabbit_encode_start_ok(out, psprintf("dispatch: %s", handshake->host->backend),
								handshake->username, handshake->password))
		return rabbit_explain(handshake->host, DISPATCH_CONFIGURATION,
							  "name and password are too long");
	handshake->step = STEP_TUNE;
	return true;
}

static bool
answer_tune(RabbitHandshake *handshake, RabbitFrame *frame, RabbitBuffer *out)
{
	int			channel_max = rabbit_read_number(&frame->payload, 2);
	uint32		frame_max = rabbit_read_number(&frame->payload, 4);
	int			heartbeat = rabbit_read_number(&frame->payload, 2);

	if (frame->payload.broken)
		return false;
	/* 0 is: without a limit */
	if (frame_max != 0 && frame_max < FRAME_MIN)
		return rabbit_explain(handshake->host, DISPATCH_CONFIGURATION,
							  "RabbitMQ wants frames of at most %u bytes; "
							  "AMQP 0-9-1 demands %d", frame_max, FRAME_MIN);
	if (frame_max != 0)
		handshake->frame_max = Min(frame_max, FRAME_MAX);
	if (heartbeat != 0)
		handshake->heartbeat = Min(handshake->heartbeat, heartbeat);

	rabbit_encode_tune_ok(out, channel_max == 0 ? CHANNEL_MAX : Min(channel_max, CHANNEL_MAX),
						  handshake->frame_max, handshake->heartbeat);
	if (!rabbit_encode_open(out, handshake->vhost))
		return rabbit_explain(handshake->host, DISPATCH_CONFIGURATION,
							  "the name of the virtual host is too long");
	handshake->step = STEP_OPEN_OK;
	return true;
}

/*
 * Takes a method, and answers it.  False, after explain(), when the connection
 * is lost.
 */
bool
rabbit_handshake_method(RabbitHandshake *handshake, RabbitFrame *frame,
						RabbitBuffer *out)
{
	const char *wanted = expected[handshake->step].name;
	int			channel = handshake->step < STEP_CHANNEL_OPEN_OK ? 0 : CHANNEL;

	if (frame->method != expected[handshake->step].method || frame->channel != channel)
		return rabbit_explain(handshake->host, DISPATCH_CONFIGURATION,
							  "RabbitMQ did not send %s: is it RabbitMQ that "
							  "listens there?", wanted);
	switch (handshake->step)
	{
		case STEP_START:
			if (!answer_start(handshake, frame, out) && !frame->payload.broken)
				return false;
			break;
		case STEP_TUNE:
			if (!answer_tune(handshake, frame, out) && !frame->payload.broken)
				return false;
			break;
		case STEP_OPEN_OK:
			rabbit_encode_channel_open(out);
			handshake->step = STEP_CHANNEL_OPEN_OK;
			break;
		case STEP_CHANNEL_OPEN_OK:
			rabbit_encode_confirm_select(out);
			handshake->step = STEP_CONFIRM_SELECT_OK;
			break;
		case STEP_CONFIRM_SELECT_OK:
			handshake->step = STEP_DONE;
			break;
		case STEP_DONE:
			break;
	}
	if (frame->payload.broken)
		return rabbit_explain(handshake->host, DISPATCH_CONFIGURATION,
							  "RabbitMQ sent a %s that is not well formed", wanted);
	return true;
}
