/*-------------------------------------------------------------------------
 *
 * restart.h
 *	  When a process that ended by itself may be started again.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_RESTART_H
#define DISPATCH_RESTART_H

#include "steady.h"

/* All zero: it was never started. */
typedef struct Restart
{
	SteadyTime	started_at;		/* 0: never */
	SteadyTime	next_at;		/* when it may be again; 0: it has not ended */
	int			failures;		/* in a row */
} Restart;

extern void restart_note_start(Restart *restart);

/*
 * When a process that does not run may be started: later and later if it does
 * not run for long.  The first call after its start is taken for its end.
 */
extern SteadyTime restart_next(Restart *restart);

#endif							/* DISPATCH_RESTART_H */
