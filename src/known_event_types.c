/*-------------------------------------------------------------------------
 *
 * known_event_types.c
 *	  What publish() knows of event types, cached.
 *
 * As with backends (see known_backends.c), what is not in the cache is looked
 * up with a snapshot of its own, and stays until an invalidation message for
 * the table arrives.  Each change sends one: to its own session at the end of
 * the statement, to the others at commit.  Most events are of no defined type,
 * so that is remembered, too; the message of whoever defines it later comes
 * after the snapshot that did not see it.
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

#include "catalog.h"
#include "event_type_row.h"
#include "known_event_types.h"
#include "known_cache.h"

/* Publishers may make up a type for each event: then all are forgotten. */
#define MAX_KNOWN 1024

typedef struct KnownEventType
{
	char		name[EVENT_TYPE_LEN];	/* hash key */
	MemoryContext context;		/* of the type; NULL: not defined */
	EventType	type;
} KnownEventType;

static MemoryContext cache_context = NULL;	/* of all that is known */
static HTAB *cache = NULL;
static uint64 cache_generation;

/* Forgets all, and notes that what is read from now on is new. */
static void
reset_cache(void)
{
	cache = NULL;				/* in case of an error */
	cache = known_cache_reset(&cache_context, "dispatch event types",
							  EVENT_TYPE_LEN, sizeof(KnownEventType));
	cache_generation = catalog_event_types_generation;
}

/* Copies a row into a context of its own. */
static void
learn(KnownEventType *known, HeapTuple row, TupleDesc desc)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "dispatch event type",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	event_type_read(row, desc, &known->type);

	/* Complete: from here on it is the cache's. */
	MemoryContextSetParent(context, cache_context);
	known->context = context;
	MemoryContextSwitchTo(old);
}

static void
look_up(KnownEventType *known)
{
	const Catalog *catalog = catalog_get();
	Oid			index = catalog->event_types_key;
	Relation	rel = table_open(catalog->event_types, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	row;

	ScanKeyInit(&key, EVENT_TYPES_EVENT_TYPE, BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(known->name));
	scan = systable_beginscan(rel, index, true, snapshot, 1, &key);
	row = systable_getnext(scan);
	if (HeapTupleIsValid(row))
		learn(known, row, RelationGetDescr(rel));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

const EventType *
known_event_type_find(const text *name)
{
	KnownEventType found = {0};
	KnownEventType *known;

	AcceptInvalidationMessages();
	if (cache == NULL || cache_generation != catalog_event_types_generation)
		reset_cache();

	/* No type has a longer name; the cache would cut it. */
	if (VARSIZE_ANY_EXHDR(name) >= EVENT_TYPE_LEN)
		return NULL;

	text_to_cstring_buffer(name, found.name, EVENT_TYPE_LEN);
	known = hash_search(cache, found.name, HASH_FIND, NULL);
	if (known == NULL)
	{
		if (hash_get_num_entries(cache) >= MAX_KNOWN)
			reset_cache();
		look_up(&found);
		known = hash_search(cache, found.name, HASH_ENTER, NULL);
		*known = found;
	}
	return known->context != NULL ? &known->type : NULL;
}
