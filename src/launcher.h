/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The process that finds the databases that have the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_LAUNCHER_H
#define DISPATCH_LAUNCHER_H

/* Registers the launcher; while shared libraries are being preloaded. */
extern void launcher_register(void);

extern PGDLLEXPORT void dispatch_launcher_main(Datum arg);

#endif							/* DISPATCH_LAUNCHER_H */
