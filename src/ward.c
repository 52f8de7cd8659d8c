/*-------------------------------------------------------------------------
 *
 * ward.c
 *	  The backends that a manager looks after, and their workers.
 *
 * A worker that ends by itself is started again, later and later if it does
 * not run for long; a change of its backend starts it at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/memutils.h"

#include "manager.h"
#include "session.h"
#include "settings.h"
#include "ward.h"

/* A registered process that has not come up after this (ms) will not. */
#define START_TIMEOUT 60000
/* How long (ms) a worker may take to end when it is asked to. */
#define STOP_PATIENCE 5000

static List *wards = NIL;		/* in TopMemoryContext */
static bool told_out_of_workers = false;

Ward *
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

void
wards_forget_except(List *backends)
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
		slot->registered_at = steady_now();
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
start_worker(const Backend *backend, DatabaseSlot *database, const char *database_name)
{
	Ward	   *ward = ward_of(backend);
	SteadyTime	next_at;

	if (ward->version != backend->version)
	{
		ward->version = backend->version;
		memset(&ward->restart, 0, sizeof(Restart));
	}
	next_at = restart_next(&ward->restart);
	if (steady_ms_until(next_at) > 0)
	{
		manager_wake_at(next_at);
		return;
	}

	if (register_worker(backend))
	{
		restart_note_start(&ward->restart);
		return;
	}

	database->out_of_workers = true;
	manager_wake_at(steady_in(5000));
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

/*
 * Asks a worker to end, and tells it to when it does not: the function of an
 * "sql" backend may keep it, and swallow its timeout.
 */
static void
stop_worker(WorkerSlot *slot)
{
	if (!slot->stop)
	{
		slot->stop = true;
		slot->stop_at = steady_now();
		slots_wake_worker(MyDatabaseId, slot->backend_id);
	}
	else if (slot->pid != 0 && steady_is_past(slot->stop_at, STOP_PATIENCE))
		kill(slot->pid, SIGTERM);
	manager_wake_at(steady_in(STOP_PATIENCE));
}

/* Starts, and asks to end, so that each backend has the worker it should have. */
void
wards_match_workers(List *backends, DatabaseSlot *database, const char *database_name)
{
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
		if (!wanted)
			stop_worker(slot);
		if (slot->pid == 0 && steady_is_past(slot->registered_at, START_TIMEOUT))
			worker_slot_release(slot);
	}
	LWLockRelease(Slots->lock);

	database->out_of_workers = false;
	foreach(lc, backends)
	{
		Backend    *backend = lfirst(lc);
		bool		has_worker;

		LWLockAcquire(Slots->lock, LW_SHARED);
		has_worker = worker_slot_find(MyDatabaseId, backend->id) != NULL;
		LWLockRelease(Slots->lock);
		if (wants_worker(backend) && !has_worker)
			start_worker(backend, database, database_name);
	}
	if (!database->out_of_workers)
		told_out_of_workers = false;
}
