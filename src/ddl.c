/*-------------------------------------------------------------------------
 *
 * ddl.c
 *	  Making way for commands that our processes would block.
 *
 * DROP DATABASE, RENAME, SET TABLESPACE and CREATE DATABASE ... TEMPLATE refuse
 * to work on a database that somebody is connected to, and our manager and
 * workers always are.  So they are ended before such a command, and kept out
 * until it is over; whoever keeps them out is noted by his pid, so that a
 * session that dies on the way does not do so for ever.
 *
 * CREATE and DROP EXTENSION, and COMMIT PREPARED, are news to our processes
 * that no function of ours would tell them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"

#include "compat.h"
#include "ddl.h"
#include "session.h"
#include "slots.h"
#include "wake.h"

/* How long (ms) our processes may take to end; a worker has 2 s to finish. */
#define EVICTION_TIMEOUT 10000
#define EVICTION_POLL 10

static ProcessUtility_hook_type prev_process_utility;
static object_access_hook_type prev_object_access;
static bool has_evicted = false;	/* in this transaction */

/* The value of an option of a statement; NULL if it is not given. */
static const char *
option_value(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* The database that a statement needs for itself; NULL if there is none. */
static const char *
database_wanted(Node *statement)
{
	const char *template;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			return ((RenameStmt *) statement)->renameType == OBJECT_DATABASE ?
				((RenameStmt *) statement)->subname : NULL;
		case T_AlterDatabaseStmt:
			return option_value(((AlterDatabaseStmt *) statement)->options, "tablespace") ?
				((AlterDatabaseStmt *) statement)->dbname : NULL;
		case T_CreatedbStmt:
			template = option_value(((CreatedbStmt *) statement)->options, "template");
			return template != NULL ? template : "template1";
		default:
			return NULL;
	}
}

static bool
is_occupied(Oid database)
{
	DatabaseSlot *slot;
	bool		occupied;

	LWLockAcquire(Slots->lock, LW_SHARED);
	slot = database_slot_find(database);
	occupied = (slot != NULL && slot->manager_pid != 0) || worker_slot_count(database) > 0;
	LWLockRelease(Slots->lock);
	return occupied;
}

/* Also when a manager is only on its way up. */
static bool
may_be_occupied(Oid database)
{
	bool		may_be;

	LWLockAcquire(Slots->lock, LW_SHARED);
	may_be = database_slot_find(database) != NULL || worker_slot_count(database) > 0;
	LWLockRelease(Slots->lock);
	return may_be;
}

/* Ends our processes in a database, and keeps others out. */
static void
evict(Oid database)
{
	DatabaseSlot *slot;

	has_evicted = true;
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	slot = database_slot_take(database);
	if (slot != NULL)
	{
		/* One that is registered and not up yet is too late by this. */
		slot->generation++;
		slot->evictor_pid = MyProcPid;
		if (slot->manager_pid != 0)
			kill(slot->manager_pid, SIGTERM);
	}
	for (int i = 0; i < Slots->nslots; i++)
		if (Slots->workers[i].database == database && Slots->workers[i].pid != 0)
			kill(Slots->workers[i].pid, SIGTERM);
	LWLockRelease(Slots->lock);

	for (int waited = 0; waited < EVICTION_TIMEOUT && is_occupied(database);
		 waited += EVICTION_POLL)
		session_pause(EVICTION_POLL);
}

/*
 * At the end of the transaction, whatever it was: before that, a new manager
 * would find the database as it was.
 */
static void
let_in(XactEvent event, void *arg)
{
	if (!has_evicted || (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;
	has_evicted = false;
	LWLockAcquire(Slots->lock, LW_EXCLUSIVE);
	for (int i = 0; i < Slots->nslots; i++)
		if (Slots->databases[i].evictor_pid == MyProcPid)
			Slots->databases[i].evictor_pid = 0;
	LWLockRelease(Slots->lock);
	slots_wake_launcher();
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Node	   *statement = pstmt->utilityStmt;
	ProcessUtility_hook_type next = prev_process_utility ? prev_process_utility :
		standard_ProcessUtility;
	bool		commits_prepared = IsA(statement, TransactionStmt) &&
		((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED;
	const char *name = database_wanted(statement);
	Oid			database = name ? get_database_oid(name, true) : InvalidOid;

	/* Only for those who may do it, or anybody could stop deliveries. */
	if (OidIsValid(database) && database != MyDatabaseId &&
		object_ownercheck(DatabaseRelationId, database, GetUserId()) &&
		may_be_occupied(database))
		evict(database);

	next(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

	/*
	 * What its publish() noted was forgotten at PREPARE TRANSACTION.  (By now
	 * the statement itself may be gone.)
	 */
	if (commits_prepared)
		wake_all_at_commit();
}

static void
object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);
	if (classId != ExtensionRelationId)
		return;
	if (access == OAT_POST_CREATE)
		wake_launcher_at_commit();
	else if (access == OAT_DROP)
		wake_all_at_commit();
}

void
ddl_register(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
	RegisterXactCallback(let_in, NULL);
}
