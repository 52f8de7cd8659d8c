/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The process that finds the databases that have the extension.
 *
 * There is no list of databases to maintain.  When it starts (with the server,
 * or at promotion), the launcher lets a manager have a look at each database,
 * one after the other; a manager that finds no extension leaves its slot and
 * ends.  From then on commits announce databases: that of CREATE EXTENSION
 * does, and that of a publish() where no manager runs.  A manager that died is
 * started again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "launcher.h"
#include "restart.h"
#include "session.h"
#include "settings.h"
#include "slots.h"

/* A registered manager that has not come up after this (ms) will not. */
#define START_TIMEOUT 60000
/* How often (ms) to look without being woken. */
#define IDLE_WAIT 30000

/* What the launcher remembers of a database slot, by its number. */
typedef struct Launch
{
	uint32		generation;		/* of the slot that this is about */
	Restart		restart;		/* of its manager */
	uint32		starts;			/* managers that had come up at the last one */
} Launch;

static Launch *launches;
static List *unseen = NIL;		/* databases that are still to be looked at */
static Oid	looking_at = InvalidOid;
static SteadyTime next_turn;
static bool told_out_of_workers = false;

void
launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "dispatch", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "dispatch_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "dispatch launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "dispatch launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

static void
detach(int code, Datum arg)
{
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	Slots->launcher_pid = 0;
	Slots->launcher_proc = INVALID_PROC_NUMBER;
	LWLockRelease(Slots->lock);
}

static void
wake_me_at(SteadyTime when)
{
	next_turn = Min(next_turn, when);
}

/* ------------------------------------------------------------------------
 * Databases
 * ------------------------------------------------------------------------
 */

/* Has DROP DATABASE been interrupted?  (DATCONNLIMIT_INVALID_DB, since 15.4.) */
#define INVALID_CONNLIMIT (-2)

static bool
is_of_use(Form_pg_database database)
{
	return database->datallowconn && !database->datistemplate &&
		database->datconnlimit != INVALID_CONNLIMIT;
}

/* All databases that can be connected to and are no templates. */
static List *
list_databases(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *databases = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	row;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((row = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(row);
		MemoryContext old;

		if (!is_of_use(database))
			continue;
		old = MemoryContextSwitchTo(context);
		databases = lappend_oid(databases, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return databases;
}

/* Is the database still there, and open to connections? */
static bool
can_connect(Oid database)
{
	MemoryContext context = CurrentMemoryContext;
	HeapTuple	row;
	bool		can;

	StartTransactionCommand();
	row = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	can = HeapTupleIsValid(row) && is_of_use((Form_pg_database) GETSTRUCT(row));
	if (HeapTupleIsValid(row))
		ReleaseSysCache(row);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return can;
}

/* ------------------------------------------------------------------------
 * Managers
 * ------------------------------------------------------------------------
 */

/* Whoever locked our processes out may have died without letting them in. */
static bool
is_evicted(DatabaseSlot *slot)
{
	if (slot->evictor_pid != 0 && BackendPidGetProc(slot->evictor_pid) == NULL)
		slot->evictor_pid = 0;
	return slot->evictor_pid != 0;
}

static void
release_slot(int number, Oid database)
{
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	if (Slots->databases[number].database == database &&
		Slots->databases[number].manager_pid == 0)
		database_slot_release(&Slots->databases[number]);
	LWLockRelease(Slots->lock);
}

/*
 * May a manager be registered now?  Not while one may still be coming up, nor
 * too soon after one has ended.
 */
static bool
may_launch(Launch *launch, uint32 starts)
{
	SteadyTime	next_at;

	if (launch->restart.started_at != 0 && starts == launch->starts &&
		!steady_is_past(launch->restart.started_at, START_TIMEOUT))
		return false;
	next_at = restart_next(&launch->restart);
	if (steady_ms_until(next_at) == 0)
		return true;
	wake_me_at(next_at);
	return false;
}

static void
launch_manager(int number, Oid database, uint32 generation, uint32 starts)
{
	Launch	   *launch = &launches[number];
	ProcessArgs args = {database, number, generation};
	char		name[BGW_MAXLEN];

	if (launch->generation != generation)
	{
		memset(launch, 0, sizeof(Launch));
		launch->generation = generation;
	}
	if (!may_launch(launch, starts))
		return;
	if (!can_connect(database))
	{
		release_slot(number, database);
		return;
	}

	snprintf(name, sizeof(name), "dispatch manager for database %u", database);
	if (session_register("dispatch_manager_main", name, "dispatch manager",
						 &args, sizeof(args), NULL))
	{
		restart_note_start(&launch->restart);
		launch->starts = starts;
		told_out_of_workers = false;
		return;
	}
	wake_me_at(steady_in(5000));
	if (!told_out_of_workers)
		worker_log(WARNING,
				   (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg("out of background worker slots for dispatch"),
					errdetail("No manager could be started for database %u; its events wait.",
							  database),
					errhint("You might need to increase \"max_worker_processes\".")));
	told_out_of_workers = true;
}

/* Starts a manager in each database slot that has none. */
static void
match_managers(void)
{
	for (int i = 0; i < Slots->nslots; i++)
	{
		DatabaseSlot *slot = &Slots->databases[i];
		Oid			database;
		uint32		generation;
		uint32		starts;
		bool		must_launch;

		LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
		database = slot->database;
		generation = slot->generation;
		must_launch = OidIsValid(database) && slot->manager_pid == 0 && !is_evicted(slot);
		starts = slot->starts;
		if (slot->evictor_pid != 0)
			wake_me_at(steady_in(1000));
		LWLockRelease(Slots->lock);
		if (must_launch)
			launch_manager(i, database, generation, starts);
	}
}

/*
 * Goes on with the look at all databases: when one has been seen to have the
 * extension (its manager stays) or not (its slot is free again), the next.
 */
static void
scan_databases(void)
{
	bool		start;

	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	start = Slots->rescan;
	Slots->rescan = false;
	LWLockRelease(Slots->lock);
	if (start)
	{
		list_free(unseen);
		unseen = list_databases();
	}

	while (OidIsValid(looking_at) || unseen != NIL)
	{
		DatabaseSlot *slot;
		bool		settled;

		LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
		if (!OidIsValid(looking_at))
		{
			looking_at = linitial_oid(unseen);
			if (database_slot_take(looking_at) == NULL)
				looking_at = InvalidOid;	/* all slots are in use */
			else
				unseen = list_delete_first(unseen);
			settled = false;
		}
		else
		{
			slot = database_slot_find(looking_at);
			settled = slot == NULL || slot->manager_pid != 0;
		}
		LWLockRelease(Slots->lock);
		if (!settled)
			break;
		looking_at = InvalidOid;
	}
	if (unseen != NIL)
		wake_me_at(steady_in(1000));
}

void
dispatch_launcher_main(Datum arg)
{
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	Slots->launcher_pid = MyProcPid;
	Slots->launcher_proc = GetNumberFromPGProc(MyProc);
	Slots->rescan = true;
	LWLockRelease(Slots->lock);
	before_shmem_exit(detach, (Datum) 0);
	session_start(InvalidOid);

	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "dispatch launcher",
												ALLOCSET_DEFAULT_SIZES));
	launches = palloc0(Slots->nslots * sizeof(Launch));

	while (!session_stop_requested())
	{
		next_turn = steady_in(IDLE_WAIT);
		scan_databases();
		match_managers();
		session_wait(-1, 0, steady_ms_until(next_turn));
	}
	proc_exit(1);
}
