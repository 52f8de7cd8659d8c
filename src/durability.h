/*-------------------------------------------------------------------------
 *
 * durability.h
 *	  Nothing leaves the machine before it is durable here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_DURABILITY_H
#define DISPATCH_DURABILITY_H

#include "access/transam.h"
#include "access/xlogdefs.h"

/*
 * Up to where WAL must be flushed for the commit of that transaction to be
 * durable; InvalidXLogRecPtr if it is already.  For committed transactions.
 */
extern XLogRecPtr durability_commit_lsn(FullTransactionId xid);

/* Flushes WAL up to there, if that has not happened yet. */
extern void durability_flush(XLogRecPtr lsn);

#endif							/* DISPATCH_DURABILITY_H */
