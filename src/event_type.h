/*-------------------------------------------------------------------------
 *
 * event_type.h
 *	  What an event type sets for its events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_EVENT_TYPE_H
#define DISPATCH_EVENT_TYPE_H

#include "options.h"

/* Size of a name with its terminator; events of longer types have no type. */
#define EVENT_TYPE_LEN 256

/* NULL: not set. */
typedef struct EventType
{
	char	   *backend;
	char	   *topic;			/* template of the destination */
	char	   *partition_by;	/* dot path into the data */
	Jsonb	   *options;
} EventType;

/*
 * Errors (22023) unless all of it can be used with a backend that has this
 * table; NULL: there is no backend yet.
 */
extern void event_type_check(const EventType *type, const OptionTable *table);

/*
 * The options of an event: its own (NULL: none), and under them those of its
 * type, with the topic in the place of the destination.  NULL: none at all.
 * Errors (22023) when the topic cannot be set.
 */
extern Jsonb *event_type_options(const EventType *type, const OptionTable *table,
								 Jsonb *own);

/*
 * The key that partition_by finds in an event's data (NULL: none).  Errors
 * (22023), naming the path, when it is not there.
 */
extern text *event_type_key(const EventType *type, Jsonb *data);

#endif							/* DISPATCH_EVENT_TYPE_H */
