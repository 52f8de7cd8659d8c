/*-------------------------------------------------------------------------
 *
 * publications.h
 *	  Publications that replicate our tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_PUBLICATIONS_H
#define DISPATCH_PUBLICATIONS_H

/* A step for session_run(): warns if there are any.  arg is not used. */
extern void publications_warn(void *arg);

#endif							/* DISPATCH_PUBLICATIONS_H */
