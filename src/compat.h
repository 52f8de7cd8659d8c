/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between the versions of PostgreSQL, 15 to 18.
 *
 * Callers use the newest interface; older servers get it from here.  This is
 * the only file that looks at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_COMPAT_H
#define DISPATCH_COMPAT_H

#include "access/genam.h"
#include "access/transam.h"

#if PG_VERSION_NUM < 150000
#error "dispatch needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM < 160000
#include "utils/acl.h"
#define object_ownercheck(classId, objectId, roleId) \
	(AssertMacro((classId) == DatabaseRelationId), \
	 pg_database_ownercheck(objectId, roleId))
#define object_aclcheck(classId, objectId, roleId, mode) \
	(AssertMacro((classId) == ProcedureRelationId), \
	 pg_proc_aclcheck(objectId, roleId, mode))
#define member_can_set_role(member, role) is_member_of_role(member, role)
#define ExecInsertIndexTuples(info, slot, estate, update, no_dup, conflict, arbiters, summary) \
	(ExecInsertIndexTuples)(info, slot, estate, update, no_dup, conflict, arbiters)
#endif

#if PG_VERSION_NUM < 170000
#define TransamVariables ShmemVariableCache
#endif

#if PG_VERSION_NUM < 180000
#define index_beginscan(heap, index, snapshot, instrument, nkeys, norderbys) \
	(index_beginscan)(heap, index, snapshot, nkeys, norderbys)
#endif

#if PG_VERSION_NUM >= 180000
#define DISPATCH_MODULE_MAGIC \
	PG_MODULE_MAGIC_EXT(.name = "dispatch", .version = "1.0")
#else
#define DISPATCH_MODULE_MAGIC PG_MODULE_MAGIC
#endif

/* The number of a process slot, and the way back from it. */
#if PG_VERSION_NUM >= 170000
#include "storage/procnumber.h"
#else
typedef int ProcNumber;
#define INVALID_PROC_NUMBER (-1)
#define GetNumberFromPGProc(proc) ((proc)->pgprocno)
#define GetPGProcByNumber(n) (&ProcGlobal->allProcs[(n)])
#endif

#endif							/* DISPATCH_COMPAT_H */
