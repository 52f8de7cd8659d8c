/*-------------------------------------------------------------------------
 *
 * tick.c
 *	  Moments between which events are read.
 *
 * The outbox is a log without a reliable order: a transaction takes its ids
 * long before it commits, so "everything after the last id" misses events.  A
 * worker therefore reads what one snapshot sees and the one before did not.
 *
 * A tick T holds, taken in this order, a snapshot S, the last value P of the
 * outbox's sequence, and the next transaction id N to be assigned.  publish()
 * takes its transaction's id before it takes ids for its events.  Then every
 * event that tick U sees and the earlier tick T did not is in exactly one of
 * two sets:
 *
 *	new		xid >= N(T), and then P(T) < id <= P(U): its transaction got its xid
 *			after P(T) had been read, and its ids later still; and it had
 *			committed, ids and all, before P(U) was read;
 *	late	xid < N(T) and not seen by T: it was in progress when S(T) was taken,
 *			so that it is listed there, or is in [xmax(S(T)), N(T)), because
 *			xmax is the newest *finished* xid + 1, not the next one.
 *
 * Only top-level transaction ids count.  A subtransaction's id is not listed in
 * a snapshot as in progress the way we need it: xmin of a row will not do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/qunique.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "tick.h"

static int
compare_xids(const void *a, const void *b)
{
	uint64		x = U64FromFullTransactionId(*(const FullTransactionId *) a);
	uint64		y = U64FromFullTransactionId(*(const FullTransactionId *) b);

	return x < y ? -1 : x > y ? 1 : 0;
}

static Tick *
tick_alloc(int nxip)
{
	Tick	   *tick = palloc0(offsetof(Tick, xip) + nxip * sizeof(FullTransactionId));

	tick->refcount = 1;
	return tick;
}

/* The 64-bit number of an xid that was assigned before "next" was. */
static FullTransactionId
widen_xid(TransactionId xid, FullTransactionId next)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return FullTransactionIdFromEpochAndXid(epoch, xid);
}

/* The last value of a sequence, 0 if it was never called. */
static int64
read_sequence(Oid sequence)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		value;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = ObjectIdGetDatum(sequence);
	fcinfo->args[0].isnull = false;
	value = pg_sequence_last_value(fcinfo);
	return fcinfo->isnull ? 0 : DatumGetInt64(value);
}

Tick *
tick_take(Snapshot snapshot, Oid sequence)
{
	int64		last_id;
	FullTransactionId next;
	Tick	   *tick;

	last_id = read_sequence(sequence);
	next = ReadNextFullTransactionId();

	tick = tick_alloc(snapshot->xcnt);
	tick->xmin = widen_xid(snapshot->xmin, next);
	tick->xmax = widen_xid(snapshot->xmax, next);
	tick->last_id = last_id;
	tick->next_xid = next;
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		tick->xip[i] = widen_xid(snapshot->xip[i], next);
	qsort(tick->xip, snapshot->xcnt, sizeof(FullTransactionId), compare_xids);
	/* A transaction that is being prepared can be listed twice. */
	tick->nxip = qunique(tick->xip, snapshot->xcnt, sizeof(FullTransactionId), compare_xids);
	return tick;
}

Tick *
tick_of_nothing(void)
{
	Tick	   *tick = tick_alloc(0);

	tick->xmin = tick->xmax = tick->next_xid =
		FullTransactionIdFromU64(FirstNormalTransactionId);
	return tick;
}

/*
 * The struct behind pg_snapshot is private to the server, hence the way over
 * its text.
 */
Datum
tick_get_snapshot(const Tick *tick)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":",
					 U64FromFullTransactionId(tick->xmin),
					 U64FromFullTransactionId(tick->xmax));
	for (int i = 0; i < tick->nxip; i++)
		appendStringInfo(&text, "%s" UINT64_FORMAT, i > 0 ? "," : "",
						 U64FromFullTransactionId(tick->xip[i]));
	return DirectFunctionCall1(pg_snapshot_in, CStringGetDatum(text.data));
}

Tick *
tick_make(Datum snapshot, int64 last_id, FullTransactionId next_xid)
{
	char	   *text = DatumGetCString(DirectFunctionCall1(pg_snapshot_out, snapshot));
	int			nxip = 0;
	Tick	   *tick;
	char	   *p;

	for (p = strrchr(text, ':'); *p != '\0'; p++)
		if ((*p == ':' && p[1] != '\0') || *p == ',')
			nxip++;
	tick = tick_alloc(nxip);
	tick->xmin = FullTransactionIdFromU64(strtou64(text, &p, 10));
	tick->xmax = FullTransactionIdFromU64(strtou64(p + 1, &p, 10));
	while (tick->nxip < nxip)
		tick->xip[tick->nxip++] = FullTransactionIdFromU64(strtou64(p + 1, &p, 10));
	tick->last_id = last_id;
	tick->next_xid = next_xid;
	return tick;
}

Tick *
tick_copy(Tick *tick)
{
	tick->refcount++;
	return tick;
}

void
tick_free(Tick *tick)
{
	Assert(tick->refcount > 0);
	if (--tick->refcount == 0)
		pfree(tick);
}

bool
tick_sees(const Tick *tick, FullTransactionId xid)
{
	if (FullTransactionIdPrecedes(xid, tick->xmin))
		return true;
	if (FullTransactionIdFollowsOrEquals(xid, tick->xmax))
		return false;
	return bsearch(&xid, tick->xip, tick->nxip, sizeof(FullTransactionId),
				   compare_xids) == NULL;
}

/*
 * Two ticks without a transaction that finished in between see the same.  The
 * next xid may differ: transactions that only began have nothing to show.
 */
bool
tick_equal(const Tick *a, const Tick *b)
{
	return FullTransactionIdEquals(a->xmin, b->xmin) &&
		FullTransactionIdEquals(a->xmax, b->xmax) &&
		a->nxip == b->nxip &&
		memcmp(a->xip, b->xip, a->nxip * sizeof(FullTransactionId)) == 0;
}
