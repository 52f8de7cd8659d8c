/*-------------------------------------------------------------------------
 *
 * manager.c
 *	  The process that looks after one database.
 *
 * It keeps a worker running for each backend that is to be served, moves
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
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "backends.h"
#include "backoff.h"
#include "catalog.h"
#include "exceptions.h"
#include "manager.h"
#include "position.h"
#include "retention.h"
#include "schedule.h"
#include "session.h"
#include "settings.h"
#include "slots.h"

/* Delays (ms) before a worker that ended by itself is started again. */
#define RESTART_DELAY 500
#define RESTART_MAX_DELAY 60000
/* One that ran for this long (ms) was a good one. */
#define GOOD_RUN 10000
/* A registered process that has not come up after this (ms) will not. */
#define START_TIMEOUT 60000
/* Publishers that still knew a backend when it was dropped are gone after this. */
#define DROP_DELAY 1000

/* How often (ms) to look after retention: a fiftieth of its time, within this. */
#define HOUSE_MIN 500
#define HOUSE_MAX 60000

/* What the manager remembers of a backend. */
typedef struct Ward
{
	int32		backend_id;
	TransactionId version;		/* of its row when it was looked at last */
	TimestampTz started_at;		/* when its worker was registered; 0: never */
	TimestampTz restart_at;		/* when the next may be; 0: it has not ended */
	int			failures;		/* of its workers, in a row */
	bool		is_drained;		/* being dropped, and all is delivered */
	FullTransactionId dropped_before;	/* who began before may publish to it */
	TimestampTz dropped_at;		/* when that was noted; 0: not being dropped */
} Ward;

static DatabaseSlot *MySlot;
static MemoryContext turn_context;	/* of one turn of the loop */
static List *wards = NIL;		/* in TopMemoryContext */
static TimestampTz next_turn;	/* when something is due without a wake-up */
static bool told_out_of_workers = false;
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

static void
wake_me_at(TimestampTz when)
{
	next_turn = Min(next_turn, when);
}

/* ------------------------------------------------------------------------
 * Workers
 * ------------------------------------------------------------------------
 */

static Ward *
ward_of(const Backend *backend)
{
	MemoryContext old;
	ListCell   *lc;
	Ward	   *ward;

	foreach(lc, wards)
	{
		ward = lfirst(lc);
		if (ward->backend_id == backend->id)
			return ward;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	ward = palloc0_object(Ward);
	ward->backend_id = backend->id;
	ward->version = backend->version;
	wards = lappend(wards, ward);
	MemoryContextSwitchTo(old);
	return ward;
}

static void
forget_wards_except(List *backends)
{
	ListCell   *lc;

	foreach(lc, wards)
	{
		Ward	   *ward = lfirst(lc);
		bool		found = false;
		ListCell   *lc2;

		foreach(lc2, backends)
			found = found || ((Backend *) lfirst(lc2))->id == ward->backend_id;
		if (!found)
		{
			wards = foreach_delete_current(wards, lc);
			pfree(ward);
		}
	}
}


static bool
wants_worker(const Backend *backend)
{
	return setting_enabled && settings_allow_cluster() && backend->ours &&
		(backend->enabled || backend->dropping) &&
		!(backend->dropping && (backend->force_drop || ward_of(backend)->is_drained));
}

/*
 * Takes a slot and registers a worker for it; false if there is no room for a
 * process.
 */
static bool
register_worker(const Backend *backend)
{
	ProcessArgs args = {MyDatabaseId, 0, 0};
	WorkerSlot *slot;

	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	slot = worker_slot_take(MyDatabaseId, backend->id);
	if (slot != NULL)
	{
		slot->registered_at = GetCurrentTimestamp();
		args.slot = slot - Slots->workers;
		args.generation = slot->generation;
	}
	LWLockRelease(Slots->lock);

	if (slot != NULL &&
		session_register("dispatch_worker_main",
						 psprintf("dispatch worker for %s", backend->name),
						 "dispatch worker", &args, sizeof(args), NULL))
		return true;

	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	if (slot != NULL && slot->generation == args.generation && slot->pid == 0)
		worker_slot_release(slot);
	LWLockRelease(Slots->lock);
	return false;
}

static void
start_worker(const Backend *backend)
{
	Ward	   *ward = ward_of(backend);
	TimestampTz now = GetCurrentTimestamp();

	if (ward->version != backend->version)
	{
		ward->version = backend->version;
		ward->failures = 0;
		ward->started_at = 0;
		ward->restart_at = 0;
	}
	if (ward->started_at != 0 && ward->restart_at == 0)
	{
		/* It has just ended. */
		ward->failures = now - ward->started_at > GOOD_RUN * INT64CONST(1000) ?
			1 : ward->failures + 1;
		ward->restart_at = TimestampTzPlusMilliseconds(now, backoff_delay(ward->failures,
																		  RESTART_DELAY,
																		  RESTART_MAX_DELAY));
	}
	if (ward->restart_at > now)
	{
		wake_me_at(ward->restart_at);
		return;
	}

	if (register_worker(backend))
	{
		ward->started_at = now;
		ward->restart_at = 0;
		return;
	}

	MySlot->out_of_workers = true;
	wake_me_at(TimestampTzPlusMilliseconds(now, 5000));
	if (!told_out_of_workers)
		worker_log(WARNING,
				   (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg("out of background worker slots for dispatch in database \"%s\"",
						   database_name),
					errdetail("No worker could be started for backend \"%s\"; its events wait.",
							  backend->name),
					errhint("You might need to increase \"max_worker_processes\".")));
	told_out_of_workers = true;
}

/* Starts, and asks to end, so that each backend has the worker it should have. */
static void
match_workers(List *backends)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	for (int i = 0; i < Slots->nslots; i++)
	{
		WorkerSlot *slot = &Slots->workers[i];
		bool		wanted = false;

		if (slot->database != MyDatabaseId)
			continue;
		foreach(lc, backends)
		{
			Backend    *backend = lfirst(lc);

			if (backend->id == slot->backend_id)
				wanted = wants_worker(backend);
		}
		if (!wanted && !slot->stop)
		{
			slot->stop = true;
			slots_wake_worker(MyDatabaseId, slot->backend_id);
		}
		if (slot->pid == 0 && now - slot->registered_at > START_TIMEOUT * INT64CONST(1000))
			worker_slot_release(slot);
	}
	LWLockRelease(Slots->lock);

	MySlot->out_of_workers = false;
	foreach(lc, backends)
	{
		Backend    *backend = lfirst(lc);
		bool		has_worker;

		LWLockAcquire(Slots->lock, LW_SHARED);
		has_worker = worker_slot_find(MyDatabaseId, backend->id) != NULL;
		LWLockRelease(Slots->lock);
		if (wants_worker(backend) && !has_worker)
			start_worker(backend);
	}
	if (!MySlot->out_of_workers)
		told_out_of_workers = false;
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
	TimestampTz now = GetCurrentTimestamp();
	Position	position;
	TimestampTz oldest;
	bool		has_worker;

	if (ward->dropped_at == 0)
	{
		ward->dropped_at = now;
		ward->dropped_before = ReadNextFullTransactionId();
	}
	wake_me_at(TimestampTzPlusMilliseconds(Max(now, ward->dropped_at), DROP_DELAY));
	if (now - ward->dropped_at < DROP_DELAY * INT64CONST(1000) ||
		TransactionIdPrecedes(GetActiveSnapshot()->xmin,
							  XidFromFullTransactionId(ward->dropped_before)))
		return;

	position_current(backend->id, &position);
	ward->is_drained = backend->force_drop ||
		(position_count_pending(backend->id, &position, 1, &oldest) == 0 &&
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
	wake_me_at(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), 1000));
	return false;
}

/* Retention: what is not urgent. */
static void
keep_house(List *backends)
{
	static TimestampTz next = 0;
	static int	retention = 0;
	TimestampTz now = GetCurrentTimestamp();
	int			segment;

	if (now < next && retention == setting_published_retention)
	{
		wake_me_at(next);
		return;
	}
	if (run_step(retention_rotate, &segment, "rotate segments"))
		pg_atomic_write_u32(&MySlot->segment, segment);
	run_step(retention_empty, backends, "empty a segment");
	run_step(retention_expire, NULL, "expire dead letters");
	retention = setting_published_retention;
	next = TimestampTzPlusMilliseconds(now, Max(HOUSE_MIN, Min(HOUSE_MAX,
															   setting_published_retention * 20L)));
	wake_me_at(next);
}

static void
turn(void)
{
	List	   *backends = NIL;
	TimestampTz due = 0;

	MemoryContextReset(turn_context);
	next_turn = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), setting_sleep_time);

	if (!run_step(read_backends, &backends, "read the backends"))
		return;
	forget_wards_except(backends);
	match_workers(backends);
	run_step(finish_drops, backends, "finish dropping a backend");
	run_step(schedule_release, &due, "move scheduled events");
	if (due != 0)
		wake_me_at(due);
	keep_house(backends);
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
		session_wait(-1, 0, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_turn),
					 PG_WAIT_EXTENSION);
	}
	proc_exit(1);
}
