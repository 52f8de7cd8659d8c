/*-------------------------------------------------------------------------
 *
 * redis_handshake.c
 *	  What is said to Redis before the first message: who we are, and whether
 *	  it is able and willing.
 *
 * All commands go out in one piece, and every reply is checked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "redis.h"

static const struct
{
	const char *command;
	RedisReplyKind kind;
	const char *text;
}			steps[] = {
	[STEP_AUTH] = {"AUTH", REPLY_STATUS, "OK"},
	[STEP_SELECT] = {"SELECT", REPLY_STATUS, "OK"},
	/* tells a server that is loading, or unable to write, from a healthy one */
	[STEP_PING] = {"PING", REPLY_STATUS, "PONG"},

	/*
	 * A user who may not run MULTI must be found out here: Redis would execute
	 * the commands of a chunk after it had refused MULTI, at every attempt.
	 */
	[STEP_MULTI] = {"MULTI", REPLY_STATUS, "OK"},
	[STEP_EXEC] = {"EXEC", REPLY_ARRAY, ""}
};

static void
handshake_add(RedisHandshake *handshake, RedisStep step, int narguments,
			  const char *const *arguments)
{
	StringInfo	out = &handshake->output;
	const char *command = steps[step].command;

	handshake->steps[handshake->nsteps++] = step;
	appendStringInfo(out, "*%d\r\n$%zu\r\n%s\r\n", narguments + 1,
					 strlen(command), command);
	for (int i = 0; i < narguments; i++)
		appendStringInfo(out, "$%zu\r\n%s\r\n", strlen(arguments[i]),
						 arguments[i]);
}

/*
 * Writes down all commands of the handshake, in the current memory context.
 */
RedisHandshake *
redis_handshake_create(const DispatchValue *options)
{
	RedisHandshake *handshake = palloc0(sizeof(RedisHandshake));
	const DispatchValue *username = &options[OPTION_USERNAME];
	const DispatchValue *password = &options[OPTION_PASSWORD];
	const char *secret = password->is_set ? password->text : "";
	int64		db = options[OPTION_DB].integer;

	initStringInfo(&handshake->output);
	if (username->is_set && username->text[0] != '\0')
		/* a user without a password (nopass) takes any */
		handshake_add(handshake, STEP_AUTH, 2,
					  (const char *[]) {username->text, secret});
	else if (secret[0] != '\0')
		handshake_add(handshake, STEP_AUTH, 1, &secret);
	if (db != 0)
	{
		char		digits[32];
		const char *argument = digits;

		snprintf(digits, sizeof(digits), INT64_FORMAT, db);
		handshake_add(handshake, STEP_SELECT, 1, &argument);
	}
	handshake_add(handshake, STEP_PING, 0, NULL);
	handshake_add(handshake, STEP_MULTI, 0, NULL);
	handshake_add(handshake, STEP_EXEC, 0, NULL);
	return handshake;
}

bool
redis_handshake_done(const RedisHandshake *handshake)
{
	return handshake->nreplies == handshake->nsteps;
}

/*
 * Whether the error text could repeat the password: servers do that with the
 * arguments of a command that they do not know.  So only texts that we know
 * are passed on.
 */
static bool
may_show_secret(const char *text)
{
	const char *unknown = "ERR unknown command";

	return strncmp(text, unknown, strlen(unknown)) == 0 ||
		redis_error_class(text, DISPATCH_EVENT_FAILED) == DISPATCH_EVENT_FAILED;
}

/*
 * Takes the next reply.  False, after explain(), when the connection is lost.
 */
bool
redis_handshake_reply(DispatchHost *host, RedisHandshake *handshake,
					  const RedisReply *reply)
{
	RedisStep	step = handshake->steps[handshake->nreplies++];
	const char *command = steps[step].command;
	DispatchErrorClass error_class;

	if (redis_reply_is(reply, steps[step].kind, steps[step].text))
		return true;
	if (reply->kind != REPLY_ERROR)
		return redis_lost(host, DISPATCH_CONFIGURATION,
						  "unexpected reply to %s: is it Redis that listens "
						  "there?", command);

	if (step == STEP_AUTH && may_show_secret(reply->text))
		return redis_lost(host, DISPATCH_CONFIGURATION,
						  "Redis refused AUTH for another reason than a wrong "
						  "password");

	error_class = redis_error_class(reply->text, DISPATCH_CONFIGURATION);
	if (!redis_fatal(error_class) || error_class == DISPATCH_CULPRIT_UNKNOWN)
		error_class = DISPATCH_CONFIGURATION;
	return redis_lost(host, error_class, "Redis refused %s: %s",
					  command, reply->text);
}
