/*-------------------------------------------------------------------------
 *
 * connect.c
 *	  Connecting to the first of some hosts that answers, without blocking.
 *
 * A host that is away in the worst way, by swallowing what is sent to it, must
 * leave time for the others: each host gets its share of what is left until
 * the deadline, and each of its addresses a share of that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "storage/fd.h"
#include "storage/latch.h"

#include "connect.h"
#include "resolve.h"

#define MAX_HOST_NAME 255

struct Connector
{
	MemoryContext context;
	MemoryContextCallback callback; /* closes the socket */
	ConnectHost hosts[CONNECT_MAX_HOSTS];
	int			nhosts;
	int			current;		/* index in hosts[] */
	int			nleft;			/* hosts to be tried, this one included */
	int64		deadline;		/* milliseconds, as are all of these: */
	int64		host_deadline;	/* for this host */
	int64		address_deadline;	/* for this address */

	Resolver   *resolver;		/* NULL: not asked for this host yet */
	const struct addrinfo *address; /* this one; NULL: not resolved yet */
	int			naddresses;		/* yet to be tried, this one included */
	int			fd;				/* -1: none */
};

int64
clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64
seconds_to_ms(double seconds)
{
	return (int64) (seconds * 1000 + 0.5);
}

/* ------------------------------------------------------------------------
 * The list of hosts
 * ------------------------------------------------------------------------
 */

/*
 * Takes the port off the end of an entry, which is terminated; false if it is
 * not one.
 */
static bool
split_port(char *name, int *port)
{
	char	   *colon = strrchr(name, ':');
	char	   *end;
	long		number;

	if (*name == '[')
	{
		char	   *bracket = strchr(name, ']');

		if (bracket == NULL || (bracket[1] != ':' && bracket[1] != '\0'))
			return false;
		colon = bracket[1] == ':' ? bracket + 1 : NULL;
		*bracket = '\0';
		memmove(name, name + 1, bracket - name);
	}
	else if (colon != NULL && strchr(name, ':') != colon)
		return true;			/* a bare IPv6 address */
	if (colon == NULL)
		return true;
	number = strtol(colon + 1, &end, 10);
	if (end == colon + 1 || *end != '\0' || number < 1 || number > 65535)
		return false;
	*colon = '\0';
	*port = (int) number;
	return true;
}

int
connect_parse_hosts(const char *list, int default_port, ConnectHost *hosts,
					const char **problem)
{
	int			count = 0;

	for (const char *at = list;;)
	{
		size_t		len;
		char	   *name;

		at += strspn(at, " ");
		len = strcspn(at, ",");
		name = pnstrdup(at, len);
		for (size_t i = strlen(name); i > 0 && name[i - 1] == ' '; i--)
			name[i - 1] = '\0';
		if (count == CONNECT_MAX_HOSTS)
		{
			*problem = "It names more than 32 hosts.";
			return 0;
		}
		hosts[count].name = name;
		hosts[count].port = default_port;
		if (!split_port(name, &hosts[count].port))
		{
			*problem = "What follows the name of a host must be a port from 1 to 65535.";
			return 0;
		}
		if (*name == '\0' || strlen(name) > MAX_HOST_NAME ||
			strpbrk(name, " /@?#[]") != NULL)
		{
			*problem = "It must be a host name or a numeric address, or several with commas between.";
			return 0;
		}
		count++;
		at += len;
		if (*at++ == '\0')
			return count;
	}
}

/* ------------------------------------------------------------------------
 * Sockets
 * ------------------------------------------------------------------------
 */

/* Also called when the memory context of the connector goes. */
static void
socket_close(void *arg)
{
	Connector  *connector = arg;

	if (connector->fd < 0)
		return;
	close(connector->fd);
	connector->fd = -1;
	ReleaseExternalFD();
}

static void
socket_set(Connector *connector, int level, int option, int value)
{
	(void) setsockopt(connector->fd, level, option, &value, sizeof(value));
}

/* Opens a socket for the address.  False, with errno set, if that fails. */
static bool
socket_open(Connector *connector)
{
	if (!AcquireExternalFD())
		return false;
	connector->fd = socket(connector->address->ai_family,
						   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connector->fd < 0)
	{
		int			save_errno = errno;

		ReleaseExternalFD();
		errno = save_errno;
		return false;
	}

	/*
	 * Notice a host that vanished when there is nothing to send.  Failures
	 * are ignored: the timeouts of transports do not depend on these.
	 */
	socket_set(connector, SOL_SOCKET, SO_KEEPALIVE, 1);
	socket_set(connector, IPPROTO_TCP, TCP_KEEPIDLE, 30);
	socket_set(connector, IPPROTO_TCP, TCP_KEEPINTVL, 10);
	socket_set(connector, IPPROTO_TCP, TCP_KEEPCNT, 3);
	socket_set(connector, IPPROTO_TCP, TCP_NODELAY, 1);
	return true;
}

void
connect_set_patience(Connector *connector, int64 ms)
{
	socket_set(connector, IPPROTO_TCP, TCP_USER_TIMEOUT, (int) Min(ms, PG_INT32_MAX));
}

/* ------------------------------------------------------------------------
 * Connecting
 * ------------------------------------------------------------------------
 */

Connector *
connect_start(MemoryContext context, const ConnectHost *hosts, int nhosts,
			  unsigned int first, int64 deadline)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);
	Connector  *connector = palloc0(sizeof(Connector));

	connector->context = context;
	connector->fd = -1;
	connector->deadline = deadline;
	connector->callback.func = socket_close;
	connector->callback.arg = connector;
	MemoryContextRegisterResetCallback(context, &connector->callback);
	for (int i = 0; i < nhosts; i++)
		connector->hosts[i] = (ConnectHost) {pstrdup(hosts[i].name), hosts[i].port};
	connector->nhosts = connector->nleft = nhosts;
	connector->current = first % nhosts;
	MemoryContextSwitchTo(old_context);
	return connector;
}

static const char *
describe_failure(const Connector *connector, const char *reason)
{
	return psprintf("could not connect to host \"%s\", port %d: %s",
					connect_host(connector), connect_port(connector), reason);
}

/* Resolves the name of this host; *error is set when that failed. */
static bool
resolve_host(Connector *connector, int64 now, const char **error)
{
	const char *reason = "timeout expired";

	if (connector->resolver == NULL)
	{
		int64		left = Max(connector->deadline - now, 0);

		connector->host_deadline = now + left / connector->nleft;
		connector->resolver = resolve_start(connector->context,
											connect_host(connector),
											connect_port(connector));
	}
	switch (resolve_poll(connector->resolver, &connector->address, &reason))
	{
		case RESOLVE_DONE:
			connector->naddresses = 0;
			for (const struct addrinfo *a = connector->address; a; a = a->ai_next)
				connector->naddresses++;
			return true;
		case RESOLVE_FAILED:
			break;
		case RESOLVE_PENDING:
			if (now < connector->host_deadline)
				return false;
			break;
	}
	*error = psprintf("could not resolve host name \"%s\": %s",
					  connect_host(connector), reason);
	return false;
}

/* Tries the addresses of this host; *error is set when none is left. */
static bool
connect_addresses(Connector *connector, int64 now, const char **error)
{
	int			last_errno = ETIMEDOUT;

	for (; connector->address != NULL; connector->address = connector->address->ai_next)
	{
		if (connector->fd < 0 && socket_open(connector))
		{
			int64		left = Max(connector->host_deadline - now, 0);

			connector->address_deadline = now + left / connector->naddresses;
		}
		if (connector->fd >= 0)
		{
			/* called again, connect() says what became of the first call */
			if (connect(connector->fd, connector->address->ai_addr,
						connector->address->ai_addrlen) == 0 || errno == EISCONN)
				return true;
			if (errno == EINPROGRESS || errno == EALREADY || errno == EINTR)
			{
				if (now < connector->address_deadline)
					return false;
				errno = ETIMEDOUT;
			}
		}
		last_errno = errno;
		socket_close(connector);
		connector->naddresses--;
	}
	errno = last_errno;
	*error = describe_failure(connector, psprintf("%m"));
	return false;
}

ConnectState
connect_poll(Connector *connector, int64 now, DispatchWait *wait,
			 const char **error)
{
	MemoryContext old_context = MemoryContextSwitchTo(connector->context);
	ConnectState state = CONNECT_PENDING;

	while (state == CONNECT_PENDING)
	{
		*error = NULL;
		if ((connector->address != NULL || resolve_host(connector, now, error)) &&
			connect_addresses(connector, now, error))
			state = CONNECT_DONE;
		else if (*error == NULL)
			break;
		else if (--connector->nleft == 0)
			state = CONNECT_FAILED;
		else
		{
			connector->current = (connector->current + 1) % connector->nhosts;
			connector->resolver = NULL;
			connector->address = NULL;
		}
	}
	MemoryContextSwitchTo(old_context);

	wait->fd = connector->fd;
	wait->events = connector->fd < 0 ? 0 : WL_SOCKET_WRITEABLE;
	wait->timeout_ms = connector->fd < 0 ?
		RESOLVE_POLL_MS : Max(connector->address_deadline - now, 0);
	return state;
}

int
connect_socket(const Connector *connector)
{
	return connector->fd;
}

const char *
connect_host(const Connector *connector)
{
	return connector->hosts[connector->current].name;
}

int
connect_port(const Connector *connector)
{
	return connector->hosts[connector->current].port;
}
