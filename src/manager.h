/*-------------------------------------------------------------------------
 *
 * manager.h
 *	  The process that looks after one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_MANAGER_H
#define DISPATCH_MANAGER_H

#include "steady.h"

/* The manager looks again by then at the latest. */
extern void manager_wake_at(SteadyTime when);

extern PGDLLEXPORT void dispatch_manager_main(Datum arg);

#endif							/* DISPATCH_MANAGER_H */
