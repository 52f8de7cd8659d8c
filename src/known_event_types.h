/*-------------------------------------------------------------------------
 *
 * known_event_types.h
 *	  What publish() knows of event types, cached.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_KNOWN_EVENT_TYPES_H
#define DISPATCH_KNOWN_EVENT_TYPES_H

#include "event_type.h"

/*
 * The event type of that name; NULL if none is defined.  Valid until the next
 * call.
 */
extern const EventType *known_event_type_find(const text *name);

#endif							/* DISPATCH_KNOWN_EVENT_TYPES_H */
