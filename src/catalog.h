/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  The relations of the extension in this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_CATALOG_H
#define DISPATCH_CATALOG_H

#define OUTBOX_SEGMENTS 8

typedef struct Catalog
{
	Oid			outbox_sequence;
	Oid			segments[OUTBOX_SEGMENTS];	/* leaves of dispatch.outbox */
	Oid			new_indexes[OUTBOX_SEGMENTS];	/* (backend_id, id) of each */
	Oid			late_indexes[OUTBOX_SEGMENTS];	/* (backend_id, xid, id) */
	Oid			scheduled;
	Oid			exceptions;
	Oid			backends;
	Oid			backends_name_index;
	Oid			event_types;
	Oid			event_types_key;
	Oid			positions;
	Oid			positions_index;
} Catalog;

/*
 * The relations, from a cache that invalidation messages empty.  Errors if
 * one is missing, as after a rename.  Needs a transaction.
 */
extern const Catalog *catalog_get(void);

/* Count up whenever dispatch.backends, or dispatch.event_types, may have changed. */
extern uint64 catalog_backends_generation;
extern uint64 catalog_event_types_generation;

/* And whenever somebody else than its worker changed dispatch.exceptions. */
extern uint64 catalog_exceptions_generation;

extern void catalog_register(void);

/*
 * Takes part in this transaction's turn with the extension: false if it is not
 * installed, else nobody drops it before the transaction ends.  Our processes
 * call this first in every transaction, so that DROP EXTENSION waits for a
 * short transaction of theirs and can never end in a deadlock with one.
 */
extern bool catalog_lock_extension(void);

/*
 * Waits until none of our processes is in a transaction, and keeps them out of
 * the next until this one ends.  So locks on several tables can be taken in any
 * order, as far as they are concerned.
 */
extern void catalog_lock_out_processes(void);

/* It has been dropped and created again since this process started. */
extern bool catalog_extension_replaced;

#endif							/* DISPATCH_CATALOG_H */
