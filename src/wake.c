/*-------------------------------------------------------------------------
 *
 * wake.c
 *	  Waking our processes when a transaction commits.
 *
 * A transaction notes whom it has work for; the commit callback sets their
 * latches.  NOTIFY would do as well, were it not that it forbids PREPARE
 * TRANSACTION and makes commits queue for one lock.  The callback runs after
 * the transaction became visible, so that the woken worker finds its events;
 * it neither allocates nor fails.  A prepared transaction loses its notes:
 * COMMIT PREPARED wakes everybody of its database (see ddl.c), and a worker
 * looks every sleep_time anyhow.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"

#include "slots.h"
#include "wake.h"

/* More backends than this in one transaction: all workers are woken. */
#define MAX_NOTED 16

static int32 noted[MAX_NOTED];
static int	nnoted = 0;
static bool wake_everybody = false;
static bool wake_manager = false;
static bool wake_launcher = false;

/* A database without a manager is news to the launcher. */
static void
announce_database(void)
{
	DatabaseSlot *slot = database_slot_find(MyDatabaseId);

	if (slot != NULL && slot->manager_pid != 0)
		return;
	if (slot == NULL)
	{
		LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
		if (database_slot_take(MyDatabaseId) == NULL)
			Slots->rescan = true;
		LWLockRelease(Slots->lock);
	}
	slots_wake_launcher();
}

static void
wake_at_end_of_xact(XactEvent event, void *arg)
{
	if (nnoted == 0 && !wake_everybody && !wake_manager && !wake_launcher)
		return;

	if (event == XACT_EVENT_COMMIT && Slots != NULL)
	{
		announce_database();
		if (wake_everybody || wake_manager)
			slots_wake_manager(MyDatabaseId);
		if (wake_everybody)
			slots_wake_workers(MyDatabaseId);
		for (int i = 0; i < nnoted; i++)
			slots_wake_worker(MyDatabaseId, noted[i]);
	}

	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		nnoted = 0;
		wake_everybody = false;
		wake_manager = false;
		wake_launcher = false;
	}
}

void
wake_register(void)
{
	RegisterXactCallback(wake_at_end_of_xact, NULL);
}

void
wake_worker_at_commit(int32 backend_id)
{
	for (int i = 0; i < nnoted; i++)
		if (noted[i] == backend_id)
			return;
	if (nnoted < MAX_NOTED)
		noted[nnoted++] = backend_id;
	else
		wake_everybody = true;
}

void
wake_all_at_commit(void)
{
	wake_everybody = true;
}

void
wake_manager_at_commit(void)
{
	wake_manager = true;
}

void
wake_launcher_at_commit(void)
{
	wake_launcher = true;
}
