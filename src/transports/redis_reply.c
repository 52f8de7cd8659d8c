/*-------------------------------------------------------------------------
 *
 * redis_reply.c
 *	  Replies of Redis, and what its errors mean.
 *
 * hiredis is used for what it does best, parsing replies.  Its own reply
 * objects cost four calls of malloc() and free() a reply, and its connections
 * block in name resolution and write without MSG_NOSIGNAL, so both are left
 * alone.  The callbacks below take each value straight from the input: a
 * top-level reply into the one RedisReply, the elements of the array that
 * answers EXEC into the entries of the chunk.
 *
 * Whoever answers at the other end is not trusted with our memory: an array
 * must have exactly the length that is due, arrays do not nest, a single value
 * that does not end within 64 kB is refused, and only the beginning of a text
 * is kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>

#include <hiredis/hiredis.h>

#include "redis.h"

/* No value that we ask for is nearly as long. */
#define READER_MAX_VALUE (64 * 1024)

/* The type of an array's length changed between releases of hiredis. */
#if HIREDIS_MAJOR >= 1
typedef size_t ReaderLength;
#else
typedef int ReaderLength;
#endif

struct RedisReader
{
	MemoryContextCallback callback;
	redisReader *parser;
	RedisChunk *chunk;			/* the one in flight; NULL if none */
	const char *error;			/* not NULL: no further reply can be trusted */
	bool		partial;		/* reply has begun, but not ended */
	RedisReply	reply;
};

typedef struct RedisErrorRow
{
	const char *prefix;
	const char *part;			/* somewhere after it; NULL: anything */
	DispatchErrorClass error_class;
} RedisErrorRow;

/*
 * The first row that matches decides.  The codes and texts are those of Redis
 * 5 to 8 and of Valkey.
 */
static const RedisErrorRow error_rows[] = {
	{"LOADING", NULL, DISPATCH_OUTAGE},
	{"MASTERDOWN", NULL, DISPATCH_OUTAGE},
	{"CLUSTERDOWN", NULL, DISPATCH_OUTAGE},
	{"TRYAGAIN", NULL, DISPATCH_OUTAGE},
	/* a failover: the name may lead to the new master by now */
	{"READONLY", NULL, DISPATCH_OUTAGE},

	{"OOM", NULL, DISPATCH_BACKPRESSURE},
	{"BUSY", NULL, DISPATCH_BACKPRESSURE},
	{"MISCONF", NULL, DISPATCH_BACKPRESSURE},
	{"NOREPLICAS", NULL, DISPATCH_BACKPRESSURE},
	{"ERR max number of clients", NULL, DISPATCH_BACKPRESSURE},

	{"NOAUTH", NULL, DISPATCH_CONFIGURATION},
	{"WRONGPASS", NULL, DISPATCH_CONFIGURATION},
	{"ERR invalid password", NULL, DISPATCH_CONFIGURATION},
	{"ERR Client sent AUTH", NULL, DISPATCH_CONFIGURATION},
	{"ERR AUTH", NULL, DISPATCH_CONFIGURATION},
	/* a user name is unknown to Redis 5 */
	{"ERR wrong number of arguments for 'auth'", NULL, DISPATCH_CONFIGURATION},
	/* streams came with Redis 5, and commands can be renamed */
	{"ERR unknown command", NULL, DISPATCH_CONFIGURATION},
	/* protected mode */
	{"DENIED", NULL, DISPATCH_CONFIGURATION},
	/* a cluster, which needs another client than this one */
	{"MOVED", NULL, DISPATCH_CONFIGURATION},
	{"ASK", NULL, DISPATCH_CONFIGURATION},
	{"CROSSSLOT", NULL, DISPATCH_CONFIGURATION},

	/* "permissions to access one of the keys", "... a channel" */
	{"NOPERM", "permissions to access", DISPATCH_DESTINATION},
	{"NOPERM", NULL, DISPATCH_CONFIGURATION},
	{"WRONGTYPE", NULL, DISPATCH_DESTINATION},

	/* Redis closes the connection after it */
	{"ERR Protocol error", NULL, DISPATCH_CULPRIT_UNKNOWN}
};

/*
 * The class of an error of Redis; the fallback where the table has no row.
 */
DispatchErrorClass
redis_error_class(const char *text, DispatchErrorClass fallback)
{
	for (size_t i = 0; i < lengthof(error_rows); i++)
	{
		const RedisErrorRow *row = &error_rows[i];
		size_t		len = strlen(row->prefix);

		/* whole words: BUSY is not BUSYGROUP */
		if (strncmp(text, row->prefix, len) == 0 &&
			!isalnum((unsigned char) text[len]) &&
			(row->part == NULL || strstr(text + len, row->part) != NULL))
			return row->error_class;
	}
	return fallback;
}

bool
redis_reply_is(const RedisReply *reply, RedisReplyKind kind, const char *text)
{
	return reply->kind == kind && strcmp(reply->text, text) == 0;
}

/* The id of a stream entry, as in 1700000000000-0. */
static bool
text_is_entry_id(const char *text, size_t len)
{
	size_t		before = 0;
	size_t		after;

	while (before < len && isdigit((unsigned char) text[before]))
		before++;
	if (before == 0 || before == len || text[before] != '-')
		return false;
	for (after = before + 1; after < len; after++)
	{
		if (!isdigit((unsigned char) text[after]))
			return false;
	}
	return after > before + 1;
}

/*
 * Whether a value says that the message has arrived: the entry's id, or the
 * number of those who received it, be it 0.
 */
bool
redis_reply_delivers(bool pubsub, RedisReplyKind kind, const char *text,
					 size_t len)
{
	if (pubsub)
		return kind == REPLY_INTEGER;
	return kind == REPLY_STRING && text_is_entry_id(text, len);
}

/* ------------------------------------------------------------------------
 * Called by hiredis: must neither raise an error nor allocate with palloc.
 * NULL tells it to stop; the value of any other pointer means nothing to it.
 * ------------------------------------------------------------------------
 */

static void *
reader_fail(RedisReader *reader, const char *error)
{
	reader->error = error;
	return NULL;
}

/* An element of the array that answers EXEC. */
static void *
reader_take_element(RedisReader *reader, int element, RedisReplyKind kind,
					const char *text, size_t len)
{
	RedisChunk *chunk = reader->chunk;

	if (kind == REPLY_ERROR)
	{
		if (!redis_chunk_error(chunk, element, text, len))
			return reader_fail(reader, "out of memory");
	}
	else if (!redis_reply_delivers(chunk->pubsub, kind, text, len))
		return reader_fail(reader, "unexpected reply to a command");
	chunk->entries[element].answered = true;
	return reader;
}

static void *
reader_take(const redisReadTask *task, RedisReplyKind kind, const char *text,
			size_t len)
{
	RedisReader *reader = task->privdata;

	if (task->parent != NULL)
		return reader_take_element(reader, task->idx, kind, text, len);

	reader->reply.kind = kind;
	reader->reply.len = Min(len, REPLY_TEXT_BYTES);
	memcpy(reader->reply.text, text, reader->reply.len);
	reader->reply.text[reader->reply.len] = '\0';
	return reader;
}

static void *
reader_take_string(const redisReadTask *task, char *text, size_t len)
{
	switch (task->type)
	{
		case REDIS_REPLY_STATUS:
			return reader_take(task, REPLY_STATUS, text, len);
		case REDIS_REPLY_ERROR:
			return reader_take(task, REPLY_ERROR, text, len);
		case REDIS_REPLY_STRING:
			return reader_take(task, REPLY_STRING, text, len);
		default:
			return reader_take(task, REPLY_OTHER, "", 0);
	}
}

static void *
reader_take_integer(const redisReadTask *task, long long value)
{
	return reader_take(task, REPLY_INTEGER, "", 0);
}

static void *
reader_take_nil(const redisReadTask *task)
{
	return reader_take(task, REPLY_OTHER, "", 0);
}

static void *
reader_take_array(const redisReadTask *task, ReaderLength elements)
{
	RedisReader *reader = task->privdata;
	RedisChunk *chunk = reader->chunk;
	int			due = 0;

	if (chunk != NULL && chunk->transaction &&
		redis_chunk_expects(chunk) == EXPECT_OUTCOME)
		due = chunk->count;
	if (task->type != REDIS_REPLY_ARRAY || task->parent != NULL ||
		elements != (ReaderLength) due)
		return reader_fail(reader, "unexpected array in a reply");
	return reader_take(task, REPLY_ARRAY, "", 0);
}

/* Types that only newer releases know have no callback: see redis_reader_next(). */
static redisReplyObjectFunctions reader_functions = {
	.createString = reader_take_string,
	.createArray = reader_take_array,
	.createInteger = reader_take_integer,
	.createNil = reader_take_nil
};

/* ------------------------------------------------------------------------
 * The reader
 * ------------------------------------------------------------------------
 */

static void
reader_release(void *arg)
{
	RedisReader *reader = arg;

	if (reader->parser != NULL)
		redisReaderFree(reader->parser);
	reader->parser = NULL;
}

/*
 * The reader lives as long as the context.
 */
RedisReader *
redis_reader_create(MemoryContext context)
{
	RedisReader *reader = MemoryContextAllocZero(context, sizeof(RedisReader));

	reader->callback.func = reader_release;
	reader->callback.arg = reader;
	MemoryContextRegisterResetCallback(context, &reader->callback);

	reader->parser = redisReaderCreateWithFunctions(&reader_functions);
	if (reader->parser == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	reader->parser->privdata = reader;
	reader->parser->maxbuf = 0; /* keep the buffer: it is bounded anyway */
	return reader;
}

/* What makes the input useless; NULL if nothing. */
const char *
redis_reader_error(RedisReader *reader)
{
	return reader->error;
}

bool
redis_reader_feed(RedisReader *reader, const char *data, size_t len)
{
	if (redisReaderFeed(reader->parser, data, len) == REDIS_OK)
		return true;
	reader->error = "out of memory";
	return false;
}

/*
 * The next reply, valid until the next call; NULL if there is none yet, or
 * the input is broken: see redis_reader_error().  The chunk, which may be NULL,
 * is the one that an array can be for.
 */
const RedisReply *
redis_reader_next(RedisReader *reader, RedisChunk *chunk)
{
	redisReader *parser = reader->parser;
	void	   *found;

	reader->chunk = chunk;
	if (!reader->partial)
	{
		/* a type without a callback sets nothing, so it has to be this */
		reader->reply.kind = REPLY_OTHER;
		reader->reply.len = 0;
		reader->reply.text[0] = '\0';
	}

	if (redisReaderGetReply(parser, &found) != REDIS_OK)
	{
		if (reader->error == NULL)
			reader->error = parser->errstr;
		return NULL;
	}
	reader->partial = (found == NULL);
	if (found != NULL)
		return &reader->reply;
	if (parser->len - parser->pos > READER_MAX_VALUE)
		reader->error = "overlong value in a reply";
	return NULL;
}
