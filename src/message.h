/*-------------------------------------------------------------------------
 *
 * message.h
 *	  From an event to the message that a transport sends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_MESSAGE_H
#define DISPATCH_MESSAGE_H

#include "dispatch_transport.h"
#include "event.h"

typedef struct MessageMaker MessageMaker;

/*
 * Prepared for the options of a backend, in the current memory context.
 * Errors if they are not valid.
 */
extern MessageMaker *message_maker_create(const DispatchTransport *transport,
										  const Jsonb *options);

/* The backend's own values, for open(). */
extern const DispatchValue *message_maker_values(const MessageMaker *maker);

/*
 * Makes the message of an event, in the current memory context; in a
 * transaction.  False, with *error and *error_class set, if the event's options
 * or templates do not allow that, or its envelope cannot be written.
 */
extern bool message_make(const MessageMaker *maker, const Event *event,
						 DispatchMessage *message, const char **error,
						 DispatchErrorClass *error_class);

#endif							/* DISPATCH_MESSAGE_H */
