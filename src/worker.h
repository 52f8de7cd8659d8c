/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The process that serves one backend.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WORKER_H
#define WORKER_H

extern PGDLLEXPORT void dispatch_worker_main(Datum arg);

#endif							/* WORKER_H */
