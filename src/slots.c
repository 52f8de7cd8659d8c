/*-------------------------------------------------------------------------
 *
 * slots.c
 *	  Shared memory: which manager and worker runs where, and how it fares.
 *
 * There are as many slots as there can be background processes, so a slot is
 * never what runs out.  Nothing here holds a pointer or a file descriptor of a
 * process: a slot may outlive the process that it is about.
 *
 * Waking sets the latch of a process slot of the server.  It reads our slots
 * without the lock, for it runs in every commit that published something: a
 * process that has just come or gone is woken for nothing, which is harmless,
 * or not woken, which is harmless too, for a worker that starts looks at once.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "slots.h"

SlotArea   *Slots = NULL;

const char *const worker_state_names[] = {
	[WORKER_STARTING] = "starting",
	[WORKER_RUNNING] = "running",
	[WORKER_CONNECTING] = "connecting",
	[WORKER_OUTAGE] = "outage",
	[WORKER_MISCONFIGURED] = "configuration error",
	[WORKER_BLOCKED] = "blocked",
	[WORKER_DATABASE_ERROR] = "database error",
};

#define SLOTS_TRANCHE "dispatch"

static Size
slots_size(void)
{
	Size		size = MAXALIGN(sizeof(SlotArea));

	size = add_size(size, MAXALIGN(mul_size(max_worker_processes, sizeof(DatabaseSlot))));
	return add_size(size, mul_size(max_worker_processes, sizeof(WorkerSlot)));
}

void
slots_request(void)
{
	RequestAddinShmemSpace(slots_size());
	RequestNamedLWLockTranche(SLOTS_TRANCHE, 1);
}

void
slots_init(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	Slots = ShmemInitStruct("dispatch", slots_size(), &found);
	if (!found)
	{
		char	   *next = (char *) Slots + MAXALIGN(sizeof(SlotArea));

		memset(Slots, 0, slots_size());
		Slots->lock = &(GetNamedLWLockTranche(SLOTS_TRANCHE))->lock;
		Slots->launcher_proc = INVALID_PROC_NUMBER;
		Slots->nslots = max_worker_processes;
		Slots->databases = (DatabaseSlot *) next;
		next += MAXALIGN(mul_size(max_worker_processes, sizeof(DatabaseSlot)));
		Slots->workers = (WorkerSlot *) next;
		for (int i = 0; i < Slots->nslots; i++)
		{
			Slots->databases[i].manager_proc = INVALID_PROC_NUMBER;
			pg_atomic_init_u32(&Slots->databases[i].segment, 0);
			pg_atomic_init_u32(&Slots->databases[i].wakes, 0);
			Slots->workers[i].proc = INVALID_PROC_NUMBER;
			pg_atomic_init_u32(&Slots->workers[i].wakes, 0);
			pg_atomic_init_u32(&Slots->workers[i].flush_requested, 0);
			pg_atomic_init_u32(&Slots->workers[i].flush_done, 0);
			SpinLockInit(&Slots->workers[i].mutex);
		}
	}
	LWLockRelease(AddinShmemInitLock);
}

void
slots_require(void)
{
	if (Slots == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("dispatch must be loaded via \"shared_preload_libraries\""),
				 errhint("Add dispatch to \"shared_preload_libraries\" in postgresql.conf, and restart the server.")));
}

/* ------------------------------------------------------------------------
 * Databases
 * ------------------------------------------------------------------------
 */

DatabaseSlot *
database_slot_find(Oid database)
{
	for (int i = 0; i < Slots->nslots; i++)
		if (Slots->databases[i].database == database)
			return &Slots->databases[i];
	return NULL;
}

/* The slot of a database, made if need be; NULL if all are taken. */
DatabaseSlot *
database_slot_take(Oid database)
{
	DatabaseSlot *slot = database_slot_find(database);

	if (slot != NULL)
		return slot;
	slot = database_slot_find(InvalidOid);
	if (slot != NULL)
	{
		slot->database = database;
		slot->generation++;
		slot->manager_pid = 0;
		slot->manager_proc = INVALID_PROC_NUMBER;
		slot->out_of_workers = false;
		slot->evictor_pid = 0;
		pg_atomic_write_u32(&slot->segment, 0);
	}
	return slot;
}

void
database_slot_release(DatabaseSlot *slot)
{
	slot->database = InvalidOid;
	slot->manager_pid = 0;
	slot->manager_proc = INVALID_PROC_NUMBER;
}

/* The segment that publish() appends to; any is correct, see retention. */
uint32
database_current_segment(Oid database)
{
	DatabaseSlot *slot = Slots ? database_slot_find(database) : NULL;

	return slot != NULL ? pg_atomic_read_u32(&slot->segment) : 0;
}

/* ------------------------------------------------------------------------
 * Workers
 * ------------------------------------------------------------------------
 */

WorkerSlot *
worker_slot_find(Oid database, int32 backend_id)
{
	for (int i = 0; i < Slots->nslots; i++)
		if (Slots->workers[i].database == database &&
			Slots->workers[i].backend_id == backend_id)
			return &Slots->workers[i];
	return NULL;
}

/* A free slot, taken for a worker to come; NULL if there is none. */
WorkerSlot *
worker_slot_take(Oid database, int32 backend_id)
{
	for (int i = 0; i < Slots->nslots; i++)
	{
		WorkerSlot *slot = &Slots->workers[i];

		if (OidIsValid(slot->database))
			continue;
		slot->generation++;
		slot->pid = 0;
		slot->proc = INVALID_PROC_NUMBER;
		slot->stop = false;
		pg_atomic_write_u32(&slot->flush_requested, 0);
		pg_atomic_write_u32(&slot->flush_done, 0);
		memset(&slot->report, 0, sizeof(slot->report));
		slot->backend_id = backend_id;
		slot->database = database;
		return slot;
	}
	return NULL;
}

void
worker_slot_release(WorkerSlot *slot)
{
	slot->proc = INVALID_PROC_NUMBER;
	slot->pid = 0;
	slot->backend_id = 0;
	slot->database = InvalidOid;
}

int
worker_slot_count(Oid database)
{
	int			n = 0;

	for (int i = 0; i < Slots->nslots; i++)
		if (Slots->workers[i].database == database)
			n++;
	return n;
}

/* ------------------------------------------------------------------------
 * Waking
 * ------------------------------------------------------------------------
 */

static void
set_latch_of(ProcNumber number)
{
	if (number != INVALID_PROC_NUMBER)
		SetLatch(&GetPGProcByNumber(number)->procLatch);
}

void
slots_wake_launcher(void)
{
	set_latch_of(Slots->launcher_proc);
}

void
slots_wake_manager(Oid database)
{
	DatabaseSlot *slot = database_slot_find(database);

	if (slot == NULL)
		return;
	(void) pg_atomic_fetch_add_u32(&slot->wakes, 1);
	set_latch_of(slot->manager_proc);
}

static void
wake_worker(WorkerSlot *slot)
{
	(void) pg_atomic_fetch_add_u32(&slot->wakes, 1);
	set_latch_of(slot->proc);
}

void
slots_wake_worker(Oid database, int32 backend_id)
{
	WorkerSlot *slot = worker_slot_find(database, backend_id);

	if (slot != NULL)
		wake_worker(slot);
}

void
slots_wake_workers(Oid database)
{
	for (int i = 0; i < Slots->nslots; i++)
		if (Slots->workers[i].database == database)
			wake_worker(&Slots->workers[i]);
}
