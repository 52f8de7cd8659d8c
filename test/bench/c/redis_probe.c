/*
 * redis_probe: what it takes from a clock to a reader of a Redis stream.
 *
 * The reader waits for entries of a stream and prints in the end, for each, how
 * many microseconds ago its field "timestamp" was: the time at which publish()
 * was called, or at which the writer was about to send it.  (In the end: nobody
 * may read its output before, and a full pipe would hold it up.)  The writer adds the
 * entries that a worker adds, at a steady pace, with nothing in between: no
 * reader can see anything earlier.  Both and the server read the same clock.
 *
 * usage: redis_probe read <port> <stream> <seconds>
 *		  redis_probe write <port> <stream> <seconds> <entries a second> <body>
 *
 * The reader says "ready" on its standard error once it waits.
 */
#define _GNU_SOURCE

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <hiredis.h>

#define MICROSECONDS 1000000L
#define READ "XREAD COUNT 1000 BLOCK 100 STREAMS %s %s"
#define ADD "XADD %s * event_id " EVENT_ID " event_type order.created source shop" \
	" timestamp %s cloud_event %s"
#define EVENT_ID "019aa4be-0000-7000-8000-000000000000"

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "redis_probe: %s: %s\n", what, why);
	exit(1);
}

static long
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * MICROSECONDS + ts.tv_nsec / 1000;
}

/* Microseconds since 1970 of an RFC 3339 timestamp with six digits, UTC. */
static long
timestamp_us(const char *text)
{
	struct tm	tm = {0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (rest == NULL || *rest != '.')
		fail("timestamp", text);
	return timegm(&tm) * MICROSECONDS + strtol(rest + 1, NULL, 10);
}

static void *
must_reply(redisContext *redis, void *reply)
{
	if (reply == NULL)
		fail("redis", redis->errstr);
	if (((redisReply *) reply)->type == REDIS_REPLY_ERROR)
		fail("redis", ((redisReply *) reply)->str);
	return reply;
}

/* The value of a field of an entry, which has names and values in turn. */
static const char *
field_of(const redisReply *pairs, const char *name)
{
	for (size_t i = 0; i + 1 < pairs->elements; i += 2)
		if (strcmp(pairs->element[i]->str, name) == 0)
			return pairs->element[i + 1]->str;
	fail("no such field", name);
	return NULL;
}

/* Adds a number to an array of them, which grows. */
static long *
append(long *numbers, size_t count, long number)
{
	/* full whenever the count is a power of two */
	if ((count & (count - 1)) == 0)
		numbers = realloc(numbers, (count > 0 ? 2 * count : 1) * sizeof(long));
	if (numbers == NULL)
		fail("memory", "there is none left");
	numbers[count] = number;
	return numbers;
}

static void
read_stream(redisContext *redis, const char *stream, double seconds)
{
	long		deadline = now_us() + (long) (seconds * MICROSECONDS);
	char		last[64] = "$";
	long	   *ages = NULL;
	size_t		count = 0;

	fprintf(stderr, "ready\n");
	while (now_us() < deadline)
	{
		redisReply *reply = redisCommand(redis, READ, stream, last);
		long		now = now_us();

		must_reply(redis, reply);
		if (reply->type == REDIS_REPLY_ARRAY)
		{
			redisReply *entries = reply->element[0]->element[1];

			for (size_t i = 0; i < entries->elements; i++)
			{
				redisReply *entry = entries->element[i];

				ages = append(ages, count++,
							  now - timestamp_us(field_of(entry->element[1], "timestamp")));
				snprintf(last, sizeof(last), "%s", entry->element[0]->str);
			}
		}
		freeReplyObject(reply);
	}
	for (size_t i = 0; i < count; i++)
		printf("%ld\n", ages[i]);
	free(ages);
}

static void
write_stream(redisContext *redis, const char *stream, double seconds, double rate,
			 const char *body)
{
	long		start = now_us();
	long		count = (long) (seconds * rate);

	for (long i = 0; i < count; i++)
	{
		long		due = start + (long) (i / rate * MICROSECONDS);
		long		now = now_us();
		time_t		second;
		struct tm	tm;
		char		timestamp[64];
		size_t		length;

		if (due > now)
		{
			usleep(due - now);
			now = now_us();
		}
		second = now / MICROSECONDS;
		gmtime_r(&second, &tm);
		length = strftime(timestamp, sizeof(timestamp), "%Y-%m-%dT%H:%M:%S", &tm);
		snprintf(timestamp + length, sizeof(timestamp) - length, ".%06ld+00:00",
				 now % MICROSECONDS);
		freeReplyObject(must_reply(redis, redisCommand(redis, ADD, stream, timestamp, body)));
	}
}

int
main(int argc, char **argv)
{
	redisContext *redis;

	if (argc < 5)
		fail("usage", "redis_probe read|write <port> <stream> <seconds> ...");
	redis = redisConnect("127.0.0.1", atoi(argv[2]));
	if (redis == NULL || redis->err)
		fail("connect", redis ? redis->errstr : "out of memory");

	if (strcmp(argv[1], "read") == 0)
		read_stream(redis, argv[3], atof(argv[4]));
	else if (strcmp(argv[1], "write") == 0 && argc == 7)
		write_stream(redis, argv[3], atof(argv[4]), atof(argv[5]), argv[6]);
	else
		fail("usage", argv[1]);
	redisFree(redis);
	return 0;
}
