/*-------------------------------------------------------------------------
 *
 * gate.h
 *	  Destinations that take no events for now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_GATE_H
#define DISPATCH_GATE_H

#include "window.h"

typedef enum GateAnswer
{
	GATE_OPEN,					/* nothing is known against the destination */
	GATE_PROBE,					/* this event may find out; see gates_sent() */
	GATE_BUSY,					/* another one is finding out */
	GATE_CLOSED					/* not for gates_ms_left() */
} GateAnswer;

typedef struct Gates Gates;

/* For the messages of that transport; in the current memory context. */
extern Gates *gates_create(const DispatchTransport *transport);

/* May this event be sent to where it goes? */
extern GateAnswer gates_ask(const Gates *gates, const Entry *entry);

/* Of one that is GATE_CLOSED: for how long (ms), and why. */
extern long gates_ms_left(const Gates *gates, const Entry *entry);
extern const char *gates_reason(const Gates *gates, const Entry *entry);

/* The event was given to the transport. */
extern void gates_sent(Gates *gates, const Entry *entry);

/* It was returned without an outcome; or all are, as the connection is lost. */
extern void gates_unsent(Gates *gates, const Entry *entry);
extern void gates_unsent_all(Gates *gates);

/* Its destination has taken it, or refused it for another reason. */
extern void gates_opened(Gates *gates, const Entry *entry);

/* Its destination does not take events: for so long (ms) none is sent there. */
extern void gates_closed(Gates *gates, const Entry *entry, long ms, const char *reason);

#endif							/* DISPATCH_GATE_H */
