/*-------------------------------------------------------------------------
 *
 * connect.h
 *	  Connecting to the first of some hosts that answers, without blocking.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_CONNECT_H
#define DISPATCH_CONNECT_H

#include "dispatch_transport.h"

typedef enum ConnectState
{
	CONNECT_PENDING,
	CONNECT_DONE,
	CONNECT_FAILED
} ConnectState;

#define CONNECT_MAX_HOSTS 32

typedef struct ConnectHost
{
	const char *name;
	int			port;
} ConnectHost;

typedef struct Connector Connector;

/* Monotonic, in milliseconds. */
extern int64 clock_ms(void);
extern int64 seconds_to_ms(double seconds);

/*
 * Takes a list of hosts apart, "name[:port], ..." with numeric IPv6 addresses
 * in brackets, into hosts[CONNECT_MAX_HOSTS].  Returns how many there are, or
 * 0 with *problem set to a full sentence.
 */
extern int	connect_parse_hosts(const char *list, int default_port,
								ConnectHost *hosts, const char **problem);

/*
 * Starts to connect.  The hosts are tried in turn, from the "first" one on
 * (counted from 0, modulo their number), each with its share of the time until
 * "deadline" (of clock_ms()).  The connector and its socket live as long as
 * the memory context.
 */
extern Connector *connect_start(MemoryContext context, const ConnectHost *hosts,
								int nhosts, unsigned int first, int64 deadline);

/*
 * Never waits; to be called until it is not CONNECT_PENDING, which fills in
 * what to wait for.  CONNECT_FAILED sets *error.
 */
extern ConnectState connect_poll(Connector *connector, int64 now,
								 DispatchWait *wait, const char **error);

/* The socket, non-blocking; the host it leads to, or is tried. */
extern int	connect_socket(const Connector *connector);
extern const char *connect_host(const Connector *connector);
extern int	connect_port(const Connector *connector);

/*
 * How long (ms; 0: for ever) the kernel lets sent bytes go unacknowledged, or a
 * peer keep its window shut, before it breaks the connection.
 */
extern void connect_set_patience(Connector *connector, int64 ms);

#endif							/* DISPATCH_CONNECT_H */
