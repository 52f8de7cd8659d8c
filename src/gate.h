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

typedef struct Gates Gates;

/* For the messages of that transport; in the current memory context. */
extern Gates *gates_create(const DispatchTransport *transport);

/*
 * For how long (ms) this event must not be sent to where it goes; 0: it may, and
 * if its gate was closed, it is the one that finds out.
 */
extern long gates_ms_closed(const Gates *gates, const Entry *entry);

/* Why that is. */
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
