/*-------------------------------------------------------------------------
 *
 * resolve.c
 *	  Name resolution that never blocks.
 *
 * getaddrinfo() may take a minute when a name server does not answer, and
 * cannot be interrupted: a worker inside it would ignore a shutdown.  So names
 * go to getaddrinfo_a() of the C library (glibc), which asks in a thread of
 * its own, with all signals blocked there, and is polled here.  The thread
 * runs no code of PostgreSQL.
 *
 * A question that a thread is working on cannot be taken back: the thread
 * writes its answer into the request whenever it comes.  That is why requests
 * are malloc'ed instead of living in a memory context, and why one that is
 * given up while it runs goes to a list.  From there it is freed once it has
 * ended, or taken up again by the next attempt to resolve the same name.  So
 * a dead name server costs one thread a name, however often we reconnect, and
 * a slow one gets as long as it needs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>

#include "port/atomics.h"

#include "resolve.h"

typedef struct ResolveRequest
{
	struct ResolveRequest *next;	/* in the list of abandoned requests */
	struct gaicb query;			/* the C library's; also holds the answer */
	struct addrinfo hints;
	char		service[12];
	char		host[FLEXIBLE_ARRAY_MEMBER];
} ResolveRequest;

struct Resolver
{
	MemoryContextCallback callback;
	ResolveRequest *request;	/* NULL: there was no memory for it */
	int			result;			/* EAI_INPROGRESS while it runs */
};

/* Given up while a thread was working on them. */
static ResolveRequest *abandoned = NULL;

static ResolveRequest *
request_create(const char *host, const char *service)
{
	ResolveRequest *request;
	size_t		host_size = strlen(host) + 1;

	request = calloc(1, offsetof(ResolveRequest, host) + host_size);
	if (request == NULL)
		return NULL;
	memcpy(request->host, host, host_size);
	strlcpy(request->service, service, sizeof(request->service));
	request->hints.ai_family = AF_UNSPEC;
	request->hints.ai_socktype = SOCK_STREAM;
	request->hints.ai_flags = AI_NUMERICSERV;
	request->query.ar_name = request->host;
	request->query.ar_service = request->service;
	request->query.ar_request = &request->hints;
	return request;
}

static void
request_free(ResolveRequest *request)
{
	if (request->query.ar_result != NULL)
		freeaddrinfo(request->query.ar_result);
	free(request);
}

/*
 * Starts the request, and returns EAI_INPROGRESS, or its result.
 */
static int
request_start(ResolveRequest *request)
{
	struct gaicb *list[1] = {&request->query};
	int			result;

	/* A numeric address asks no server, so it needs no thread. */
	request->hints.ai_flags |= AI_NUMERICHOST;
	result = getaddrinfo(request->host, request->service, &request->hints,
						 &request->query.ar_result);
	if (result == 0)
		return 0;
	request->hints.ai_flags &= ~AI_NUMERICHOST;
	request->query.ar_result = NULL;

	result = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
	return result == 0 ? EAI_INPROGRESS : result;
}

/*
 * Frees what has ended of the abandoned requests, and takes the one for this
 * name out of the list, if it is still running.
 */
static ResolveRequest *
abandoned_take(const char *host, const char *service)
{
	ResolveRequest **link = &abandoned;
	ResolveRequest *found = NULL;

	while (*link != NULL)
	{
		ResolveRequest *request = *link;

		if (gai_error(&request->query) != EAI_INPROGRESS)
		{
			pg_read_barrier();
			*link = request->next;
			request_free(request);
		}
		else if (found == NULL && strcmp(request->host, host) == 0 &&
				 strcmp(request->service, service) == 0)
		{
			*link = request->next;
			found = request;
		}
		else
			link = &request->next;
	}
	return found;
}

/*
 * Called when the memory context of the resolver goes.
 */
static void
resolver_release(void *arg)
{
	Resolver   *resolver = arg;
	ResolveRequest *request = resolver->request;

	if (request == NULL)
		return;
	resolver->request = NULL;
	if (resolver->result == EAI_INPROGRESS &&
		gai_cancel(&request->query) == EAI_NOTCANCELED)
	{
		request->next = abandoned;
		abandoned = request;
	}
	else
		request_free(request);
}

Resolver *
resolve_start(MemoryContext context, const char *host, int port)
{
	Resolver   *resolver = MemoryContextAllocZero(context, sizeof(Resolver));
	char		service[12];

	resolver->callback.func = resolver_release;
	resolver->callback.arg = resolver;
	MemoryContextRegisterResetCallback(context, &resolver->callback);

	snprintf(service, sizeof(service), "%d", port);
	resolver->result = EAI_INPROGRESS;
	resolver->request = abandoned_take(host, service);
	if (resolver->request == NULL)
	{
		resolver->result = EAI_MEMORY;
		resolver->request = request_create(host, service);
		if (resolver->request != NULL)
			resolver->result = request_start(resolver->request);
	}
	return resolver;
}

ResolveState
resolve_poll(Resolver *resolver, const struct addrinfo **addresses,
			 const char **error)
{
	if (resolver->result == EAI_INPROGRESS)
		resolver->result = gai_error(&resolver->request->query);
	if (resolver->result == EAI_INPROGRESS)
		return RESOLVE_PENDING;
	if (resolver->result != 0)
	{
		*error = gai_strerror(resolver->result);
		return RESOLVE_FAILED;
	}

	/* The thread set the addresses first, and the result after them. */
	pg_read_barrier();
	*addresses = resolver->request->query.ar_result;
	return RESOLVE_DONE;
}
