/*-------------------------------------------------------------------------
 *
 * worker_state.h
 *	  What a worker knows: shared by the files that make up a worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_WORKER_STATE_H
#define DISPATCH_WORKER_STATE_H

#include "backends.h"
#include "cursor.h"
#include "delivery.h"
#include "position.h"
#include "retry_queue.h"
#include "slots.h"
#include "steady.h"

/* Workers that end without a word at the same position: be careful; it is it. */
#define UNCLEAN_ENDS_CAREFUL 2
#define UNCLEAN_ENDS_CONVICT 4

/*
 * So many batches may be in flight, if the transport takes them: what the broker
 * has not acknowledged yet, most of all over a network, must not keep the next
 * ones from it.
 */
#define BATCHES_IN_FLIGHT 8

typedef struct Worker
{
	WorkerSlot *slot;
	int32		backend_id;		/* of the backend that is served */
	uint64		turn;			/* of the loop, counted */
	SteadyTime	turn_time;		/* when it began, or its events were sent */

	/* Configuration, and what is made of it. */
	MemoryContext config_context;	/* of the next two */
	Backend    *backend;
	Delivery   *delivery;		/* NULL: the configuration is of no use */
	MemoryContext next_context; /* of the next */
	Backend    *next_backend;	/* takes over once nothing is in flight, */
	SteadyTime	next_since;		/* or when that takes too long */
	uint64		backends_generation;	/* when the backend's row was read */

	/* Where it stands. */
	MemoryContext cursor_context;	/* of the next two */
	Cursor	   *cursor;
	Position	position;
	SteadyTime	moved_at;		/* when the position moved; 0: it is stored */
	SteadyTime	saved_at;		/* when it was stored last */
	bool		has_begun;		/* the row says that a worker runs */
	bool		look;			/* something may have been published, */
	SteadyTime	next_look;		/* which is to be looked for then */
	bool		was_woken;		/* since changes were taken in last */
	uint32		wakes_seen;		/* of the slot's wake-ups */
	uint32		flush_seen;		/* newest flush() before the last look */
	uint32		flushed;		/* newest that is fulfilled */

	/* Events that are tried again. */
	MemoryContext queue_context;	/* of the next */
	RetryQueue *queue;
	bool		must_load_queue;
	uint64		exceptions_generation;	/* when the queue was loaded */
	TimestampTz next_retry;		/* when one is due; 0: unknown */

	/* Trouble with our own tables. */
	int			errors;			/* turns in which a step failed, in a row */
	uint64		failed_turn;	/* the last of them */
	SteadyTime	failed_at;
	const char *failing_step;	/* what the last of them was for */
	SteadyTime	next_step;		/* no step before */

	WorkerReport report;
	int			failures_told;	/* of the delivery, as reported last */
} Worker;

extern Worker MyWorker;

/*
 * Runs a step in the database; false if it failed.  The same trouble is logged
 * once, and tried again less and less often.
 */
extern bool worker_run_step(void (*step) (void *arg), void *arg, const char *what);

/* worker_config.c */

/*
 * Reads the backend's row again.  False if this backend is not to be served any
 * more.
 */
extern bool worker_configure(void);

/*
 * Starts over at the position, with the configuration as it is now.  Nothing
 * is in flight.
 */
extern void worker_rebuild(void);

/* supply.c */

/*
 * How long until events of the log can be read, in ms; 0: there are some, or may be;
 * -1: something else must happen before.  There is a delivery.
 */
extern long supply_ms_to_read(void);
/* Reads events of the log into their window. */
extern void supply_events(void);
/* Picks events whose next attempt is due, and reads them into their window. */
extern void supply_retries(void);

/* progress.c */

/* The stored position and the open exceptions; steps for worker_run_step(). */
extern void progress_load(void *arg);
extern void progress_load_queue(void *arg);
/*
 * Says in the row that a worker runs, durably, before it sends anything; and
 * which event it is about to send, after others have died here.
 */
extern void progress_begin(void *arg);
extern void progress_suspect(void *event_id);
/* Lets go of what has its outcome. */
extern void progress_settle(void);
/* Stores outcomes and position, in one transaction. */
extern void progress_save(void);
/* Puts into the report how far all is settled; tells flush(), after that. */
extern void progress_announce(void);
extern void progress_answer_flush(void);

#endif							/* DISPATCH_WORKER_STATE_H */
