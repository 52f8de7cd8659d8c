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
 * backend's position is after.  A backend whose row is missing was dropped, or
 * has been lost, as by a restore that went wrong; only in the first case its
 * position says so, and its events may go.  Where all segments are in use the
 * current one just grows.
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
#include "sql_params.h"
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

/* Runs a statement about one segment, which is $1. */
static void
run_for(int segment, const char *statement)
{
	Params		params = {0};

	param_add(&params, INT2OID, Int16GetDatum(segment), false);
	params_run(&params, statement, false);
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
	run_for(segment,
			"INSERT INTO dispatch.segments (segment, opened_at) VALUES ($1, pg_catalog.now())"
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
 * Where events came in with a dump, or through a publisher that did not know
 * which segment is current, nobody knows when: their time starts now.
 */
static void
close_unknown_segments(int current)
{
	for (int i = 0; i < OUTBOX_SEGMENTS; i++)
	{
		if (i == current || is_empty(i))
			continue;
		run_for(i,
				"INSERT INTO dispatch.segments (segment, opened_at, closed_at) VALUES"
				" ($1, pg_catalog.now(), pg_catalog.now()) ON CONFLICT (segment) DO NOTHING");
	}
}

/* The clock was set back: a time that is yet to come, maybe in years, is now. */
static void
forget_future(void)
{
	SPI_execute("UPDATE dispatch.segments SET opened_at = least(opened_at, pg_catalog.now()),"
				" closed_at = least(closed_at, pg_catalog.now())"
				" WHERE opened_at OPERATOR(pg_catalog.>) pg_catalog.now()"
				" OR closed_at OPERATOR(pg_catalog.>) pg_catalog.now()", false, 0);
}

void
retention_rotate(void *arg)
{
	Params		params = {0};
	int			current;
	int			next = -1;
	bool		is_due;

	SPI_connect();
	forget_future();
	param_add_seconds(&params, Max(setting_published_retention / SEGMENTS_IN_USE, 1));
	if (params_run(&params,
				   "SELECT segment, opened_at OPERATOR(pg_catalog.+) $1 OPERATOR(pg_catalog.<)"
				   " pg_catalog.now() FROM dispatch.segments WHERE closed_at IS NULL"
				   " ORDER BY opened_at DESC LIMIT 1", false) == 0)
	{
		current = Max(find_empty_after(OUTBOX_SEGMENTS - 1), 0);
		open_segment(current);
		close_unknown_segments(current);
		SPI_finish();
		*(int *) arg = current;
		return;
	}
	current = DatumGetInt16(get_column(0, 1));
	is_due = DatumGetBool(get_column(0, 2));

	if (setting_cleanup_published && is_due && !is_empty(current))
		next = find_empty_after(current);
	if (next >= 0)
	{
		run_for(current,
				"UPDATE dispatch.segments SET closed_at = pg_catalog.now()"
				" WHERE segment OPERATOR(pg_catalog.=) $1");
		open_segment(next);
		current = next;
	}
	close_unknown_segments(current);
	SPI_finish();
	*(int *) arg = current;
}

/* ------------------------------------------------------------------------
 * Emptying
 * ------------------------------------------------------------------------
 */

/* Backends that the segment has events of, and that are missing without having been dropped. */
static List *
find_lost_backends(int segment)
{
	/* One probe of an index a backend, however many events it has. */
	char	   *query =
		psprintf("WITH RECURSIVE present (id) AS ("
				 " SELECT (SELECT o.backend_id FROM dispatch.outbox_%d AS o"
				 "  ORDER BY o.backend_id LIMIT 1)"
				 " UNION ALL"
				 " SELECT (SELECT o.backend_id FROM dispatch.outbox_%d AS o"
				 "  WHERE o.backend_id OPERATOR(pg_catalog.>) p.id ORDER BY o.backend_id LIMIT 1)"
				 " FROM present AS p WHERE p.id IS NOT NULL)"
				 " SELECT p.id FROM present AS p WHERE p.id IS NOT NULL"
				 " AND NOT EXISTS (SELECT FROM dispatch.backends AS b"
				 "  WHERE b.id OPERATOR(pg_catalog.=) p.id)"
				 " AND NOT EXISTS (SELECT FROM dispatch.positions AS q"
				 "  WHERE q.backend_id OPERATOR(pg_catalog.=) p.id AND q.dropped)",
				 segment, segment);
	List	   *lost = NIL;

	SPI_execute(query, true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		lost = lappend_int(lost, DatumGetInt32(get_column(i, 1)));
	return lost;
}

static bool
is_needed_by(int32 backend_id, int segment)
{
	Position	position;

	position_load(backend_id, &position);
	return late_segment_has(backend_id, position.before, segment);
}

/* What a segment waits for; NULL: nothing needs it any more. */
static char *
find_blocker(int segment, List *backends)
{
	ListCell   *lc;

	foreach(lc, backends)
	{
		Backend    *backend = lfirst(lc);

		if (is_needed_by(backend->id, segment))
			return psprintf("backend \"%s\" has not delivered all of it", backend->name);
	}
	foreach(lc, find_lost_backends(segment))
		if (is_needed_by(lfirst_int(lc), segment))
			return psprintf("backend %d, which is missing, has not delivered all of it",
							lfirst_int(lc));
	return NULL;
}

static void
note_blocker(int segment, const char *blocker)
{
	Params		params = {0};

	param_add(&params, INT2OID, Int16GetDatum(segment), false);
	param_add_text(&params, blocker);
	params_run(&params,
			   "UPDATE dispatch.segments SET blocked_by = $2"
			   " WHERE segment OPERATOR(pg_catalog.=) $1 AND blocked_by IS DISTINCT FROM $2", false);
}

/*
 * Empties a segment; false if it cannot be had for us alone right now.  A lock
 * that is waited for, however shortly, would make everybody wait who comes
 * after, so it is only taken if it is free.
 */
static bool
truncate_segment(int segment)
{
	char	   *blocker;

	if (!ConditionalLockRelationOid(catalog_get()->segments[segment], AccessExclusiveLock))
		return false;

	/*
	 * Whoever was still writing has committed by now, perhaps to a backend
	 * that he made himself: look again, at what there is now.
	 */
	PushActiveSnapshot(GetLatestSnapshot());
	blocker = find_blocker(segment, backends_read_all());
	PopActiveSnapshot();
	if (blocker != NULL)
		return false;

	SPI_execute(psprintf("TRUNCATE dispatch.outbox_%d", segment), false, 0);
	run_for(segment, "DELETE FROM dispatch.segments WHERE segment OPERATOR(pg_catalog.=) $1");
	return true;
}

void
retention_empty(void *arg)
{
	List	   *backends = arg;
	Params		params = {0};
	uint64		count;
	int		   *segments;

	if (!setting_cleanup_published)
		return;
	SPI_connect();
	param_add_seconds(&params, setting_published_retention);
	count = params_run(&params,
					   "SELECT segment FROM dispatch.segments"
					   " WHERE closed_at OPERATOR(pg_catalog.+) $1"
					   " OPERATOR(pg_catalog.<) pg_catalog.now() ORDER BY closed_at", false);
	segments = palloc_array(int, count + 1);
	for (uint64 i = 0; i < count; i++)
		segments[i] = DatumGetInt16(get_column(i, 1));

	/* One TRUNCATE a transaction: its lock is to be let go soon. */
	for (uint64 i = 0; i < count; i++)
	{
		char	   *blocker = find_blocker(segments[i], backends);

		if (blocker != NULL)
			note_blocker(segments[i], blocker);
		else if (truncate_segment(segments[i]))
			break;
		else
			note_blocker(segments[i], "a transaction has it in use");
	}
	SPI_finish();
}

void
retention_expire(void *arg)
{
	Params		failed = {0};
	Params		published = {0};

	SPI_connect();
	param_add_seconds(&failed, setting_failed_retention);
	param_add(&failed, INT4OID, Int32GetDatum(EXPIRE_MAX), false);
	/* Once more "failed": retry() may have been faster, and we have waited for it. */
	params_run(&failed,
		"UPDATE dispatch.exceptions SET status = 'expired', data = NULL, options = NULL,"
		" attributes = NULL, content = NULL"
		" WHERE status = 'failed' AND event_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT event_id FROM dispatch.exceptions"
		"  WHERE status = 'failed' AND last_failed_at OPERATOR(pg_catalog.<)"
		"   (pg_catalog.now() OPERATOR(pg_catalog.-) $1) LIMIT $2))", false);

	/* What was given up is forgotten with the segment that had the event. */
	param_add_seconds(&published, setting_published_retention);
	param_add(&published, INT4OID, Int32GetDatum(EXPIRE_MAX), false);
	params_run(&published,
		"DELETE FROM dispatch.exceptions WHERE event_id OPERATOR(pg_catalog.=) ANY (ARRAY("
		" SELECT x.event_id FROM dispatch.exceptions AS x"
		"  WHERE x.status IN ('discarded', 'expired') AND x.created_at OPERATOR(pg_catalog.<)"
		"   (pg_catalog.now() OPERATOR(pg_catalog.-) $1)"
		"  AND NOT EXISTS (SELECT FROM dispatch.outbox AS o"
		"   WHERE o.backend_id OPERATOR(pg_catalog.=) x.backend_id"
		"   AND o.id OPERATOR(pg_catalog.=) x.id) LIMIT $2))", false);
	/* Not of one that is missing: a dump may be on its way in, in any order. */
	SPI_execute("DELETE FROM dispatch.positions AS p WHERE p.dropped AND NOT EXISTS ("
				" SELECT FROM dispatch.backends AS b WHERE b.id OPERATOR(pg_catalog.=) p.backend_id)"
				" AND NOT EXISTS (SELECT FROM dispatch.outbox AS o"
				"  WHERE o.backend_id OPERATOR(pg_catalog.=) p.backend_id)", false, 0);
	SPI_finish();
}
