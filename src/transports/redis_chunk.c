/*-------------------------------------------------------------------------
 *
 * redis_chunk.c
 *	  Chunks: messages on their way to Redis, in their form on the wire.
 *
 * A command is a list of arguments first, pointers into the message, and is
 * written to the chunk when all of them are known: the protocol wants their
 * number before and each length in front.  Nothing is ever formatted by way of
 * a format string or a quoting rule, so no text of an event can be taken for
 * a command.
 *
 * The buffer of a chunk begins with MULTI and ends with room for EXEC.  Whether
 * they are sent is decided when the chunk is sealed: a single message needs no
 * transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "redis.h"

#define MULTI_COMMAND "*1\r\n$5\r\nMULTI\r\n"
#define EXEC_COMMAND "*1\r\n$4\r\nEXEC\r\n"
#define MULTI_BYTES (sizeof(MULTI_COMMAND) - 1)
#define EXEC_BYTES (sizeof(EXEC_COMMAND) - 1)

/* Memory that a chunk starts with, and what it may keep when it is emptied. */
#define BUFFER_BYTES (64 * 1024)
#define BUFFER_KEPT (2 * CHUNK_BYTES)

/* The digits of any number, and a length with its type byte and line ends. */
#define NUMBER_BYTES 20
#define HEADER_BYTES (1 + NUMBER_BYTES + 2 + 2)

#define ATTRIBUTE_PREFIX "ce_"
#define ATTRIBUTE_PREFIX_BYTES (sizeof(ATTRIBUTE_PREFIX) - 1)

struct RedisArgument
{
	const char *data;
	size_t		len;
	bool		attribute;		/* goes out with ATTRIBUTE_PREFIX */
};

/* Called when the memory context of the chunk goes: nothing may be left. */
static void
chunk_release(void *arg)
{
	RedisChunk *chunk = arg;

	for (int i = 0; i < chunk->count; i++)
	{
		free(chunk->entries[i].error);
		chunk->entries[i].error = NULL;
	}
	chunk->count = 0;
}

RedisChunk *
redis_chunk_create(MemoryContext context, bool pubsub)
{
	RedisChunk *chunk = MemoryContextAllocZero(context, sizeof(RedisChunk));

	chunk->callback.func = chunk_release;
	chunk->callback.arg = chunk;
	MemoryContextRegisterResetCallback(context, &chunk->callback);
	chunk->context = context;
	chunk->pubsub = pubsub;
	chunk->max_arguments = 64;
	chunk->arguments = MemoryContextAlloc(context, chunk->max_arguments *
										  sizeof(RedisArgument));
	redis_chunk_reset(chunk);
	return chunk;
}

/*
 * Empties the chunk.  A large event must not cost its memory for ever.
 */
void
redis_chunk_reset(RedisChunk *chunk)
{
	chunk_release(chunk);
	if (chunk->data == NULL || chunk->size > BUFFER_KEPT)
	{
		if (chunk->data != NULL)
			pfree(chunk->data);
		chunk->data = NULL;
		chunk->data = MemoryContextAlloc(chunk->context, BUFFER_BYTES);
		chunk->size = BUFFER_BYTES;
	}
	memcpy(chunk->data, MULTI_COMMAND, MULTI_BYTES);
	chunk->start = 0;
	chunk->end = MULTI_BYTES;
	chunk->transaction = false;
	chunk->nrefused = 0;
	chunk->nreplies = 0;
}

/*
 * Notes the error of an entry; false if there is no memory.  Called inside
 * hiredis too, so it must not raise an error.
 */
bool
redis_chunk_error(RedisChunk *chunk, int entry, const char *text, size_t len)
{
	char	   *copy = strndup(text, Min(len, REPLY_TEXT_BYTES));

	if (copy == NULL)
		return false;
	free(chunk->entries[entry].error);
	chunk->entries[entry].error = copy;
	return true;
}

/*
 * A number of bytes that the replies yet to come have at least, but for the
 * last.  One of them may have come in part; errors are longer than QUEUED.
 */
int
redis_chunk_least_reply(const RedisChunk *chunk)
{
	int			due = chunk->count - chunk->nreplies;

	if (!chunk->transaction || due <= 0)
		return 1;
	return due * strlen("+QUEUED\r\n");
}

RedisExpected
redis_chunk_expects(const RedisChunk *chunk)
{
	if (!chunk->transaction || chunk->nreplies > chunk->count)
		return EXPECT_OUTCOME;
	return chunk->nreplies == 0 ? EXPECT_MULTI : EXPECT_QUEUED;
}

/* ------------------------------------------------------------------------
 * Commands
 * ------------------------------------------------------------------------
 */

static void
argument_add(RedisChunk *chunk, const char *data, size_t len)
{
	RedisArgument *argument;

	if (chunk->narguments == chunk->max_arguments)
	{
		chunk->max_arguments *= 2;
		chunk->arguments = repalloc(chunk->arguments, chunk->max_arguments *
									sizeof(RedisArgument));
	}
	argument = &chunk->arguments[chunk->narguments++];
	argument->data = data;
	argument->len = len;
	argument->attribute = false;
}

static void
argument_add_text(RedisChunk *chunk, const char *text)
{
	if (text == NULL)
		text = "";
	argument_add(chunk, text, strlen(text));
}

static void
argument_add_attribute(RedisChunk *chunk, const DispatchPair *attribute)
{
	argument_add_text(chunk, attribute->name);
	chunk->arguments[chunk->narguments - 1].attribute = true;
	argument_add_text(chunk, attribute->value);
}

static void
argument_add_body(RedisChunk *chunk, const DispatchMessage *message)
{
	if (message->body == NULL)
		argument_add(chunk, "", 0);
	else
		argument_add(chunk, message->body, message->body_len);
}

#define argument_add_literal(chunk, literal) \
	argument_add(chunk, "" literal, sizeof(literal) - 1)

/*
 * The fields of the entry, which depend on the envelope.
 */
static void
fields_add(RedisChunk *chunk, const DispatchMessage *message)
{
	const DispatchValue *extra = &message->options[OPTION_FIELDS];

	switch (message->envelope)
	{
		case DISPATCH_CLOUDEVENTS:
			/* the fields of Django Dispatch, in its order */
			argument_add_literal(chunk, "event_id");
			argument_add_text(chunk, message->event_id);
			argument_add_literal(chunk, "event_type");
			argument_add_text(chunk, message->event_type);
			argument_add_literal(chunk, "source");
			argument_add_text(chunk, message->source);
			argument_add_literal(chunk, "timestamp");
			argument_add_text(chunk, message->time);
			argument_add_literal(chunk, "cloud_event");
			argument_add_body(chunk, message);
			break;
		case DISPATCH_CLOUDEVENTS_BINARY:
			for (int i = 0; i < message->nattributes; i++)
				argument_add_attribute(chunk, &message->attributes[i]);
			if (message->body != NULL)
			{
				argument_add_literal(chunk, "content-type");
				argument_add_text(chunk, message->content_type);
				argument_add_literal(chunk, "data");
				argument_add_body(chunk, message);
			}
			break;
		case DISPATCH_DISPYTCH:
			argument_add_literal(chunk, "payload");
			argument_add_body(chunk, message);
			break;
		case DISPATCH_DATA:
			argument_add_literal(chunk, "data");
			argument_add_body(chunk, message);
			break;
	}

	for (int i = 0; i < extra->npairs; i++)
	{
		argument_add_text(chunk, extra->pairs[i].name);
		argument_add_text(chunk, extra->pairs[i].value);
	}
}

/*
 * Lists the arguments of the message's command.  "digits" is the memory of
 * the one that is not in the message.
 */
static void
command_make(RedisChunk *chunk, const DispatchMessage *message, char *digits)
{
	const DispatchValue *options = message->options;
	const DispatchValue *stream = &options[OPTION_STREAM_NAME];

	chunk->narguments = 0;
	if (chunk->pubsub)
	{
		argument_add_literal(chunk, "PUBLISH");
		argument_add(chunk, stream->text, stream->text_len);
		argument_add_body(chunk, message);
		return;
	}

	argument_add_literal(chunk, "XADD");
	argument_add(chunk, stream->text, stream->text_len);
	if (options[OPTION_MAX_LEN].is_set)
	{
		argument_add_literal(chunk, "MAXLEN");
		if (!options[OPTION_MAX_LEN_EXACT].boolean)
			argument_add_literal(chunk, "~");
		argument_add(chunk, digits,
					 pg_ulltoa_n(options[OPTION_MAX_LEN].integer, digits));
	}
	argument_add_literal(chunk, "*");
	fields_add(chunk, message);
}

/* The most that the command can take on the wire. */
static size_t
command_size(const RedisChunk *chunk)
{
	size_t		size = HEADER_BYTES;

	for (int i = 0; i < chunk->narguments; i++)
		size += chunk->arguments[i].len + ATTRIBUTE_PREFIX_BYTES + HEADER_BYTES;
	return size;
}

static inline char *
number_write(char *p, char type, size_t number)
{
	*p++ = type;
	if (number < 10)
		*p++ = '0' + number;
	else
		p += pg_ulltoa_n(number, p);
	*p++ = '\r';
	*p++ = '\n';
	return p;
}

static void
command_write(RedisChunk *chunk)
{
	char	   *p = chunk->data + chunk->end;

	p = number_write(p, '*', chunk->narguments);
	for (int i = 0; i < chunk->narguments; i++)
	{
		const RedisArgument *argument = &chunk->arguments[i];

		if (argument->attribute)
		{
			p = number_write(p, '$', argument->len + ATTRIBUTE_PREFIX_BYTES);
			memcpy(p, ATTRIBUTE_PREFIX, ATTRIBUTE_PREFIX_BYTES);
			p += ATTRIBUTE_PREFIX_BYTES;
		}
		else
			p = number_write(p, '$', argument->len);
		memcpy(p, argument->data, argument->len);
		p += argument->len;
		*p++ = '\r';
		*p++ = '\n';
	}
	chunk->end = p - chunk->data;
}

/* ------------------------------------------------------------------------
 * Messages
 * ------------------------------------------------------------------------
 */

static void
entry_add(RedisChunk *chunk, DispatchMessage *message, bool refused)
{
	RedisEntry *entry = &chunk->entries[chunk->count++];

	entry->message = message;
	entry->refused = refused;
	entry->answered = false;
	entry->error = NULL;
}

/* Takes a message that cannot be sent. */
static void
chunk_refuse(RedisChunk *chunk, DispatchMessage *message, const char *text)
{
	entry_add(chunk, message, true);
	chunk->nrefused++;
	if (!redis_chunk_error(chunk, chunk->count - 1, text, strlen(text)))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
}

/* Makes room for "more" bytes and EXEC. */
static void
chunk_reserve(RedisChunk *chunk, size_t more)
{
	size_t		needed = chunk->end + more + EXEC_BYTES;

	if (needed <= chunk->size)
		return;
	needed = Max(needed, Min(chunk->size * 2, MaxAllocSize));
	chunk->data = repalloc(chunk->data, needed);
	chunk->size = needed;
}

/*
 * Adds the message to the chunk; false if the chunk is full.  A message that
 * cannot be sent is taken all the same, without a command, and reported when
 * the chunk is sealed: outcomes come from pump() alone.
 */
bool
redis_chunk_add(RedisChunk *chunk, DispatchMessage *message)
{
	char		digits[NUMBER_BYTES];
	size_t		size;

	if (chunk->count == CHUNK_EVENTS)
		return false;

	command_make(chunk, message, digits);
	size = command_size(chunk);
	if (size > MaxAllocSize - CHUNK_BYTES - BUFFER_BYTES)
	{
		chunk_refuse(chunk, message, "the event is larger than 1 GB");
		return true;
	}
	if (chunk->end > MULTI_BYTES && chunk->end + size > CHUNK_BYTES)
		return false;
	chunk_reserve(chunk, size);
	command_write(chunk);
	entry_add(chunk, message, false);
	return true;
}

/* Reports the messages that have no command, and forgets them. */
static void
chunk_drop_refused(RedisChunk *chunk, DispatchHost *host)
{
	int			kept = 0;

	for (int i = 0; i < chunk->count; i++)
	{
		RedisEntry *entry = &chunk->entries[i];

		if (entry->refused)
			host->failed(host, entry->message, DISPATCH_EVENT_REJECTED,
						 entry->error);
	}
	for (int i = 0; i < chunk->count; i++)
	{
		if (chunk->entries[i].refused)
			free(chunk->entries[i].error);
		else
			chunk->entries[kept++] = chunk->entries[i];
	}
	chunk->count = kept;
	chunk->nrefused = 0;
}

/*
 * Makes the chunk ready to be written, unless it turns out to be empty.
 */
void
redis_chunk_seal(RedisChunk *chunk, DispatchHost *host)
{
	if (chunk->nrefused > 0)
		chunk_drop_refused(chunk, host);
	if (chunk->count == 0)
	{
		redis_chunk_reset(chunk);
		return;
	}

	chunk->transaction = chunk->count > 1;
	chunk->start = chunk->transaction ? 0 : MULTI_BYTES;
	if (chunk->transaction)
	{
		memcpy(chunk->data + chunk->end, EXEC_COMMAND, EXEC_BYTES);
		chunk->end += EXEC_BYTES;
	}
}

/*
 * All messages of the chunk are delivered; it is empty then.
 */
void
redis_chunk_deliver(RedisChunk *chunk, DispatchHost *host)
{
	for (int i = 0; i < chunk->count; i++)
		host->delivered(host, chunk->entries[i].message);
	redis_chunk_reset(chunk);
}
