/*-------------------------------------------------------------------------
 *
 * dispatch_transport.h
 *	  The contract between the core of dispatch and a transport.
 *
 * A transport is a driver that moves events to one kind of broker.  It lives
 * in a module of its own, dispatch_<name>.so in $libdir, which exports one
 * function, dispatch_transport_init(), that returns its DispatchTransport:
 * a table of options and five callbacks.  The module is loaded by the worker
 * that serves a backend, and by sessions that configure, check or list
 * transports; never by a session that only publishes.
 *
 * Rules that keep events safe:
 *
 * - Only the core waits.  send() and pump() never block; pump() says what to
 *	 wait for.
 * - A message is delivered when the broker itself has said so for that very
 *	 message, and only then.
 * - Every message that send() took gets exactly one outcome (delivered,
 *	 failed or returned), unless the connection is lost: then the core itself
 *	 takes back all that has no outcome yet, closes the connection and sends
 *	 the same messages again later, in order.
 * - Never let a later message of a key overtake an earlier one because the
 *	 broker was away or full: report the connection lost instead.
 * - After a timeout or a protocol error the connection must not be used
 *	 again: a late reply would be credited to the wrong message.
 * - Callbacks run in the worker's main thread and may raise an error through
 *	 ereport(); the core treats that as a lost connection.  They run outside
 *	 of a transaction: nothing of the database can be looked at.  Callbacks of
 *	 foreign libraries must not, and threads of libraries must never call
 *	 into PostgreSQL.
 *
 * All texts of a message are UTF-8, whatever the encoding of the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_TRANSPORT_H
#define DISPATCH_TRANSPORT_H

#include "utils/palloc.h"

/* Raised whenever a struct below changes; the core refuses another number. */
#define DISPATCH_TRANSPORT_VERSION 1

/* ------------------------------------------------------------------------
 * Options
 * ------------------------------------------------------------------------
 */

typedef enum DispatchOptionType
{
	DISPATCH_BOOLEAN,
	DISPATCH_INTEGER,
	DISPATCH_NUMBER,			/* seconds and the like: may have a fraction */
	DISPATCH_TEXT,
	DISPATCH_ENUM,				/* one of choices[] */
	DISPATCH_TEMPLATE,			/* text with {placeholders}, rendered when sent */
	DISPATCH_SCALARS,			/* JSON object whose values are all scalars */
	DISPATCH_OBJECT,			/* JSON object of any shape, within bounds */
	DISPATCH_FUNCTION,			/* regprocedure */
	DISPATCH_TIME				/* seconds, an interval, or a point in time */
} DispatchOptionType;

/*
 * Bounds of a DISPATCH_OBJECT: levels, itself included; bytes of a name.  Below
 * its top, {"$timestamp": seconds since 1970} and {"$binary": "base64"} stand
 * for values that JSON has no type for.
 */
#define DISPATCH_OBJECT_DEPTH	32
#define DISPATCH_OBJECT_NAME	255

/* Where an option may be set, and what is special about it. */
#define DISPATCH_OF_BACKEND		0x01
#define DISPATCH_OF_EVENT		0x02
#define DISPATCH_REQUIRED		0x04	/* of a backend: no default, must be set */
#define DISPATCH_SECRET			0x08	/* kept in a table of its own, masked */
#define DISPATCH_NO_ADDRESS		0x10	/* a template that says nothing of where to */

/*
 * One row of a transport's option table, which ends with a row whose name is
 * NULL.  The same table drives validation, hints, transport_options() and the
 * documentation.
 */
typedef struct DispatchOption
{
	const char *name;
	DispatchOptionType type;
	int			flags;
	const char *default_value;	/* as text; NULL = none */
	double		min;			/* numbers: the range, both ends included; */
	double		max;			/* texts: the length in bytes; 0, 0 = any, but
								 * a template that renders to nothing */
	const char *const *choices; /* DISPATCH_ENUM: ends with NULL; DISPATCH_SCALARS
								 * and DISPATCH_OBJECT: members that must not be
								 * there ("ce_*": none that begins so) */
	const char *help;			/* one line */
} DispatchOption;

/*
 * The value of an option.  Values come in an array parallel to the option
 * table; where the user set nothing, the default has been filled in.
 */
typedef struct DispatchValue
{
	bool		is_set;			/* false: neither a value nor a default */
	bool		boolean;		/* DISPATCH_TIME: a point in time */
	int64		integer;		/* DISPATCH_TIME: that in ms since 1970 */
	double		number;			/* also set for DISPATCH_INTEGER; DISPATCH_TIME:
								 * the seconds, if no point in time */
	const char *text;			/* text, enum, rendered template, function; JSON
								 * text of DISPATCH_SCALARS and DISPATCH_OBJECT */
	int			text_len;
	int			npairs;			/* DISPATCH_SCALARS: its members as text */
	const struct DispatchPair *pairs;
} DispatchValue;

typedef struct DispatchPair
{
	const char *name;
	const char *value;			/* NULL = JSON null */
} DispatchPair;

/* ------------------------------------------------------------------------
 * Messages
 * ------------------------------------------------------------------------
 */

typedef enum DispatchEnvelope
{
	DISPATCH_CLOUDEVENTS,		/* structured CloudEvents JSON */
	DISPATCH_CLOUDEVENTS_BINARY,	/* data as the body, attributes beside it */
	DISPATCH_DISPYTCH,			/* {"id", "type", "body", "timestamp"} */
	DISPATCH_DATA				/* the data alone */
} DispatchEnvelope;

/*
 * An event as it is to be sent.  The core owns it, and keeps it unchanged
 * until its outcome was reported or the connection was closed.
 */
typedef struct DispatchMessage
{
	const char *event_id;		/* UUID as text, the same on every attempt */
	const char *event_type;
	const char *source;
	const char *subject;		/* NULL if none */
	const char *key;			/* NULL if none */
	const char *time;			/* RFC 3339, microseconds, +00:00 */
	int64		timestamp_ms;	/* the same, milliseconds since 1970 */

	DispatchEnvelope envelope;
	const char *content_type;	/* of the body */
	const char *body;			/* NULL: the event has no data to send */
	size_t		body_len;
	int			nattributes;	/* CloudEvents attributes, without prefix: */
	const DispatchPair *attributes; /* specversion, id, source, type, ... */

	const DispatchValue *options;	/* the event's, else the backend's */

	void	   *transport_data; /* for the transport; NULL at first */
} DispatchMessage;

/* ------------------------------------------------------------------------
 * What can go wrong
 * ------------------------------------------------------------------------
 */

typedef enum DispatchErrorClass
{
	DISPATCH_OUTAGE,			/* broker away: back off, no attempt counted */
	DISPATCH_BACKPRESSURE,		/* broker full or busy: the same */
	DISPATCH_CONFIGURATION,		/* login, TLS, ...: an operator must act */
	DISPATCH_DESTINATION,		/* this stream, topic or exchange only */
	DISPATCH_EVENT_FAILED,		/* this event only: costs it an attempt */
	DISPATCH_EVENT_REJECTED,	/* this event can never be delivered */
	DISPATCH_CULPRIT_UNKNOWN	/* one of those in flight: send them singly */
} DispatchErrorClass;

/*
 * The core as a transport sees it.  "text" is copied; it may be of any
 * encoding and length, and must not contain a secret.
 */
typedef struct DispatchHost DispatchHost;
struct DispatchHost
{
	const char *backend;		/* name of the backend, for messages */
	const char *owner;			/* role that it belongs to */
	MemoryContext context;		/* lives as long as the connection: tie what
								 * a library allocated to it with a reset
								 * callback, so that nothing leaks on error */

	/* Outcomes of a message that send() took. */
	void		(*delivered) (DispatchHost *host, DispatchMessage *message);
	void		(*failed) (DispatchHost *host, DispatchMessage *message,
						   DispatchErrorClass error_class, const char *text);
	/* Known not to have reached the broker: the core sends it again. */
	void		(*returned) (DispatchHost *host, DispatchMessage *message);

	/*
	 * Says why, before open() returns NULL or pump() DISPATCH_LOST; or before
	 * pump() goes from DISPATCH_READY back to DISPATCH_CONNECTING, when the
	 * connection stands but the broker takes nothing for a while.
	 */
	void		(*explain) (DispatchHost *host,
							DispatchErrorClass error_class, const char *text);
};

/* ------------------------------------------------------------------------
 * The transport
 * ------------------------------------------------------------------------
 */

typedef enum DispatchState
{
	DISPATCH_CONNECTING,		/* not ready for send() yet, or not now */
	DISPATCH_READY,
	DISPATCH_LOST				/* close me */
} DispatchState;

/* What pump() wants to be called for next. */
typedef struct DispatchWait
{
	int			fd;				/* -1: none */
	int			events;			/* WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE */
	long		timeout_ms;		/* call again after that; -1: need not */
} DispatchWait;

typedef struct DispatchTransport
{
	uint32		version;		/* DISPATCH_TRANSPORT_VERSION */
	const char *name;			/* the <name> of dispatch_<name>.so */
	const char *description;	/* one line */
	const DispatchOption *options;
	const char *destination;	/* the option that an event type's topic sets */

	/*
	 * Checks of a backend's options that the table cannot express.  Returns
	 * NULL, or what is wrong, as a full sentence.  May be NULL.
	 */
	const char *(*check) (const DispatchValue *options);

	/*
	 * Starts to connect, and returns the connection, allocated in
	 * host->context; NULL after explain().
	 */
	void	   *(*open) (DispatchHost *host, const DispatchValue *options);

	/*
	 * Takes a message; false when no more can be taken now.  Called only when
	 * pump() returned DISPATCH_READY last.  Need not send before pump().
	 */
	bool		(*send) (void *connection, DispatchMessage *message);

	/*
	 * Moves input and output as far as that goes without blocking, reports
	 * outcomes, enforces the timeouts, and says what to wait for.
	 */
	DispatchState (*pump) (void *connection, DispatchWait *wait);

	/*
	 * Lets go of the connection at once, whatever is in flight; the core
	 * deletes host->context right after.  May be NULL where the reset
	 * callbacks of that context do all.
	 */
	void		(*close) (void *connection);
} DispatchTransport;

typedef const DispatchTransport *(*DispatchTransportInit) (void);

/* The one function that a transport module exports. */
extern PGDLLEXPORT const DispatchTransport *dispatch_transport_init(void);

#endif							/* DISPATCH_TRANSPORT_H */
