/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The process that serves one backend.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_WORKER_H
#define DISPATCH_WORKER_H

extern PGDLLEXPORT void dispatch_worker_main(Datum arg);

#endif							/* DISPATCH_WORKER_H */
