/*-------------------------------------------------------------------------
 *
 * event_type_row.h
 *	  Rows of dispatch.event_types.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_EVENT_TYPE_ROW_H
#define DISPATCH_EVENT_TYPE_ROW_H

#include "access/htup.h"
#include "access/tupdesc.h"

#include "event_type.h"

/* Columns of the table, as the install script has them. */
enum
{
	EVENT_TYPES_EVENT_TYPE = 1,
	EVENT_TYPES_BACKEND,
	EVENT_TYPES_TOPIC,
	EVENT_TYPES_PARTITION_BY,
	EVENT_TYPES_OPTIONS,
	EVENT_TYPES_IDENTITY
};

/* Copies what a row sets into the current memory context. */
extern void event_type_read(HeapTuple row, TupleDesc desc, EventType *type);

#endif							/* DISPATCH_EVENT_TYPE_ROW_H */
