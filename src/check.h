/*-------------------------------------------------------------------------
 *
 * check.h
 *	  The process that tries a backend's connection.
 *
 *-------------------------------------------------------------------------
 */
#ifndef CHECK_H
#define CHECK_H

extern PGDLLEXPORT void dispatch_check_main(Datum arg);

#endif							/* CHECK_H */
