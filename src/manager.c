/*-------------------------------------------------------------------------
 *
 * manager.c
 *	  The process that looks after one database.
 *
 * It keeps a worker running for each backend that is to be served (ward.c), moves
 * scheduled events into the outbox when they are due, and finishes dropping
 * backends.  In a database without the extension it ends at once: that is how
 * the launcher finds out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends.h"
#include "catalog.h"
#include "exceptions.h"
#include "manager.h"
#include "position.h"
#include "publications.h"
#include "retention.h"
#include "schedule.h"
#include "session.h"
#include "settings.h"
#include "slots.h"
#include "ward.h"

/* Publishers that still knew a backend when it was dropped are gone after this. */
#define DROP_DELAY 1000

/* How often (ms) to look after retention: a fiftieth of its time, within this. */
#define HOUSE_MIN 500
#define HOUSE_MAX 60000

static DatabaseSlot *MySlot;
static MemoryContext turn_context;	/* of one turn of the loop */
static SteadyTime next_turn;	/* when something is due without a wake-up */
static bool leaving = false;	/* the launcher may forget this database */
static char *database_name;		/* in turn_context */

/* ------------------------------------------------------------------------
 * Start and end
 * ------------------------------------------------------------------------
 */

static void
detach(int code, Datum arg)
{
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	MySlot->manager_pid = 0;
	MySlot->manager_proc = INVALID_PROC_NUMBER;
	if (leaving)
		database_slot_release(MySlot);
	LWLockRelease(Slots->lock);
	slots_wake_launcher();
}

static bool
attach(const ProcessArgs *args)
{
	bool		mine;

	MySlot = &Slots->databases[args->slot];
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	mine = MySlot->database == args->database && MySlot->generation == args->generation &&
		MySlot->manager_pid == 0 && MySlot->evictor_pid == 0;
	if (mine)
	{
		MySlot->manager_pid = MyProcPid;
		MySlot->manager_proc = GetNumberFromPGProc(MyProc);
		MySlot->starts++;
	}
	LWLockRelease(Slots->lock);
	if (mine)
	{
		before_shmem_exit(detach, (Datum) 0);
		slots_wake_launcher();
	}
	return mine;
}

/* There is nothing to do in this database. */
static void
leave_database(void)
{
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	for (int i = 0; i < Slots->nslots; i++)
		if (Slots->workers[i].database == MyDatabaseId)
			Slots->workers[i].stop = true;
	slots_wake_workers(MyDatabaseId);
	LWLockRelease(Slots->lock);
	leaving = !catalog_extension_replaced;
	proc_exit(0);
}

void
manager_wake_at(SteadyTime when)
{
	next_turn = Min(next_turn, when);
}

/* ------------------------------------------------------------------------
 * Dropping backends
 * ------------------------------------------------------------------------
 */

/*
 * A transaction that looked the backend up before it was dropped may still be
 * about to publish to it.  So the row stays, taking no new events, until all
 * that were running then have ended; by then, unless the drop is forced, the
 * worker has delivered what they published.
 */
static void
finish_drop(const Backend *backend)
{
	Ward	   *ward = ward_of(backend);
	Position	position;
	TimestampTz oldest;
	bool		has_worker;

	if (ward->dropped_at == 0)
	{
		ward->dropped_at = steady_now();
		ward->dropped_before = ReadNextFullTransactionId();
	}
	manager_wake_at(steady_in(DROP_DELAY));
	if (!steady_is_past(ward->dropped_at, DROP_DELAY) ||
		TransactionIdPrecedes(GetActiveSnapshot()->xmin,
							  XidFromFullTransactionId(ward->dropped_before)))
		return;

	/* What another installation's position means is not known before adopt(). */
	position_current(backend->id, &position);
	ward->is_drained = backend->force_drop ||
		(backend->ours && position_count_pending(backend->id, &position, 1, &oldest) == 0 &&
		 exceptions_count_open(backend->id) == 0 && schedule_count(backend->id) == 0);
	if (!ward->is_drained)
		return;

	/* Its worker ends by the next turn, and wakes us. */
	LWLockAcquire(Slots->lock, LW_SHARED);
	has_worker = worker_slot_find(MyDatabaseId, backend->id) != NULL;
	LWLockRelease(Slots->lock);
	if (has_worker)
		return;
	backends_remove(backend->id);
	worker_log(LOG, (errmsg("backend \"%s\" is dropped", backend->name)));
}

/* ------------------------------------------------------------------------
 * The loop
 * ------------------------------------------------------------------------
 */

static void
read_backends(void *arg)
{
	MemoryContext old = MemoryContextSwitchTo(turn_context);

	*(List **) arg = backends_read_all();
	database_name = get_database_name(MyDatabaseId);
	MemoryContextSwitchTo(old);
}

static void
finish_drops(void *arg)
{
	ListCell   *lc;

	foreach(lc, (List *) arg)
		if (((Backend *) lfirst(lc))->dropping)
			finish_drop(lfirst(lc));
}

/*
 * Runs a step; false if it failed, which the log hears of once until that very
 * step works again.
 */
static bool
run_step(void (*step) (void *arg), void *arg, const char *what)
{
	static const char *told = NULL;
	const char *error;

	switch (session_run(step, arg, &error))
	{
		case STEP_DONE:
			if (told != NULL && strcmp(told, what) == 0)
				told = NULL;
			return true;
		case STEP_NO_EXTENSION:
			leave_database();
		case STEP_ERROR:
			break;
	}
	if (told == NULL || strcmp(told, what) != 0)
		worker_log(WARNING,
				   (errmsg("dispatch manager could not %s: %s", what, error),
					errdetail("It goes on trying.")));
	told = what;
	manager_wake_at(steady_in(1000));
	return false;
}

/* Retention: what is not urgent. */
static void
keep_house(List *backends)
{
	static SteadyTime next = 0;
	static int	retention = 0;
	int			segment;

	if (steady_ms_until(next) > 0 && retention == setting_published_retention)
	{
		manager_wake_at(next);
		return;
	}
	if (run_step(retention_rotate, &segment, "rotate segments"))
		pg_atomic_write_u32(&MySlot->segment, segment);
	run_step(retention_empty, backends, "empty a segment");
	run_step(retention_expire, NULL, "expire dead letters");
	retention = setting_published_retention;
	next = steady_in(Max(HOUSE_MIN, Min(HOUSE_MAX, setting_published_retention * 20L)));
	manager_wake_at(next);
}

/* Once, and when the workers are on their way. */
static void
look_for_publications(void)
{
	static bool has_looked = false;

	if (!has_looked)
		has_looked = run_step(publications_warn, NULL, "look for publications of its tables");
}

static void
turn(void)
{
	List	   *backends = NIL;
	TimestampTz due = 0;

	MemoryContextReset(turn_context);
	next_turn = steady_in(setting_sleep_time);

	if (!run_step(read_backends, &backends, "read the backends"))
		return;
	wards_forget_except(backends);
	wards_match_workers(backends, MySlot, database_name);
	run_step(finish_drops, backends, "finish dropping a backend");
	run_step(schedule_release, &due, "move scheduled events");
	if (due != 0)
		manager_wake_at(steady_in(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), due)));
	keep_house(backends);
	look_for_publications();
}

void
dispatch_manager_main(Datum arg)
{
	ProcessArgs args;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	if (!attach(&args))
		proc_exit(0);
	session_start(args.database);
	turn_context = AllocSetContextCreate(TopMemoryContext, "dispatch manager",
										 ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(turn_context);

	while (!session_stop_requested())
	{
		uint32		wakes = pg_atomic_read_u32(&MySlot->wakes);

		turn();
		/* A step that waited for something may have reset the latch. */
		if (wakes != pg_atomic_read_u32(&MySlot->wakes))
			next_turn = 0;
		session_wait(-1, 0, steady_ms_until(next_turn));
	}
	proc_exit(1);
}
