/*-------------------------------------------------------------------------
 *
 * delivery.h
 *	  Sending the events of a window over a connection to the broker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_DELIVERY_H
#define DISPATCH_DELIVERY_H

#include "backends.h"
#include "dispatch_transport.h"
#include "error_text.h"
#include "gate.h"
#include "message.h"
#include "outage_log.h"
#include "steady.h"
#include "window.h"

typedef struct Delivery
{
	MemoryContext context;		/* lives as long as the delivery */
	const Backend *backend;
	const DispatchTransport *transport;
	MessageMaker *maker;
	Window	   *window;			/* events of the log */
	Window	   *retries;		/* events that are tried again */
	RetryQueue *queue;			/* all that are to be, the worker's */
	Gates	   *gates;			/* destinations that take no events for now */
	int			singly;			/* so many outcomes to come one at a time */
	int			careful;		/* so many of them each to be noted before */
	bool		(*before_careful) (const Entry *entry);	/* false: not now */

	/* The connection. */
	DispatchHost host;			/* host.context is NULL: there is none */
	void	   *connection;
	DispatchState state;
	DispatchWait wait;
	SteadyTime	ready_since;	/* 0: it is not ready yet */

	/* Trouble with the broker. */
	int			failures;		/* since it last went well for a while */
	SteadyTime	next_attempt;	/* of connecting */
	DispatchErrorClass error_class; /* of the last failure */
	char		error[ERROR_TEXT_LEN];
	bool		explained;		/* the transport has said why */
	bool		has_verdict;	/* an event was refused on this connection */
	bool		is_held;		/* the broker takes nothing for a while */

	uint64		taken;			/* events that the transport took */
	uint64		outcomes;		/* events delivered, failed or returned */
	TimestampTz replied_at;		/* when the broker's latest replies were taken in */
	bool		busy;			/* pump it again before waiting */
	bool		draining;		/* send nothing new */
	int			allowance;		/* events that may be in flight, after trouble */
	bool		is_silent;		/* the log is told nothing */
	OutageLog	outage;
	void		(*on_delivered) (const Entry *entry, TimestampTz when);
} Delivery;

/*
 * In the current memory context; errors if the transport cannot be loaded or
 * the backend's options are not valid.
 */
extern Delivery *delivery_create(const Backend *backend, RetryQueue *queue,
								 void (*on_delivered) (const Entry *entry, TimestampTz when));

/* Events that are with the transport. */
extern int	delivery_in_flight(const Delivery *delivery);

/* An entry has failed; decides what is to become of it. */
extern void delivery_fail_entry(Delivery *delivery, Entry *entry,
								DispatchErrorClass error_class, const char *text);

/* Gives the transport, which is ready, what may be sent now. */
extern void delivery_send(Delivery *delivery);

/*
 * Connects if it is time to, sends what can be sent, and takes in what came
 * back.  Never blocks.
 */
extern void delivery_pump(Delivery *delivery);

/* What to wait for, and how long at most (ms; -1: for ever). */
extern long delivery_timeout(const Delivery *delivery);

/* Closes the connection; what was in flight is waiting again. */
extern void delivery_disconnect(Delivery *delivery);

#endif							/* DISPATCH_DELIVERY_H */
