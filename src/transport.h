/*-------------------------------------------------------------------------
 *
 * transport.h
 *	  Finding transports: those of the core, and modules in $libdir.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_SRC_TRANSPORT_H
#define DISPATCH_SRC_TRANSPORT_H

#include "nodes/pg_list.h"

#include "dispatch_transport.h"

/*
 * Returns the transport of that name, loading its module if need be.  Errors
 * (42704, with a hint that lists the transports that are there) when there is
 * none, 22023 when that can be no name, 42P17 when its module is no valid one,
 * and those of the server when it cannot be loaded.
 */
extern const DispatchTransport *transport_find(const char *name);

/* The names of all that are there, in order; modules are not loaded. */
extern List *transport_names(void);

/* Transports of the core: src/transports/notify.c, sql.c. */
extern const DispatchTransport *notify_transport(void);
extern const DispatchTransport *sql_transport(void);

#endif							/* DISPATCH_SRC_TRANSPORT_H */
