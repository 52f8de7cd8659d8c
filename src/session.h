/*-------------------------------------------------------------------------
 *
 * session.h
 *	  How our background processes live: start, transactions, waiting, end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_SESSION_H
#define DISPATCH_SESSION_H

#include "postmaster/bgworker.h"
#include "storage/latch.h"

/* What a process that we register finds in bgw_extra. */
typedef struct ProcessArgs
{
	Oid			database;
	int			slot;			/* its number in Slots->workers or ->databases */
	uint32		generation;		/* of that slot */
} ProcessArgs;

/*
 * Registers a process that runs one of our main functions, with args in its
 * bgw_extra.  False if there is no room among max_worker_processes.  *handle,
 * unless NULL, is set for who wants to wait for it.
 */
extern bool session_register(const char *main_function, const char *name, const char *type,
							 const void *args, Size args_size,
							 BackgroundWorkerHandle **handle);

/*
 * Signal handlers and, unless database is InvalidOid, a connection to it with
 * settings of our own.  First thing in the main function of a process.
 */
extern void session_start(Oid database);

/*
 * Runs step(arg) in a short transaction with an active snapshot.  If an error
 * is raised, the transaction is rolled back.  Unless it is done, *error is a
 * text that says why, in the current memory context.
 */
typedef enum StepResult
{
	STEP_DONE,
	STEP_ERROR,
	STEP_NO_EXTENSION
} StepResult;

extern StepResult session_run(void (*step) (void *arg), void *arg, const char **error);

/*
 * In a step: its transaction is on disk when it has ended, and on the standbys
 * that commits wait for.  For those nobody waits any more who is to stop.
 */
extern void session_commit_durably(void);

/* SQLSTATE of the last error that session_run() met. */
extern int	session_sqlstate(void);

/*
 * In PG_CATCH(): gets over the error, rolling back a transaction if one is
 * open; returns its text, allocated in context.
 */
extern char *session_recover(MemoryContext context);

/*
 * Waits for the latch, for a socket (fd < 0: none) and at most timeout_ms
 * (< 0: for ever); returns the WL_ events that occurred.  Serves interrupts,
 * reloads the configuration, and resets the latch.  Nothing else in dispatch
 * waits but this and the next two, except for locks.
 */
extern int	session_wait(int fd, int events, long timeout_ms);
/*
 * As session_wait(), but nobody can wake us meanwhile, which spares them a signal
 * and us a turn: for a moment only.  If somebody has tried, the next session_wait()
 * returns at once.
 */
extern int	session_doze(int fd, int events, long timeout_ms);

/* Waits in somebody's session, where only interrupts are to be served. */
extern void session_pause(long timeout_ms);

/* Set by SIGTERM: end in good order, soon. */
extern bool session_stop_requested(void);

/*
 * Around code of users, which may take for ever: SIGTERM cancels it, and ends
 * the process a second later if it goes on all the same.
 */
extern void session_enter_users_code(void);
extern void session_leave_users_code(void);

#endif							/* DISPATCH_SESSION_H */
