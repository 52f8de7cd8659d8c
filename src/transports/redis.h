/*-------------------------------------------------------------------------
 *
 * redis.h
 *	  What the files of the redis transport share.
 *
 *	redis.c				the transport: options and callbacks
 *	redis_connection.c	the socket: connecting, input, output, timeouts
 *	redis_handshake.c	the login
 *	redis_settle.c		from replies to outcomes
 *	redis_reply.c		replies and errors of Redis; the one user of hiredis
 *	redis_chunk.c		from messages to commands
 *
 * Order rests on one rule: messages go out in chunks, MULTI, one command a
 * message, EXEC, and the next chunk is written only after the reply to EXEC.
 * A chunk that Redis refuses as a whole (it is full, loading, a replica, ...)
 * therefore has no successor that could overtake it.  While Redis works on a
 * chunk the next one is collected, already in its form on the wire.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_REDIS_H
#define DISPATCH_REDIS_H

#include "lib/stringinfo.h"

#include "dispatch_transport.h"

/* The rows of the option table, in its order. */
enum RedisOption
{
	OPTION_HOST,
	OPTION_PORT,
	OPTION_DB,
	OPTION_USERNAME,
	OPTION_PASSWORD,
	OPTION_MODE,
	OPTION_STREAM_NAME,
	OPTION_MAX_LEN,
	OPTION_MAX_LEN_EXACT,
	OPTION_FIELDS,
	OPTION_CONNECT_TIMEOUT,
	OPTION_SOCKET_TIMEOUT,
	OPTION_TLS
};

/*
 * Bounds of a chunk.  Redis executes it without serving others meanwhile, so
 * it is about a millisecond's work.  A transaction that is larger than
 * client-query-buffer-limit (never below 1 MB) makes Redis drop the
 * connection, so stay clear of that: only a single message may be larger.
 */
#define CHUNK_EVENTS	500
#define CHUNK_BYTES		(512 * 1024)

/* How much of an error text of Redis is kept. */
#define REPLY_TEXT_BYTES 1024

/* redis_chunk.c */

typedef struct RedisEntry
{
	DispatchMessage *message;
	bool		refused;		/* not in data: error says why */
	bool		answered;
	char	   *error;			/* malloc'ed; NULL if none */
} RedisEntry;

typedef struct RedisArgument RedisArgument;

typedef struct RedisChunk
{
	MemoryContext context;
	MemoryContextCallback callback; /* frees the errors */
	bool		pubsub;			/* PUBLISH instead of XADD */
	bool		transaction;	/* inside MULTI and EXEC */
	int			nrefused;
	int			nreplies;		/* seen so far */
	int			count;			/* 0: nothing collected, nothing in flight */
	char	   *data;			/* the commands, with room before and after */
	size_t		size;			/* allocated */
	size_t		start;			/* what to write: [start, end) */
	size_t		end;
	RedisArgument *arguments;	/* of the command being made */
	int			narguments;
	int			max_arguments;
	RedisEntry	entries[CHUNK_EVENTS];
} RedisChunk;

/* What next to expect from Redis for a chunk in flight. */
typedef enum RedisExpected
{
	EXPECT_MULTI,
	EXPECT_QUEUED,
	EXPECT_OUTCOME				/* the last reply: to EXEC or to the command */
} RedisExpected;

extern RedisChunk *redis_chunk_create(MemoryContext context, bool pubsub);
extern bool redis_chunk_add(RedisChunk *chunk, DispatchMessage *message);
extern void redis_chunk_seal(RedisChunk *chunk, DispatchHost *host);
extern void redis_chunk_deliver(RedisChunk *chunk, DispatchHost *host);
extern int	redis_chunk_least_reply(const RedisChunk *chunk);
extern RedisExpected redis_chunk_expects(const RedisChunk *chunk);
extern bool redis_chunk_error(RedisChunk *chunk, int entry,
							  const char *text, size_t len);
extern void redis_chunk_reset(RedisChunk *chunk);

/* redis_reply.c */

typedef enum RedisReplyKind
{
	REPLY_STATUS,
	REPLY_ERROR,
	REPLY_STRING,
	REPLY_INTEGER,
	REPLY_ARRAY,				/* of as many elements as were expected */
	REPLY_OTHER
} RedisReplyKind;

typedef struct RedisReply
{
	RedisReplyKind kind;
	size_t		len;			/* of text; it may have been longer */
	char		text[REPLY_TEXT_BYTES + 1]; /* status, error, string */
} RedisReply;

typedef struct RedisReader RedisReader;

extern RedisReader *redis_reader_create(MemoryContext context);
extern bool redis_reader_feed(RedisReader *reader, const char *data,
							  size_t len);
extern const RedisReply *redis_reader_next(RedisReader *reader,
										   RedisChunk *chunk);
extern const char *redis_reader_error(RedisReader *reader);
extern bool redis_reply_delivers(bool pubsub, RedisReplyKind kind,
								 const char *text, size_t len);
extern bool redis_reply_is(const RedisReply *reply, RedisReplyKind kind,
						   const char *text);
extern DispatchErrorClass redis_error_class(const char *text,
											DispatchErrorClass fallback);

/* redis_settle.c */

typedef enum RedisSettled
{
	SETTLED_LOST,				/* the connection, after explain() */
	SETTLED_NOT_YET,			/* or all that there was to it is done */
	SETTLED_DELIVERED			/* all of the chunk; not reported yet */
} RedisSettled;

extern RedisSettled redis_settle(DispatchHost *host, RedisChunk *flight,
								 RedisChunk *next, const RedisReply *reply);
extern bool redis_fatal(DispatchErrorClass error_class);
extern bool redis_lost(DispatchHost *host, DispatchErrorClass error_class,
					   const char *format,...) pg_attribute_printf(3, 4);

/* redis_handshake.c */

typedef enum RedisStep
{
	STEP_AUTH,
	STEP_SELECT,
	STEP_PING,
	STEP_MULTI,
	STEP_EXEC
} RedisStep;

typedef struct RedisHandshake
{
	StringInfoData output;		/* all commands, to be written at once */
	int			nreplies;		/* seen so far */
	int			nsteps;
	RedisStep	steps[STEP_EXEC + 1];	/* those that are taken */
} RedisHandshake;

extern RedisHandshake *redis_handshake_create(const DispatchValue *options);
extern bool redis_handshake_done(const RedisHandshake *handshake);
extern bool redis_handshake_reply(DispatchHost *host,
								  RedisHandshake *handshake,
								  const RedisReply *reply);

/* redis_connection.c */

typedef struct RedisConnection RedisConnection;

extern RedisConnection *redis_connection_create(DispatchHost *host,
												const DispatchValue *options);
extern bool redis_connection_send(void *connection, DispatchMessage *message);
extern DispatchState redis_connection_pump(void *connection,
										   DispatchWait *wait);

#endif							/* DISPATCH_REDIS_H */
