/*-------------------------------------------------------------------------
 *
 * late.c
 *	  Transactions whose events come late, found by their xids.
 *
 * They are looked up in the index (backend_id, xid, id): one probe for each
 * transaction that a tick lists as in progress; and from one existing xid to
 * the next in the range that its snapshot does not cover, which can be very
 * wide, as one transaction with 300,000 subtransactions makes it.  Only index
 * tuples are read: a transaction that is still running may have written
 * millions of rows that nobody can see.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/itup.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "access/table.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "catalog.h"
#include "compat.h"
#include "late.h"
#include "outbox.h"

/* A scan of a segment's index for xids of a backend's events. */
typedef struct XidScan
{
	int32		backend_id;
	Relation	heap;
	Relation	index;
	IndexScanDesc scan;
} XidScan;

/* False if there is nothing in the segment. */
static bool
xid_scan_open(XidScan *scan, int32 backend_id, int segment)
{
	scan->backend_id = backend_id;
	scan->heap = table_open(catalog_get()->segments[segment], AccessShareLock);
	if (RelationGetNumberOfBlocks(scan->heap) == 0)
	{
		table_close(scan->heap, AccessShareLock);
		return false;
	}
	scan->index = index_open(catalog_get()->late_indexes[segment], AccessShareLock);
	scan->scan = index_beginscan(scan->heap, scan->index, GetActiveSnapshot(), NULL, 3, 0);
	scan->scan->xs_want_itup = true;
	return true;
}

static void
xid_scan_close(XidScan *scan)
{
	index_endscan(scan->scan);
	index_close(scan->index, AccessShareLock);
	table_close(scan->heap, AccessShareLock);
}

/* The lowest xid in [from, to) that has entries in the index, seen or not. */
static bool
xid_scan_find(XidScan *scan, FullTransactionId from, FullTransactionId to,
			  FullTransactionId *found)
{
	ScanKeyData keys[3];
	Datum		value;
	bool		isnull;

	ScanKeyInit(&keys[0], LATE_INDEX_BACKEND_ID, BTEqualStrategyNumber,
				F_INT4EQ, Int32GetDatum(scan->backend_id));
	ScanKeyInit(&keys[1], LATE_INDEX_XID, BTGreaterEqualStrategyNumber,
				F_XID8GE, FullTransactionIdGetDatum(from));
	ScanKeyInit(&keys[2], LATE_INDEX_XID, BTLessStrategyNumber,
				F_XID8LT, FullTransactionIdGetDatum(to));
	index_rescan(scan->scan, keys, lengthof(keys), NULL, 0);

	/* The index tuple is enough: rows of the unfinished are not visited. */
	if (index_getnext_tid(scan->scan, ForwardScanDirection) == NULL)
		return false;
	value = index_getattr(scan->scan->xs_itup, LATE_INDEX_XID, scan->scan->xs_itupdesc, &isnull);
	*found = DatumGetFullTransactionId(value);
	return true;
}

static bool
xid_scan_has(XidScan *scan, FullTransactionId xid)
{
	FullTransactionId next = xid;
	FullTransactionId found;

	FullTransactionIdAdvance(&next);
	return xid_scan_find(scan, xid, next, &found);
}

static List *
add_run(List *runs, int segment, FullTransactionId xid)
{
	LateRun    *run = palloc_object(LateRun);

	run->segment = segment;
	run->xid = xid;
	return lappend(runs, run);
}

List *
late_find(int32 backend_id, const Tick *before, const Tick *upto)
{
	List	   *runs = NIL;

	if (before->nxip == 0 && !FullTransactionIdPrecedes(before->xmax, before->next_xid))
		return NIL;
	for (int segment = 0; segment < OUTBOX_SEGMENTS; segment++)
	{
		FullTransactionId from = before->xmax;
		FullTransactionId xid;
		XidScan		scan;

		if (!xid_scan_open(&scan, backend_id, segment))
			continue;
		for (int i = 0; i < before->nxip; i++)
			if (tick_sees(upto, before->xip[i]) && xid_scan_has(&scan, before->xip[i]))
				runs = add_run(runs, segment, before->xip[i]);
		while (FullTransactionIdPrecedes(from, before->next_xid) &&
			   xid_scan_find(&scan, from, before->next_xid, &xid))
		{
			CHECK_FOR_INTERRUPTS();
			if (tick_sees(upto, xid))
				runs = add_run(runs, segment, xid);
			from = xid;
			FullTransactionIdAdvance(&from);
		}
		xid_scan_close(&scan);
	}
	return runs;
}

bool
late_segment_has(int32 backend_id, const Tick *tick, int segment)
{
	FullTransactionId end = FullTransactionIdFromU64(PG_UINT64_MAX);
	FullTransactionId xid;
	XidScan		scan;
	bool		has;

	if (!xid_scan_open(&scan, backend_id, segment))
		return false;
	has = xid_scan_find(&scan, tick->xmax, end, &xid);
	for (int i = 0; i < tick->nxip && !has; i++)
		has = xid_scan_has(&scan, tick->xip[i]);
	xid_scan_close(&scan);
	return has;
}
