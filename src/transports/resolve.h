/*-------------------------------------------------------------------------
 *
 * resolve.h
 *	  Name resolution that never blocks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_RESOLVE_H
#define DISPATCH_RESOLVE_H

#include <netdb.h>

#include "utils/palloc.h"

/* How soon to ask again, in milliseconds: there is no descriptor to wait for. */
#define RESOLVE_POLL_MS 10

typedef enum ResolveState
{
	RESOLVE_PENDING,
	RESOLVE_DONE,
	RESOLVE_FAILED
} ResolveState;

typedef struct Resolver Resolver;

/*
 * Starts to resolve a host name, or a numeric address, to stream sockets.
 * The resolver and its addresses live as long as the memory context.  Never
 * fails by itself: resolve_poll() tells.
 */
extern Resolver *resolve_start(MemoryContext context, const char *host,
							   int port);

/*
 * Never waits.  RESOLVE_DONE sets *addresses (at least one), RESOLVE_FAILED
 * sets *error to a static text; to be called until it is not RESOLVE_PENDING.
 */
extern ResolveState resolve_poll(Resolver *resolver,
								 const struct addrinfo **addresses,
								 const char **error);

#endif							/* DISPATCH_RESOLVE_H */
