/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  The relations of the extension in this database.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "catalog.h"

#define OUR_SCHEMA "dispatch"
#define OUR_EXTENSION "dispatch"

uint64		catalog_backends_generation = 1;
uint64		catalog_event_types_generation = 1;
uint64		catalog_exceptions_generation = 1;

bool		catalog_extension_replaced = false;

static Catalog cache;
static bool cache_valid = false;
static bool lookup_disturbed = false;

/* Any change to one of our relations is rare: all are looked up again. */
static void
forget_relation(Datum arg, Oid relation)
{
	if (!cache_valid)
	{
		/* Nothing is known to compare with: assume that it concerns us. */
		catalog_backends_generation++;
		catalog_event_types_generation++;
		catalog_exceptions_generation++;
		lookup_disturbed = true;
		return;
	}
	if (relation == InvalidOid || relation == cache.backends)
		catalog_backends_generation++;
	if (relation == InvalidOid || relation == cache.event_types)
		catalog_event_types_generation++;
	if (relation == InvalidOid || relation == cache.exceptions)
		catalog_exceptions_generation++;
	if (relation == InvalidOid || relation == cache.outbox_sequence ||
		relation == cache.scheduled || relation == cache.exceptions || relation == cache.backends ||
		relation == cache.backends_name_index || relation == cache.event_types ||
		relation == cache.event_types_key || relation == cache.positions ||
		relation == cache.positions_index)
		cache_valid = false;
	for (int i = 0; i < OUTBOX_SEGMENTS; i++)
		if (relation == cache.segments[i] ||
			relation == cache.new_indexes[i] || relation == cache.late_indexes[i])
			cache_valid = false;
}

void
catalog_register(void)
{
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
}

static Oid
find_relation(const char *name, Oid schema)
{
	Oid			relation = get_relname_relid(name, schema);

	if (!OidIsValid(relation))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" does not exist", OUR_SCHEMA, name),
				 errdetail("It belongs to the extension \"%s\", and must have been renamed or dropped.",
						   OUR_EXTENSION)));
	return relation;
}

static Oid
find_of_segment(const char *format, int segment, Oid schema)
{
	char		name[NAMEDATALEN];

	snprintf(name, sizeof(name), format, segment);
	return find_relation(name, schema);
}

const Catalog *
catalog_get(void)
{
	Oid			schema;
	Catalog		found;

	if (cache_valid)
		return &cache;

	do
	{
		lookup_disturbed = false;
		schema = get_namespace_oid(OUR_SCHEMA, false);
		found.outbox_sequence = find_relation("outbox_id_seq", schema);
		for (int i = 0; i < OUTBOX_SEGMENTS; i++)
		{
			found.segments[i] = find_of_segment("outbox_%d", i, schema);
			found.new_indexes[i] = find_of_segment("outbox_%d_new_idx", i, schema);
			found.late_indexes[i] = find_of_segment("outbox_%d_late_idx", i, schema);
		}
		found.scheduled = find_relation("scheduled", schema);
		found.exceptions = find_relation("exceptions", schema);
		found.backends = find_relation("backends", schema);
		found.backends_name_index = find_relation("backends_name_idx", schema);
		found.event_types = find_relation("event_types", schema);
		found.event_types_key = find_relation("event_types_pkey", schema);
		found.positions = find_relation("positions", schema);
		found.positions_index = find_relation("positions_pkey", schema);
	} while (lookup_disturbed);

	cache = found;
	cache_valid = true;
	return &cache;
}

static void
lock_extension(Oid extension)
{
	LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
}

bool
catalog_lock_extension(void)
{
	static Oid	ours = InvalidOid;
	Oid			extension;
	Oid			now;

	/*
	 * Nearly always: its tables would have gone with it, and locking takes in the
	 * news of that.  There is no cache of extensions to ask.
	 */
	if (OidIsValid(ours) && cache_valid)
	{
		lock_extension(ours);
		if (cache_valid)
			return true;
	}

	extension = get_extension_oid(OUR_EXTENSION, true);
	if (!OidIsValid(extension))
		return false;

	/* What we remember is of the tables of another one. */
	if (OidIsValid(ours) && extension != ours)
	{
		catalog_extension_replaced = true;
		return false;
	}
	ours = extension;
	lock_extension(extension);

	/* It may have gone, or have been made anew, while we waited. */
	now = get_extension_oid(OUR_EXTENSION, true);
	if (now != extension)
		catalog_extension_replaced = OidIsValid(now);
	return now == extension;
}

void
catalog_lock_out_processes(void)
{
	LockDatabaseObject(ExtensionRelationId, get_extension_oid(OUR_EXTENSION, false), 0,
					   AccessExclusiveLock);
}
