/*-------------------------------------------------------------------------
 *
 * outbox.c
 *	  Rows of the outbox.
 *
 * Rows are appended through the executor's functions rather than by an INSERT:
 * that costs a third less, needs no privileges of the caller on our tables, and
 * goes straight into the current segment.  All indexes of the segment are
 * maintained, also those that a user has added.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "compat.h"
#include "outbox.h"
#include "slots.h"

/* Inserts one row, given as values by column number - 1, and its index entries. */
static void
insert_row(Oid table, const Datum *values, const bool *nulls, int natts)
{
	Relation	rel = table_open(table, RowExclusiveLock);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *info = makeNode(ResultRelInfo);
	TupleTableSlot *slot;

	InitResultRelInfo(info, rel, 0, NULL, 0);
	ExecOpenIndices(info, false);
	slot = ExecInitExtraTupleSlot(estate, RelationGetDescr(rel), table_slot_callbacks(rel));
	if (slot->tts_tupleDescriptor->natts < natts)
		elog(ERROR, "relation \"%s\" has too few columns", RelationGetRelationName(rel));
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_values[i] = i < natts ? values[i] : (Datum) 0;
		slot->tts_isnull[i] = i < natts ? nulls[i] : true;
	}
	ExecStoreVirtualTuple(slot);

	/* What a user has added to the table holds for us, too. */
	if (rel->rd_att->constr)
		ExecConstraints(info, slot, estate);
	table_tuple_insert(rel, slot, GetCurrentCommandId(true), 0, NULL);
	if (info->ri_NumIndices > 0)
		ExecInsertIndexTuples(info, slot, estate, false, false, NULL, NIL, false);

	ExecCloseIndices(info);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
}

void
outbox_append(Datum *values, bool *nulls)
{
	const Catalog *catalog = catalog_get();
	uint32		segment = database_current_segment(MyDatabaseId) % OUTBOX_SEGMENTS;

	/* The order of these two is what reading relies on: see tick.c. */
	values[OUTBOX_XID - 1] = FullTransactionIdGetDatum(GetTopFullTransactionId());
	values[OUTBOX_ID - 1] = Int64GetDatum(nextval_internal(catalog->outbox_sequence, false));
	values[OUTBOX_SEGMENT - 1] = Int16GetDatum(segment);
	nulls[OUTBOX_XID - 1] = nulls[OUTBOX_ID - 1] = nulls[OUTBOX_SEGMENT - 1] = false;
	insert_row(catalog->segments[segment], values, nulls, OUTBOX_NATTS);
}

/* Columns of dispatch.scheduled after scheduled_at, as columns of the outbox. */
static const int scheduled_columns[] = {
	OUTBOX_CREATED_AT, OUTBOX_BACKEND_ID, OUTBOX_MAX_RETRIES, OUTBOX_EVENT_TYPE,
	OUTBOX_SOURCE, OUTBOX_SUBJECT, OUTBOX_KEY, OUTBOX_DATA, OUTBOX_OPTIONS,
	OUTBOX_ATTRIBUTES, OUTBOX_CONTENT
};

void
outbox_schedule(const Datum *values, const bool *nulls, TimestampTz scheduled_at)
{
	Datum		row[lengthof(scheduled_columns) + 2];
	bool		row_nulls[lengthof(scheduled_columns) + 2];

	row[0] = values[OUTBOX_EVENT_ID - 1];
	row_nulls[0] = false;
	row[1] = TimestampTzGetDatum(scheduled_at);
	row_nulls[1] = false;
	for (int i = 0; i < (int) lengthof(scheduled_columns); i++)
	{
		row[i + 2] = values[scheduled_columns[i] - 1];
		row_nulls[i + 2] = nulls[scheduled_columns[i] - 1];
	}
	insert_row(catalog_get()->scheduled, row, row_nulls, lengthof(row));
}

static char *
read_text(TupleTableSlot *row, int column)
{
	if (row->tts_isnull[column - 1])
		return NULL;
	return TextDatumGetCString(row->tts_values[column - 1]);
}

static Jsonb *
read_jsonb(TupleTableSlot *row, int column)
{
	if (row->tts_isnull[column - 1])
		return NULL;
	return DatumGetJsonbPCopy(row->tts_values[column - 1]);
}

/* With a zero byte after it, for those who take what is text for a C string. */
static bytea *
read_bytes(TupleTableSlot *row, int column)
{
	struct varlena *stored;
	bytea	   *copy;
	Size		len;

	if (row->tts_isnull[column - 1])
		return NULL;
	stored = PG_DETOAST_DATUM_PACKED(row->tts_values[column - 1]);
	len = VARSIZE_ANY_EXHDR(stored);
	copy = palloc(VARHDRSZ + len + 1);
	SET_VARSIZE(copy, VARHDRSZ + len);
	memcpy(VARDATA(copy), VARDATA_ANY(stored), len);
	VARDATA(copy)[len] = '\0';
	if (PointerGetDatum(stored) != row->tts_values[column - 1])
		pfree(stored);
	return copy;
}

Event *
outbox_read_event(TupleTableSlot *row)
{
	Event	   *event = palloc(sizeof(Event));

	slot_getsomeattrs(row, OUTBOX_NATTS);
	event->xid = DatumGetFullTransactionId(row->tts_values[OUTBOX_XID - 1]);
	event->id = DatumGetInt64(row->tts_values[OUTBOX_ID - 1]);
	event->created_at = DatumGetTimestampTz(row->tts_values[OUTBOX_CREATED_AT - 1]);
	event->event_id = *DatumGetUUIDP(row->tts_values[OUTBOX_EVENT_ID - 1]);
	event->backend_id = DatumGetInt32(row->tts_values[OUTBOX_BACKEND_ID - 1]);
	event->max_retries = row->tts_isnull[OUTBOX_MAX_RETRIES - 1] ? -1 :
		DatumGetInt32(row->tts_values[OUTBOX_MAX_RETRIES - 1]);
	event->event_type = read_text(row, OUTBOX_EVENT_TYPE);
	event->source = read_text(row, OUTBOX_SOURCE);
	event->subject = read_text(row, OUTBOX_SUBJECT);
	event->key = read_text(row, OUTBOX_KEY);
	event->data = read_jsonb(row, OUTBOX_DATA);
	event->options = read_jsonb(row, OUTBOX_OPTIONS);
	event->attributes = read_jsonb(row, OUTBOX_ATTRIBUTES);
	event->content = read_bytes(row, OUTBOX_CONTENT);
	return event;
}

Size
outbox_event_size(const Event *event)
{
	return sizeof(Event) + strlen(event->event_type) + strlen(event->source) +
		(event->subject ? strlen(event->subject) : 0) +
		(event->key ? strlen(event->key) : 0) +
		(event->data ? VARSIZE(event->data) : 0) +
		(event->options ? VARSIZE(event->options) : 0) +
		(event->attributes ? VARSIZE(event->attributes) : 0) +
		(event->content ? VARSIZE(event->content) : 0);
}
