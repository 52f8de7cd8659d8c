/*-------------------------------------------------------------------------
 *
 * manager.h
 *	  The process that looks after one database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MANAGER_H
#define MANAGER_H

extern PGDLLEXPORT void dispatch_manager_main(Datum arg);

#endif							/* MANAGER_H */
