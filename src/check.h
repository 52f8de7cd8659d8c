/*-------------------------------------------------------------------------
 *
 * check.h
 *	  The process that tries a backend's connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_CHECK_H
#define DISPATCH_CHECK_H

extern PGDLLEXPORT void dispatch_check_main(Datum arg);

#endif							/* DISPATCH_CHECK_H */
