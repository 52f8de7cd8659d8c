/*-------------------------------------------------------------------------
 *
 * wake.h
 *	  Waking our processes when a transaction commits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_WAKE_H
#define DISPATCH_WAKE_H

extern void wake_register(void);

/* Noted for the commit of the current transaction; they cannot fail. */
extern void wake_worker_at_commit(int32 backend_id);
extern void wake_all_at_commit(void);	/* manager and workers */
extern void wake_manager_at_commit(void);
extern void wake_launcher_at_commit(void);	/* it will look at this database */

#endif							/* DISPATCH_WAKE_H */
