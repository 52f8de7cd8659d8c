/*-------------------------------------------------------------------------
 *
 * redis_settle.c
 *	  From the replies of Redis to the outcomes of messages.
 *
 * Replies are matched strictly, one by one, to what was sent: OK to MULTI,
 * QUEUED or an error to each command, and an array to EXEC with an entry id (or
 * a number of receivers) or an error for each.  Anything else means that we and
 * Redis no longer speak of the same command, so the connection is lost, and
 * no message is credited.
 *
 * When Redis refused a command at the door it drops the transaction, whole.
 * Then the messages to blame have failed, and the others go back to the core;
 * so do those collected for the next chunk, which would overtake them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "redis.h"

/*
 * Explains the loss of the connection; returns false for the convenience of
 * the callers.
 */
bool
redis_lost(DispatchHost *host, DispatchErrorClass error_class,
		   const char *format,...)
{
	char		text[2 * REPLY_TEXT_BYTES];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	host->explain(host, error_class, text);
	return false;
}

/*
 * Whether an error of this class is about Redis as a whole, not about an
 * event or its stream.
 */
bool
redis_fatal(DispatchErrorClass error_class)
{
	switch (error_class)
	{
		case DISPATCH_OUTAGE:
		case DISPATCH_BACKPRESSURE:
		case DISPATCH_CONFIGURATION:
		case DISPATCH_CULPRIT_UNKNOWN:
			return true;
		case DISPATCH_DESTINATION:
		case DISPATCH_EVENT_FAILED:
		case DISPATCH_EVENT_REJECTED:
			break;
	}
	return false;
}

/*
 * The connection is lost because of a reply that is not the one expected.
 */
static bool
settle_unexpected(DispatchHost *host, const char *command,
				  const RedisReply *reply)
{
	DispatchErrorClass error_class;

	if (reply->kind != REPLY_ERROR)
		return redis_lost(host, DISPATCH_OUTAGE,
						  "unexpected reply of Redis to %s", command);

	error_class = redis_error_class(reply->text, DISPATCH_OUTAGE);
	if (!redis_fatal(error_class))
		error_class = DISPATCH_OUTAGE;
	return redis_lost(host, error_class, "Redis refused %s: %s", command,
					  reply->text);
}

/*
 * Redis could not read a command, because of the size of an argument in
 * practice, and closes the connection; of a transaction nothing was executed.
 */
static bool
settle_protocol_error(DispatchHost *host, RedisChunk *flight,
					  const char *text)
{
	if (flight->count > 1)
		return redis_lost(host, DISPATCH_CULPRIT_UNKNOWN, "%s", text);

	host->failed(host, flight->entries[0].message, DISPATCH_EVENT_REJECTED,
				 text);
	return redis_lost(host, DISPATCH_OUTAGE,
					  "Redis closes the connection: %s", text);
}

/*
 * The error of a command that is about Redis as a whole; NULL if there is
 * none.
 */
static const char *
settle_fatal_error(const RedisChunk *flight, DispatchErrorClass *error_class)
{
	for (int i = 0; i < flight->count; i++)
	{
		const char *error = flight->entries[i].error;

		if (error == NULL)
			continue;
		*error_class = redis_error_class(error, DISPATCH_EVENT_FAILED);
		if (redis_fatal(*error_class))
			return error;
	}
	return NULL;
}

static void
settle_return(DispatchHost *host, RedisChunk *chunk)
{
	for (int i = 0; i < chunk->count; i++)
		host->returned(host, chunk->entries[i].message);
	redis_chunk_reset(chunk);
}

/*
 * Every command was executed, each with a result or an error of its own.  What
 * was collected for the next chunk goes back to the core if any has failed: it
 * may have to wait behind that now.
 */
static RedisSettled
settle_executed(DispatchHost *host, RedisChunk *flight, RedisChunk *next)
{
	const char *fatal;
	DispatchErrorClass fatal_class;
	int			nfailed = 0;

	for (int i = 0; i < flight->count; i++)
	{
		if (!flight->entries[i].answered)
		{
			redis_lost(host, DISPATCH_OUTAGE, "unexpected reply of Redis to a command");
			return SETTLED_LOST;
		}
		nfailed += flight->entries[i].error != NULL;
	}
	if (nfailed == 0)
		return SETTLED_DELIVERED;

	for (int i = 0; i < flight->count; i++)
	{
		RedisEntry *entry = &flight->entries[i];
		DispatchErrorClass error_class;

		if (entry->error == NULL)
		{
			host->delivered(host, entry->message);
			continue;
		}
		error_class = redis_error_class(entry->error, DISPATCH_EVENT_FAILED);
		if (!redis_fatal(error_class))
			host->failed(host, entry->message, error_class, entry->error);
	}

	fatal = settle_fatal_error(flight, &fatal_class);
	if (fatal != NULL)
	{
		redis_lost(host, fatal_class, "%s", fatal);
		return SETTLED_LOST;
	}
	redis_chunk_reset(flight);
	settle_return(host, next);
	return SETTLED_NOT_YET;
}

/*
 * EXEC was refused, so no command was executed.
 */
static bool
settle_aborted(DispatchHost *host, RedisChunk *flight, RedisChunk *next,
			   const char *text)
{
	const char *fatal;
	const char *cause;
	DispatchErrorClass error_class;
	int			nculprits = 0;

	fatal = settle_fatal_error(flight, &error_class);
	if (fatal != NULL)
		return redis_lost(host, error_class, "%s", fatal);

	for (int i = 0; i < flight->count; i++)
	{
		if (flight->entries[i].error != NULL)
			nculprits++;
	}
	if (nculprits == 0)
	{
		/* refused at EXEC itself, which repeats the error of that moment */
		cause = strstr(text, "because of: ");
		cause = cause == NULL ? text : cause + strlen("because of: ");
		error_class = redis_error_class(cause, DISPATCH_OUTAGE);
		if (!redis_fatal(error_class))
			error_class = DISPATCH_OUTAGE;
		return redis_lost(host, error_class, "%s", text);
	}

	for (int i = 0; i < flight->count; i++)
	{
		RedisEntry *entry = &flight->entries[i];

		if (entry->error == NULL)
			host->returned(host, entry->message);
		else
			host->failed(host, entry->message,
						 redis_error_class(entry->error, DISPATCH_EVENT_FAILED),
						 entry->error);
	}
	redis_chunk_reset(flight);
	settle_return(host, next);
	return true;
}

/* Out of memory for an error text: the message must not pass for delivered. */
static bool
settle_keep_error(DispatchHost *host, RedisChunk *flight, int entry,
				  const RedisReply *reply)
{
	if (redis_chunk_error(flight, entry, reply->text, reply->len))
		return true;
	return redis_lost(host, DISPATCH_OUTAGE, "out of memory");
}

/* MULTI has been answered, or one command of the transaction. */
static bool
settle_queued(DispatchHost *host, RedisChunk *flight, int entry, const RedisReply *reply)
{
	if (entry < 0)
		return redis_reply_is(reply, REPLY_STATUS, "OK") ||
			settle_unexpected(host, "MULTI", reply);
	if (redis_reply_is(reply, REPLY_STATUS, "QUEUED"))
		return true;
	if (reply->kind == REPLY_ERROR)
		return settle_keep_error(host, flight, entry, reply);
	return settle_unexpected(host, "a command", reply);
}

/*
 * Takes a reply for the chunk in flight.  With the last one its messages get
 * their outcomes, and the chunk is empty again; but when all are delivered, that
 * is left to the caller.
 */
RedisSettled
redis_settle(DispatchHost *host, RedisChunk *flight, RedisChunk *next,
			 const RedisReply *reply)
{
	RedisExpected expected = redis_chunk_expects(flight);
	int			entry = flight->nreplies++ - 1;
	RedisEntry *single = &flight->entries[0];
	bool		goes_on;

	if (reply->kind == REPLY_ERROR &&
		redis_error_class(reply->text, DISPATCH_EVENT_FAILED) == DISPATCH_CULPRIT_UNKNOWN)
		goes_on = settle_protocol_error(host, flight, reply->text);
	else if (expected != EXPECT_OUTCOME)
		goes_on = settle_queued(host, flight, expected == EXPECT_MULTI ? -1 : entry, reply);
	else if (!flight->transaction)
	{
		single->answered = reply->kind == REPLY_ERROR ||
			redis_reply_delivers(flight->pubsub, reply->kind, reply->text, reply->len);
		if (reply->kind != REPLY_ERROR || settle_keep_error(host, flight, 0, reply))
			return settle_executed(host, flight, next);
		goes_on = false;
	}
	else if (reply->kind == REPLY_ARRAY)
		return settle_executed(host, flight, next);
	else if (reply->kind == REPLY_ERROR)
		goes_on = settle_aborted(host, flight, next, reply->text);
	else
		goes_on = settle_unexpected(host, "EXEC", reply);
	return goes_on ? SETTLED_NOT_YET : SETTLED_LOST;
}
