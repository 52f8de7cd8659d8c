/*-------------------------------------------------------------------------
 *
 * kafka_resolve.c
 *	  Name resolution that ends when the producer does.
 *
 * librdkafka resolves the names of brokers in its threads, with getaddrinfo(),
 * which may take a minute when a name server does not answer.  To destroy a
 * producer is to wait for its threads, and so a stop of the server would wait
 * for the name server.  Here the question goes to getaddrinfo_a() of the C
 * library, in a thread of its own, and is given up once the producer is to end.
 *
 * This runs in the threads of librdkafka: nothing of PostgreSQL may be used.
 *
 * A question that a thread of the C library is working on cannot be taken back:
 * its memory is left to it, and lost.  That is about 300 bytes whenever a
 * producer ends while a name server does not answer.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>
#include <time.h>

#include "kafka.h"

/* How often to look whether to go on (ns). */
#define LOOK_NS 50000000

/* Then the name server will not answer any more (s). */
#define GIVE_UP_S 30

typedef struct Question
{
	struct gaicb query;
	struct addrinfo hints;
	char	   *node;
	char	   *service;
} Question;

static void
question_free(Question *question)
{
	free(question->node);
	free(question->service);
	free(question);
}

static Question *
question_create(const char *node, const char *service, const struct addrinfo *hints)
{
	Question   *question = calloc(1, sizeof(Question));

	if (question == NULL)
		return NULL;
	question->node = strdup(node);
	question->service = strdup(service);
	question->hints = *hints;
	if (question->node == NULL || question->service == NULL)
	{
		question_free(question);
		return NULL;
	}
	question->query.ar_name = question->node;
	question->query.ar_service = question->service;
	question->query.ar_request = &question->hints;
	return question;
}

/* Returns the result of getaddrinfo(); EAI_INPROGRESS: it was given up. */
static int
question_wait(Question *question, int *stopping)
{
	const struct timespec look = {0, LOOK_NS};
	const struct gaicb *list[1] = {&question->query};
	time_t		start = time(NULL);
	int			result;

	while ((result = gai_error(&question->query)) == EAI_INPROGRESS)
	{
		if (__atomic_load_n(stopping, __ATOMIC_SEQ_CST) || time(NULL) - start > GIVE_UP_S)
			return gai_cancel(&question->query) == EAI_NOTCANCELED ? EAI_INPROGRESS : EAI_AGAIN;
		(void) gai_suspend(list, 1, &look);
	}
	return result;
}

static int
ask(const char *node, const char *service, const struct addrinfo *hints,
	struct addrinfo **result, int *stopping)
{
	Question   *question = question_create(node, service, hints);
	struct gaicb *list[1];
	int			error;

	if (question == NULL)
		return EAI_MEMORY;
	list[0] = &question->query;
	error = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
	if (error == 0)
		error = question_wait(question, stopping);
	if (error == EAI_INPROGRESS)
		return EAI_AGAIN;
	*result = question->query.ar_result;
	question_free(question);
	return error;
}

int
kafka_resolve(const char *node, const char *service, const struct addrinfo *hints,
			  struct addrinfo **result, void *stopping)
{
	struct addrinfo numeric;

	if (node == NULL)
	{
		/* librdkafka's way to say that it has done with a result */
		freeaddrinfo(*result);
		return 0;
	}

	/* A numeric address asks no server, so it needs no thread. */
	numeric = *hints;
	numeric.ai_flags |= AI_NUMERICHOST;
	if (getaddrinfo(node, service, &numeric, result) == 0)
		return 0;
	return ask(node, service, hints, result, stopping);
}
