/*-------------------------------------------------------------------------
 *
 * retention.c
 *	  Emptying the outbox: the ring of segments, the table dispatch.segments.
 *
 * publish() appends to the current segment.  After a fraction of the retention
 * time the manager closes it and opens an empty one; a segment that has been
 * closed for the retention time is emptied by TRUNCATE.  So no event is ever
 * deleted by itself, there is nothing to vacuum, and no DDL runs but TRUNCATE.
 * Reading does not care which segment an event is in, so a publisher that has
 * not noticed the change yet does no harm.
 *
 * A segment is emptied only when all of its events are settled for every
 * backend by the *stored* position: what is in the memory of a worker would be
 * forgotten by a crash, and the events missed.  That is checked by transaction:
 * none of the segment's is in progress for, or later than, the tick that a
 * backend's position is after.  Where all segments are in use the current one
 * just grows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends.h"
#include "catalog.h"
#include "late.h"
#include "position.h"
#include "retention.h"
#include "settings.h"

/* A retention time is divided among so many segments; the others are spare. */
#define SEGMENTS_IN_USE (OUTBOX_SEGMENTS - 2)

/* Rows that one round gives up at the most. */
#define EXPIRE_MAX 10000

/* ------------------------------------------------------------------------
 * The table
 * ------------------------------------------------------------------------
 */

static int	param_count;
static Oid	param_types[3];
static Datum param_values[3];

/* Runs a statement with up to three parameters, that are set before. */
static uint64
run(const char *statement)
{
	SPI_execute_with_args(statement, param_count, param_types, param_values, NULL, false, 0);
	param_count = 0;
	return SPI_processed;
}

static void
set_param(Oid type, Datum value)
{
	param_types[param_count] = type;
	param_values[param_count] = value;
	param_count++;
}

static void
set_seconds(int seconds)
{
	Interval   *interval = palloc0_object(Interval);

	interval->time = (int64) seconds * USECS_PER_SEC;
	set_param(INTERVALOID, IntervalPGetDatum(interval));
}

static Datum
get_column(uint64 row, int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
}

static bool
is_empty(int segment)
{
	Relation	rel = table_open(catalog_get()->segments[segment], AccessShareLock);
	bool		empty = RelationGetNumberOfBlocks(rel) == 0;

	table_close(rel, AccessShareLock);
	return empty;
}

/* ------------------------------------------------------------------------
 * Opening and closing
 * ------------------------------------------------------------------------
 */

static void
open_segment(int segment)
{
	set_param(INT2OID, Int16GetDatum(segment));
	run("INSERT INTO dispatch.segments (segment, opened_at) VALUES ($1, pg_catalog.now())"
		" ON CONFLICT (segment) DO UPDATE SET opened_at = pg_catalog.now(), closed_at = NULL,"
		" blocked_by = NULL");
}

/* An empty segment after this one, going round; -1 if there is none. */
static int
find_empty_after(int segment)
{
	for (int i = 1; i < OUTBOX_SEGMENTS; i++)
		if (is_empty((segment + i) % OUTBOX_SEGMENTS))
			return (segment + i) % OUTBOX_SEGMENTS;
	return -1;
}

/*
 * Where events came in with a dump nobody knows when: their time starts now.
 */
static void
close_unknown_segments(int current)
{
	for (int i = 0; i < OUTBOX_SEGMENTS; i++)
	{
		if (i == current || is_empty(i))
			continue;
		set_param(INT2OID, Int16GetDatum(i));
		run("INSERT INTO dispatch.segments (segment, opened_at, closed_at)"
			" VALUES ($1, pg_catalog.now(), pg_catalog.now()) ON CONFLICT (segment) DO NOTHING");
	}
}

int
retention_rotate(void)
{
	int			current;
	int			next = -1;
	bool		is_due;

	SPI_connect();
	set_seconds(Max(setting_published_retention / SEGMENTS_IN_USE, 1));
	if (run("SELECT segment, opened_at OPERATOR(pg_catalog.+) $1 OPERATOR(pg_catalog.<)"
			" pg_catalog.now() FROM dispatch.segments WHERE closed_at IS NULL"
			" ORDER BY opened_at DESC LIMIT 1") == 0)
	{
		current = Max(find_empty_after(OUTBOX_SEGMENTS - 1), 0);
		open_segment(current);
		close_unknown_segments(current);
		SPI_finish();
		return current;
	}
	current = DatumGetInt16(get_column(0, 1));
	is_due = DatumGetBool(get_column(0, 2));

	if (setting_cleanup_published && is_due && !is_empty(current))
		next = find_empty_after(current);
	if (next >= 0)
	{
		set_param(INT2OID, Int16GetDatum(current));
		run("UPDATE dispatch.segments SET closed_at = pg_catalog.now()"
			" WHERE segment OPERATOR(pg_catalog.=) $1");
		open_segment(next);
		current = next;
	}
	SPI_finish();
	return current;
}

/* ------------------------------------------------------------------------
 * Emptying
 * ------------------------------------------------------------------------
 */

/* What a segment waits for; NULL: nothing needs it any more. */
static char *
find_blocker(int segment, List *backends)
{
	ListCell   *lc;

	foreach(lc, backends)
	{
		Backend    *backend = lfirst(lc);
		Position	position;

		position_load(backend->id, &position);
		if (late_segment_has(backend->id, position.before, segment))
			return psprintf("backend \"%s\" has not delivered all of it", backend->name);
	}
	return NULL;
}

static void
note_blocker(int segment, const char *blocker)
{
	set_param(INT2OID, Int16GetDatum(segment));
	set_param(TEXTOID, CStringGetTextDatum(blocker));
	run("UPDATE dispatch.segments SET blocked_by = $2"
		" WHERE segment OPERATOR(pg_catalog.=) $1 AND blocked_by IS DISTINCT FROM $2");
}

/*
 * Empties a segment; false if it cannot be had for us alone right now.  A lock
 * that is waited for, however shortly, would make everybody wait who comes
 * after, so it is only taken if it is free.
 */
static bool
truncate_segment(int segment, List *backends)
{
	if (!ConditionalLockRelationOid(catalog_get()->segments[segment], AccessExclusiveLock))
		return false;

	/* Somebody who was still writing may have committed since. */
	if (find_blocker(segment, backends) != NULL)
		return false;
	run(psprintf("TRUNCATE dispatch.outbox_%d", segment));
	set_param(INT2OID, Int16GetDatum(segment));
	run("DELETE FROM dispatch.segments WHERE segment OPERATOR(pg_catalog.=) $1");
	return true;
}

void
retention_empty(List *backends)
{
	uint64		count;
	int		   *segments;

	if (!setting_cleanup_published)
		return;
	SPI_connect();
	set_seconds(setting_published_retention);
	count = run("SELECT segment FROM dispatch.segments WHERE closed_at OPERATOR(pg_catalog.+) $1"
				" OPERATOR(pg_catalog.<) pg_catalog.now() ORDER BY closed_at");
	segments = palloc_array(int, count + 1);
	for (uint64 i = 0; i < count; i++)
		segments[i] = DatumGetInt16(get_column(i, 1));

	/* One TRUNCATE a transaction: its lock is to be let go soon. */
	for (uint64 i = 0; i < count; i++)
	{
		char	   *blocker = find_blocker(segments[i], backends);

		if (blocker != NULL)
			note_blocker(segments[i], blocker);
		else if (truncate_segment(segments[i], backends))
			break;
		else
			note_blocker(segments[i], "a transaction has it in use");
	}
	SPI_finish();
}

void
retention_expire(void)
{
	SPI_connect();
	set_seconds(setting_failed_retention);
	set_param(INT4OID, Int32GetDatum(EXPIRE_MAX));
	run("UPDATE dispatch.exceptions SET status = 'expired', data = NULL, options = NULL"
		" WHERE event_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT event_id FROM dispatch.exceptions"
		"  WHERE status = 'failed' AND last_failed_at OPERATOR(pg_catalog.<)"
		"   (pg_catalog.now() OPERATOR(pg_catalog.-) $1) LIMIT $2))");

	/* What was given up is forgotten with the segment that had the event. */
	set_seconds(setting_published_retention);
	set_param(INT4OID, Int32GetDatum(EXPIRE_MAX));
	run("DELETE FROM dispatch.exceptions WHERE event_id OPERATOR(pg_catalog.=) ANY (ARRAY("
		" SELECT x.event_id FROM dispatch.exceptions AS x"
		"  WHERE x.status IN ('discarded', 'expired') AND x.created_at OPERATOR(pg_catalog.<)"
		"   (pg_catalog.now() OPERATOR(pg_catalog.-) $1)"
		"  AND NOT EXISTS (SELECT FROM dispatch.outbox AS o"
		"   WHERE o.backend_id OPERATOR(pg_catalog.=) x.backend_id"
		"   AND o.id OPERATOR(pg_catalog.=) x.id) LIMIT $2))");
	SPI_finish();
}
