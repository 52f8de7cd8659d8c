/*-------------------------------------------------------------------------
 *
 * envelope.h
 *	  What goes on the wire: the body of a message, and its attributes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_ENVELOPE_H
#define DISPATCH_ENVELOPE_H

#include "dispatch_transport.h"
#include "event.h"

/*
 * Makes the message of an event, in the current memory context.  It refers to
 * texts of the event where those are UTF-8 as they are, so that the event must
 * live as long.  The message's options are the caller's to set, before or
 * after.
 *
 * False, with *error set to a full sentence, when the event cannot be written:
 * a text of it that has no UTF-8 form, a time before 1970 or after 9999, or
 * binary data in an envelope that cannot hold it; or what is longer than a text
 * can be, which nothing mends: then *error_class says so.
 * The event_id is there even then.  Needs a transaction, unless the database
 * is UTF-8.
 */
extern bool envelope_write(const Event *event, DispatchEnvelope envelope,
						   DispatchMessage *message, const char **error,
						   DispatchErrorClass *error_class);

#endif							/* DISPATCH_ENVELOPE_H */
