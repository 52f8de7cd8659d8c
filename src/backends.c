/*-------------------------------------------------------------------------
 *
 * backends.c
 *	  The table dispatch.backends, as our processes read it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "backends.h"
#include "settings.h"
#include "options.h"

bool		backends_removing = false;
bool		backends_adopting = false;

char *
backends_identity(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

#define MS(column) \
	"(extract(epoch FROM b." column ") * 1000)::pg_catalog.int4"

#define SELECT_BACKENDS \
	"SELECT b.id, b.xmin, b.name, b.transport, b.options, s.options, b.enabled, b.dropping," \
	" b.force_drop, b.identity, b.ordering, b.owner::pg_catalog.text, b.batch_size," \
	" " MS("sleep_time") ", b.max_retries, b.retry_backoff," \
	" " MS("retry_delay") ", " MS("retry_max_delay") \
	" FROM dispatch.backends AS b" \
	" LEFT JOIN dispatch.backend_secrets AS s ON s.backend_id OPERATOR(pg_catalog.=) b.id"

/* Columns of that query. */
enum
{
	COL_ID = 1, COL_VERSION, COL_NAME, COL_TRANSPORT, COL_OPTIONS, COL_SECRETS, COL_ENABLED,
	COL_DROPPING, COL_FORCE_DROP, COL_IDENTITY, COL_ORDERING, COL_OWNER,
	COL_BATCH_SIZE, COL_SLEEP_TIME, COL_MAX_RETRIES, COL_RETRY_BACKOFF,
	COL_RETRY_DELAY, COL_RETRY_MAX_DELAY
};

static Datum
get_column(HeapTuple row, int column, bool *isnull)
{
	return SPI_getbinval(row, SPI_tuptable->tupdesc, column, isnull);
}

static bool
get_bool(HeapTuple row, int column, bool if_null)
{
	bool		isnull;
	Datum		value = get_column(row, column, &isnull);

	return isnull ? if_null : DatumGetBool(value);
}

static int
get_int(HeapTuple row, int column, int if_null)
{
	bool		isnull;
	Datum		value = get_column(row, column, &isnull);

	return isnull ? if_null : DatumGetInt32(value);
}

static Jsonb *
get_jsonb(HeapTuple row, int column)
{
	bool		isnull;
	Datum		value = get_column(row, column, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(value);
}

static char *
get_text(HeapTuple row, int column)
{
	return SPI_getvalue(row, SPI_tuptable->tupdesc, column);
}

static Ordering
parse_ordering(const char *text)
{
	return strcmp(text, "strict") == 0 ? ORDER_STRICT :
		strcmp(text, "none") == 0 ? ORDER_NONE : ORDER_KEY;
}

static Backend *
read_row(HeapTuple row)
{
	Backend    *backend = palloc(sizeof(Backend));
	Jsonb	   *secrets = get_jsonb(row, COL_SECRETS);

	backend->id = get_int(row, COL_ID, 0);
	backend->version = (TransactionId) get_int(row, COL_VERSION, 0);
	backend->name = get_text(row, COL_NAME);
	backend->transport = get_text(row, COL_TRANSPORT);
	backend->options = get_jsonb(row, COL_OPTIONS);
	if (secrets != NULL)
		backend->options = options_with_secrets(backend->options, secrets);
	backend->enabled = get_bool(row, COL_ENABLED, false);
	backend->dropping = get_bool(row, COL_DROPPING, false);
	backend->force_drop = get_bool(row, COL_FORCE_DROP, false);
	backend->ours = strcmp(get_text(row, COL_IDENTITY), backends_identity()) == 0;
	backend->ordering = parse_ordering(get_text(row, COL_ORDERING));
	backend->owner = get_text(row, COL_OWNER);
	backend->batch_size = get_int(row, COL_BATCH_SIZE, setting_batch_size);
	backend->sleep_time = get_int(row, COL_SLEEP_TIME, setting_sleep_time);
	backend->max_retries = get_int(row, COL_MAX_RETRIES, setting_max_retries);
	backend->retry_backoff = get_bool(row, COL_RETRY_BACKOFF, setting_retry_backoff);
	backend->retry_delay = get_int(row, COL_RETRY_DELAY, setting_retry_delay);
	backend->retry_max_delay = get_int(row, COL_RETRY_MAX_DELAY, setting_retry_max_delay);
	return backend;
}

static List *
read_rows(const char *query, int nargs, Datum *args)
{
	static Oid	argtypes[] = {INT4OID};
	MemoryContext context = CurrentMemoryContext;
	List	   *backends = NIL;

	SPI_connect();
	SPI_execute_with_args(query, nargs, argtypes, args, NULL, true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		backends = lappend(backends, read_row(SPI_tuptable->vals[i]));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return backends;
}

List *
backends_read_all(void)
{
	return read_rows(SELECT_BACKENDS " ORDER BY b.id", 0, NULL);
}

Backend *
backends_read(int32 id)
{
	Datum		arg = Int32GetDatum(id);
	List	   *found = read_rows(SELECT_BACKENDS " WHERE b.id OPERATOR(pg_catalog.=) $1", 1, &arg);

	return found == NIL ? NULL : linitial(found);
}

void
backends_report_missing(const char *name)
{
	Oid			argtype = TEXTOID;
	Datum		arg = CStringGetTextDatum(name);

	SPI_connect();
	SPI_execute_with_args("SELECT dispatch.missing_backend($1)", 1, &argtype, &arg, NULL, true, 1);
	elog(ERROR, "backend \"%s\" does not exist", name);
}

void
backends_remove(int32 id)
{
	static const char *const statements[] = {
		"DELETE FROM dispatch.backend_secrets WHERE backend_id OPERATOR(pg_catalog.=) $1",
		"DELETE FROM dispatch.scheduled WHERE backend_id OPERATOR(pg_catalog.=) $1",
		"UPDATE dispatch.exceptions SET status = 'discarded'"
		" WHERE backend_id OPERATOR(pg_catalog.=) $1 AND status IN ('retrying', 'parked', 'failed')",
		/* From now on, what it has not delivered is needed by nobody. */
		"INSERT INTO dispatch.positions (backend_id, before_snapshot, before_id, before_xid,"
		" upto_snapshot, upto_id, upto_xid, settled_id, published, retried, running,"
		" unclean_ends, dropped)"
		" VALUES ($1, '3:3:', 0, '3', '3:3:', 0, '3', 0, 0, 0, false, 0, true)"
		" ON CONFLICT (backend_id) DO UPDATE SET dropped = true",
		"DELETE FROM dispatch.backends WHERE id OPERATOR(pg_catalog.=) $1",
	};
	Oid			argtype = INT4OID;
	Datum		arg = Int32GetDatum(id);

	SPI_connect();
	backends_removing = true;
	PG_TRY();
	{
		for (int i = 0; i < (int) lengthof(statements); i++)
			SPI_execute_with_args(statements[i], 1, &argtype, &arg, NULL, false, 0);
	}
	PG_FINALLY();
	{
		backends_removing = false;
	}
	PG_END_TRY();
	SPI_finish();
}
