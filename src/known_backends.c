/*-------------------------------------------------------------------------
 *
 * known_backends.c
 *	  What publish() knows of backends, cached.
 *
 * A name that is not in the cache is looked up with a snapshot of its own, for
 * a backend that another session has created a moment ago must be found, also
 * by a transaction whose snapshot is an hour old.  What was found stays until
 * an invalidation message for dispatch.backends arrives, which each change to
 * that table sends at its commit.  That a name is unknown is not remembered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "backends.h"
#include "catalog.h"
#include "known_backends.h"
#include "known_cache.h"

static MemoryContext cache_context = NULL;	/* of all that is known */
static HTAB *cache = NULL;
static uint64 cache_generation;

/* Forgets all, and notes that what is read from now on is new. */
static void
reset_cache(void)
{
	cache = NULL;				/* in case of an error */
	cache = known_cache_reset(&cache_context, "dispatch backends",
							  NAMEDATALEN, sizeof(KnownBackend));
	cache_generation = catalog_backends_generation;
}

/* The names there are, for a hint. */
static char *
list_names(Relation rel, Snapshot snapshot)
{
	StringInfoData names;
	SysScanDesc scan;
	HeapTuple	row;

	initStringInfo(&names);
	scan = systable_beginscan(rel, catalog_get()->backends_name_index, true, snapshot, 0, NULL);
	while ((row = systable_getnext(scan)) != NULL && names.len < 1000)
	{
		bool		isnull;
		Datum		name = heap_getattr(row, BACKENDS_NAME, RelationGetDescr(rel), &isnull);

		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", TextDatumGetCString(name));
	}
	systable_endscan(scan);
	return names.len > 0 ? names.data : NULL;
}

static void
report_unknown(const char *name, const char *names)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("backend \"%s\" does not exist", name),
			 names != NULL ? errhint("Backends are: %s.", names) :
			 errhint("Create one with dispatch.create_backend().")));
}

static Datum
get_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;

	return heap_getattr(row, column, desc, &isnull);
}

/* What options_read() and the like need, in a context of its own. */
static void
learn(KnownBackend *known, HeapTuple row, TupleDesc desc)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dispatch backend",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	char	   *transport = TextDatumGetCString(get_column(row, desc, BACKENDS_TRANSPORT));
	char	   *identity = TextDatumGetCString(get_column(row, desc, BACKENDS_IDENTITY));
	Jsonb	   *spec = DatumGetJsonbPCopy(get_column(row, desc, BACKENDS_EVENT_OPTIONS));
	Jsonb	   *options = DatumGetJsonbPCopy(get_column(row, desc, BACKENDS_OPTIONS));

	known->id = DatumGetInt32(get_column(row, desc, BACKENDS_ID));
	known->is_ours = strcmp(identity, backends_identity()) == 0;
	known->table = options_from_spec(transport, spec);
	known->values = palloc0_array(DispatchValue, known->table->nitems);
	options_read(known->table, options, DISPATCH_OF_BACKEND, known->values);
	known->has_variables = false;
	for (int i = 0; i < known->table->nitems; i++)
		if (known->table->items[i].type == DISPATCH_TEMPLATE && known->values[i].is_set &&
			strchr(known->values[i].text, '{') != NULL)
			known->has_variables = true;

	/* Complete: from here on it is the cache's. */
	MemoryContextSetParent(context, cache_context);
	known->context = context;
	MemoryContextSwitchTo(old);
}

static bool
look_up(const char *name, bool missing_ok, KnownBackend *known)
{
	Oid			backends = catalog_get()->backends;
	Relation	rel = table_open(backends, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;

	ScanKeyInit(&key, BACKENDS_NAME, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(name));
	scan = systable_beginscan(rel, catalog_get()->backends_name_index, true, snapshot, 1, &key);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
		learn(known, row, RelationGetDescr(rel));
	systable_endscan(scan);
	if (known->context == NULL && !missing_ok)
		report_unknown(name, list_names(rel, snapshot));
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return known->context != NULL;
}

const KnownBackend *
known_backend_find(const char *name, bool missing_ok)
{
	KnownBackend found = {0};
	KnownBackend *known;

	AcceptInvalidationMessages();
	if (cache == NULL || cache_generation != catalog_backends_generation)
		reset_cache();

	/* No backend has a longer name; the cache would cut it. */
	known = strlen(name) >= NAMEDATALEN ? NULL : hash_search(cache, name, HASH_FIND, NULL);
	if (known == NULL)
	{
		if (!look_up(name, missing_ok, &found))
			return NULL;
		strlcpy(found.name, name, NAMEDATALEN);
		known = hash_search(cache, name, HASH_ENTER, NULL);
		*known = found;
	}
	return known;
}
