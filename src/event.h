/*-------------------------------------------------------------------------
 *
 * event.h
 *	  An event, as it stands in the outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_EVENT_H
#define DISPATCH_EVENT_H

#include "access/transam.h"
#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* Texts are in the encoding of the database. */
typedef struct Event
{
	FullTransactionId xid;		/* top-level transaction that published it */
	int64		id;				/* position in the outbox */
	int32		backend_id;
	int32		max_retries;	/* -1: the backend's */
	pg_uuid_t	event_id;		/* identity on the wire */
	TimestampTz created_at;
	char	   *event_type;
	char	   *source;
	char	   *subject;		/* NULL: none */
	char	   *key;			/* NULL: none */
	Jsonb	   *data;			/* NULL: none */
	Jsonb	   *options;		/* NULL: none */
	Jsonb	   *attributes;		/* see attributes.h; NULL: none */
	bytea	   *content;		/* binary payload, a zero byte after it; NULL: none */
} Event;

#endif							/* DISPATCH_EVENT_H */
