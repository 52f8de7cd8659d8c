/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  Rows of the outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_OUTBOX_H
#define DISPATCH_OUTBOX_H

#include "executor/tuptable.h"

#include "event.h"

/* Columns of dispatch.outbox and its segments, as the install script has them. */
enum
{
	OUTBOX_XID = 1,
	OUTBOX_ID,
	OUTBOX_CREATED_AT,
	OUTBOX_EVENT_ID,
	OUTBOX_BACKEND_ID,
	OUTBOX_MAX_RETRIES,
	OUTBOX_SEGMENT,
	OUTBOX_EVENT_TYPE,
	OUTBOX_SOURCE,
	OUTBOX_SUBJECT,
	OUTBOX_KEY,
	OUTBOX_DATA,
	OUTBOX_OPTIONS,
	OUTBOX_ATTRIBUTES,
	OUTBOX_CONTENT
};
#define OUTBOX_NATTS OUTBOX_CONTENT

/* Columns of its indexes. */
enum
{
	NEW_INDEX_BACKEND_ID = 1,
	NEW_INDEX_ID,
	NEW_INDEX_NATTS = NEW_INDEX_ID
};
enum
{
	LATE_INDEX_BACKEND_ID = 1,
	LATE_INDEX_XID,
	LATE_INDEX_ID,
	LATE_INDEX_NATTS = LATE_INDEX_ID
};

/*
 * Appends an event in the current transaction.  values[] and nulls[] are by
 * column number - 1; xid, id and segment are filled in.  The caller's
 * privileges on our tables do not matter.
 */
extern void outbox_append(Datum *values, bool *nulls);

/* Puts the same event aside until scheduled_at. */
extern void outbox_schedule(const Datum *values, const bool *nulls, TimestampTz scheduled_at);

/* Copies a row's event into the current memory context. */
extern Event *outbox_read_event(TupleTableSlot *row);

/* About how much memory it takes. */
extern Size outbox_event_size(const Event *event);

#endif							/* DISPATCH_OUTBOX_H */
