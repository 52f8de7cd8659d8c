/*-------------------------------------------------------------------------
 *
 * exceptions.c
 *	  Events that need more than one attempt: the table dispatch.exceptions.
 *
 * Delivery writes nothing for an event, as long as nothing goes wrong with it.
 * One that fails gets a row here, and so do later events of its key, which must
 * not overtake it.  A row is a whole copy of its event: what retention does to
 * the outbox does not matter to it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "exceptions.h"
#include "outbox.h"
#include "sql_params.h"

/*
 * Some of what is here runs as the owner of the tables in a session of somebody
 * else: no operator may be looked up in his search_path, and IN would be.
 */
#define IS_OPEN "status OPERATOR(pg_catalog.=) ANY ('{retrying,parked}')"

static const char *const status_names[] = {
	[EXCEPTION_RETRYING] = "retrying",
	[EXCEPTION_PARKED] = "parked",
	[EXCEPTION_FAILED] = "failed",
};

static void
add_next_attempt(Params *params, const Exception *exception)
{
	param_add(params, TIMESTAMPTZOID, TimestampTzGetDatum(exception->next_attempt_at),
			  exception->status != EXCEPTION_RETRYING);
}

/*
 * Runs a statement that has to write one row.  A trigger of a user's that
 * suppresses it would lose an event: better the worker stops and says so.
 */
static void
write_row(const char *statement, const Params *params)
{
	SPI_connect();
	if (params_run(params, statement, false) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 errmsg("a row of dispatch.exceptions could not be written"),
				 errhint("Look for a trigger on dispatch.exceptions that suppresses it.")));
	SPI_finish();
}

uint32
exception_key_hash(const char *key)
{
	return string_hash(key, strlen(key) + 1);
}

void
exception_insert(const Event *event, const Exception *exception, const char *error)
{
	Params		params = {0};

	param_add(&params, XID8OID, FullTransactionIdGetDatum(event->xid), false);
	param_add(&params, INT8OID, Int64GetDatum(event->id), false);
	param_add(&params, TIMESTAMPTZOID, TimestampTzGetDatum(event->created_at), false);
	param_add(&params, UUIDOID, UUIDPGetDatum(&event->event_id), false);
	param_add(&params, INT4OID, Int32GetDatum(event->backend_id), false);
	param_add(&params, INT4OID, Int32GetDatum(event->max_retries), event->max_retries < 0);
	param_add_text(&params, event->event_type);
	param_add_text(&params, event->source);
	param_add_text(&params, event->subject);
	param_add_text(&params, event->key);
	param_add_jsonb(&params, event->data);
	param_add_jsonb(&params, event->options);
	param_add_text(&params, status_names[exception->status]);
	param_add(&params, INT4OID, Int32GetDatum(exception->attempts), false);
	add_next_attempt(&params, exception);
	param_add_text(&params, error);
	param_add_jsonb(&params, event->attributes);
	param_add(&params, BYTEAOID, PointerGetDatum(event->content), event->content == NULL);
	write_row("INSERT INTO dispatch.exceptions (xid, id, created_at, event_id, backend_id, max_retries,"
		" segment, event_type, source, subject, key, data, options, status, attempts,"
		" next_attempt_at, first_error, last_error, first_failed_at, last_failed_at,"
		" attributes, content)"
		" VALUES ($1, $2, $3, $4, $5, $6, -1, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $16,"
		" CASE WHEN $16 IS NOT NULL THEN pg_catalog.now() END,"
		" CASE WHEN $16 IS NOT NULL THEN pg_catalog.now() END, $17, $18)",
		&params);
}

void
exception_update(const Exception *exception, const char *error)
{
	Params		params = {0};

	param_add(&params, UUIDOID, UUIDPGetDatum(&exception->event_id), false);
	param_add_text(&params, status_names[exception->status]);
	param_add(&params, INT4OID, Int32GetDatum(exception->attempts), false);
	add_next_attempt(&params, exception);
	param_add_text(&params, error);
	SPI_connect();
	params_run(&params,
			   "UPDATE dispatch.exceptions SET status = $2, attempts = $3, next_attempt_at = $4,"
			   " first_error = coalesce(first_error, $5), last_error = coalesce($5, last_error),"
			   " first_failed_at = coalesce(first_failed_at, pg_catalog.now()),"
			   " last_failed_at = pg_catalog.now()"
			   " WHERE event_id OPERATOR(pg_catalog.=) $1", false);
	SPI_finish();
}

void
exception_delete(const Exception *exception)
{
	Params		params = {0};

	param_add(&params, UUIDOID, UUIDPGetDatum(&exception->event_id), false);
	SPI_connect();
	params_run(&params,
			   "DELETE FROM dispatch.exceptions WHERE event_id OPERATOR(pg_catalog.=) $1", false);
	SPI_finish();
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

static Exception *
read_exception(HeapTuple row, TupleDesc desc)
{
	Exception  *exception = palloc0_object(Exception);
	char	   *key = SPI_getvalue(row, desc, 6);
	bool		isnull;
	Datum		value;

	exception->id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	exception->event_id = *DatumGetUUIDP(SPI_getbinval(row, desc, 2, &isnull));
	exception->status = strcmp(SPI_getvalue(row, desc, 3), "retrying") == 0 ?
		EXCEPTION_RETRYING : EXCEPTION_PARKED;
	exception->attempts = DatumGetInt32(SPI_getbinval(row, desc, 4, &isnull));
	value = SPI_getbinval(row, desc, 5, &isnull);
	exception->next_attempt_at = isnull ? 0 : DatumGetTimestampTz(value);
	exception->has_key = key != NULL;
	exception->key_hash = key ? exception_key_hash(key) : 0;
	return exception;
}

List *
exceptions_read_open(int32 backend_id, int limit)
{
	MemoryContext context = CurrentMemoryContext;
	Params		params = {0};
	List	   *exceptions = NIL;

	param_add(&params, INT4OID, Int32GetDatum(backend_id), false);
	SPI_connect();
	param_add(&params, INT4OID, Int32GetDatum(limit), false);
	params_run(&params,
			   "SELECT id, event_id, status, attempts, next_attempt_at, key"
			   " FROM dispatch.exceptions WHERE backend_id OPERATOR(pg_catalog.=) $1"
			   " AND " IS_OPEN " ORDER BY id LIMIT $2", true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		exceptions = lappend(exceptions, read_exception(SPI_tuptable->vals[i],
														SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return exceptions;
}

int64
exceptions_count_open(int32 backend_id)
{
	Params		params = {0};
	bool		isnull;
	int64		count;

	param_add(&params, INT4OID, Int32GetDatum(backend_id), false);
	SPI_connect();
	params_run(&params,
			   "SELECT pg_catalog.count(*) FROM dispatch.exceptions"
			   " WHERE backend_id OPERATOR(pg_catalog.=) $1"
			   " AND " IS_OPEN, true);
	count = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return count;
}

List *
exceptions_read_events(List *exceptions, Size max_bytes)
{
	MemoryContext context = CurrentMemoryContext;
	Params		params = {0};
	Datum	   *ids = palloc_array(Datum, list_length(exceptions));
	List	   *events = NIL;
	Size		nbytes = 0;
	TupleTableSlot *slot;
	ListCell   *lc;

	foreach(lc, exceptions)
		ids[foreach_current_index(lc)] = UUIDPGetDatum(&((Exception *) lfirst(lc))->event_id);
	param_add(&params, UUIDARRAYOID,
			  PointerGetDatum(construct_array(ids, list_length(exceptions), UUIDOID,
											  UUID_LEN, false, TYPALIGN_CHAR)), false);
	SPI_connect();
	params_run(&params,
			   "SELECT * FROM dispatch.exceptions WHERE event_id OPERATOR(pg_catalog.=) ANY ($1)"
			   " AND " IS_OPEN " ORDER BY id", true);
	slot = MakeSingleTupleTableSlot(SPI_tuptable->tupdesc, &TTSOpsHeapTuple);
	for (uint64 i = 0; i < SPI_processed && nbytes < max_bytes; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		ExecStoreHeapTuple(SPI_tuptable->vals[i], slot, false);
		events = lappend(events, outbox_read_event(slot));
		nbytes += outbox_event_size(llast(events));
		MemoryContextSwitchTo(old);
	}
	ExecDropSingleTupleTableSlot(slot);
	SPI_finish();
	return events;
}

/* ------------------------------------------------------------------------
 * News
 *
 * A transaction can be seen by others a moment before they are told of what it
 * has invalidated, and in that moment an event could overtake one that the same
 * transaction has set to be retried.  So whoever changes rows holds a lock until
 * the end of his transaction, which is let go after others are told.  Nobody
 * ever waits for it.
 * ------------------------------------------------------------------------
 */

static void
set_news_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, RelationRelationId, catalog_get()->exceptions, 0);
}

void
exceptions_announce(void)
{
	LOCKTAG		tag;

	set_news_tag(&tag);
	(void) LockAcquire(&tag, RowExclusiveLock, false, false);
	CacheInvalidateRelcacheByRelid(catalog_get()->exceptions);
}

bool
exceptions_news_may_be_late(void)
{
	LOCKTAG		tag;

	set_news_tag(&tag);
	if (LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, ShareLock, false);
	AcceptInvalidationMessages();
	return false;
}
