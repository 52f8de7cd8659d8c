/*-------------------------------------------------------------------------
 *
 * durability.c
 *	  Nothing leaves the machine before it is durable here.
 *
 * With synchronous_commit = off the rows of a transaction are visible before
 * its commit record is on disk.  An event sent that early is a ghost after a
 * crash: the consumer acts on a transaction that never was.  So workers flush
 * WAL up to the commit of whatever they have read, before they send it.
 *
 * (Flushing up to the insert position would do too, were that not a position
 * past a page header at times, which XLogFlush() cannot reach; and it would
 * wait for the unrelated.)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "storage/lwlock.h"

#include "compat.h"
#include "durability.h"

XLogRecPtr
durability_commit_lsn(FullTransactionId xid)
{
	TransactionId short_xid = XidFromFullTransactionId(xid);
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	/* 32 bits cannot tell an event of two thousand million transactions ago. */
	if (U64FromFullTransactionId(ReadNextFullTransactionId()) -
		U64FromFullTransactionId(xid) > PG_INT32_MAX)
		return InvalidXLogRecPtr;

	/*
	 * An old transaction's status may have been truncated away, which happens
	 * only long after it became durable; looking it up would be an error.
	 * Truncation waits for the lock.
	 */
	LWLockAcquire(XactTruncationLock, LW_SHARED);
	if (TransactionIdFollowsOrEquals(short_xid, TransamVariables->oldestClogXid))
		lsn = TransactionIdGetCommitLSN(short_xid);
	LWLockRelease(XactTruncationLock);
	return lsn;
}

void
durability_flush(XLogRecPtr lsn)
{
	if (!XLogRecPtrIsInvalid(lsn))
		XLogFlush(lsn);
}
