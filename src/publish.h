/*-------------------------------------------------------------------------
 *
 * publish.h
 *	  Taking an event into the current transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_PUBLISH_H
#define DISPATCH_PUBLISH_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* What publish() is given.  Texts are in the encoding of the database. */
typedef struct NewEvent
{
	text	   *event_type;
	text	   *source;
	text	   *subject;		/* NULL: none; so are the rest */
	text	   *key;
	Datum		data;			/* jsonb, perhaps toasted */
	bool		has_data;
	text	   *backend;		/* NULL: the event type's, or the default */
	Jsonb	   *options;
	TimestampTz scheduled_at;	/* DT_NOBEGIN: now */
	int			max_retries;	/* -1: the backend's */
	Jsonb	   *attributes;		/* checked already, see attributes.h; NULL: none */
	Datum		content;		/* bytea: a binary payload, instead of data */
	bool		has_content;
} NewEvent;

/*
 * Checks the event, inserts it, and sets *event_id.  Errors name what is wrong
 * (22004 null, 22023 invalid, 42704 unknown backend, 25006 read-only).
 */
extern void publish_event(const NewEvent *event, pg_uuid_t *event_id);

/*
 * Reads what all functions that publish take last: from argument "backend" on
 * backend and key, from argument "options" on options, scheduled_at and
 * max_retries.
 */
extern void publish_read_arguments(FunctionCallInfo fcinfo, int backend, int options,
								   NewEvent *event);
extern text *publish_text_argument(FunctionCallInfo fcinfo, int arg);	/* NULL: null */

#endif							/* DISPATCH_PUBLISH_H */
