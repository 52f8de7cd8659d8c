/*-------------------------------------------------------------------------
 *
 * adopt.c
 *	  dispatch.adopt(): a copy of a database may deliver from now on.
 *
 * Rows of dispatch.backends say which installation may deliver for them, so a
 * restored dump, or a copy made with CREATE DATABASE ... TEMPLATE, sends
 * nothing by itself.  When the original is gone for good, or the copy is to
 * have a life of its own, somebody says so by calling this.
 *
 * The events and positions of the copy are in the transaction numbers of the
 * original, which mean nothing here.  By those numbers the undelivered events
 * are told from the others; they are put aside in their order, as scheduled
 * events that are due, and the outbox and the positions start anew, empty, in
 * the numbers of this installation.  Then the events move into the outbox like
 * any scheduled ones.  (What was published here before is put aside
 * already: see publish().)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "backends.h"
#include "catalog.h"
#include "schedule.h"
#include "wake.h"

PG_FUNCTION_INFO_V1(dispatch_adopt);

/* All but the times, which are nothing but ordinals: all are in the past. */
#define COLUMNS \
	"event_id, created_at, backend_id, max_retries, event_type, source, subject, key," \
	" data, options, attributes, content"

/*
 * One at a time, and before anything else is read or locked that the other may
 * want.  Neither publishers nor our processes take a lock that conflicts.
 */
#define LOCK_OUT_OTHERS "LOCK TABLE dispatch.scheduled IN SHARE UPDATE EXCLUSIVE MODE"

/* The function has a search_path of its own: operators need no schema. */
static const char *const statements[] = {
	"LOCK TABLE dispatch.scheduled, dispatch.positions, dispatch.backends, dispatch.outbox"
	" IN ACCESS EXCLUSIVE MODE",

	/* Of what is not settled, first what "upto" sees, then the rest, by id. */
	"INSERT INTO dispatch.scheduled (" COLUMNS ", scheduled_at)"
	" SELECT " COLUMNS ", timestamptz '1900-01-01' + n * interval '1 microsecond'"
	" FROM (SELECT o.*, row_number() OVER (ORDER BY"
	"   coalesce(pg_visible_in_snapshot(o.xid, p.upto_snapshot), false) DESC, o.id) AS n"
	"  FROM dispatch.outbox AS o"
	"  JOIN dispatch.backends AS b ON b.id = o.backend_id"
	"  LEFT JOIN dispatch.positions AS p ON p.backend_id = o.backend_id"
	"  WHERE (p.backend_id IS NULL OR NOT (pg_visible_in_snapshot(o.xid, p.before_snapshot)"
	"   OR (pg_visible_in_snapshot(o.xid, p.upto_snapshot) AND o.id <= p.settled_id)))) AS u",

	"TRUNCATE dispatch.outbox",
	"DELETE FROM dispatch.segments",
	"DELETE FROM dispatch.positions",
	"UPDATE dispatch.backends SET identity = dispatch.identity()",
};

/* What is committed while locks are waited for must be seen, or it is lost. */
static void
check_isolation(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("dispatch.adopt() needs the isolation level READ COMMITTED"),
				 errdetail("With the snapshot of this transaction it could lose events that"
						   " were committed since."),
				 errhint("Begin with BEGIN ISOLATION LEVEL READ COMMITTED.")));
}

/* Not "read only": that would look with a snapshot from before the lock. */
static bool
is_ours_already(void)
{
	SPI_execute("SELECT FROM dispatch.backends"
				" WHERE identity <> dispatch.identity()", false, 1);
	return SPI_processed == 0;
}

Datum
dispatch_adopt(PG_FUNCTION_ARGS)
{
	check_isolation();
	SPI_connect();
	SPI_execute(LOCK_OUT_OTHERS, false, 0);
	if (is_ours_already())
	{
		ereport(NOTICE,
				(errmsg("all backends are of this installation: there is nothing to adopt")));
		SPI_finish();
		PG_RETURN_VOID();
	}
	catalog_lock_out_processes();
	backends_adopting = true;
	PG_TRY();
	{
		for (int i = 0; i < (int) lengthof(statements); i++)
			SPI_execute(statements[i], false, 0);
	}
	PG_FINALLY();
	{
		backends_adopting = false;
	}
	PG_END_TRY();
	SPI_finish();

	/* What is put aside goes before what is published from now on. */
	schedule_release_all();
	wake_all_at_commit();
	ereport(LOG,
			(errmsg("dispatch: this copy of database \"%s\" was adopted and delivers from now on",
					get_database_name(MyDatabaseId))));
	PG_RETURN_VOID();
}
