/*-------------------------------------------------------------------------
 *
 * slots.h
 *	  Shared memory: which manager and worker runs where, and how it fares.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_SLOTS_H
#define DISPATCH_SLOTS_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#include "compat.h"
#include "steady.h"

/* What a worker says of itself, least healthy last. */
typedef enum WorkerState
{
	WORKER_STARTING,
	WORKER_RUNNING,
	WORKER_CONNECTING,
	WORKER_OUTAGE,				/* the broker is away or full: backing off */
	WORKER_MISCONFIGURED,		/* an operator must act */
	WORKER_BLOCKED,				/* too many events wait for another attempt */
	WORKER_DATABASE_ERROR		/* cannot read or write our own tables */
} WorkerState;

/* The states as users see them. */
extern const char *const worker_state_names[];

#define SLOT_ERROR_LEN 512

/* Latencies, four buckets an octave, in microseconds. */
#define LATENCY_BUCKETS 128

/* Transactions in progress that a position in shared memory has room for. */
#define SLOT_POSITION_XIPS 64

/* A position (see position.h) in a form of fixed size. */
typedef struct SharedTick
{
	uint64		xmin;
	uint64		xmax;
	uint64		next_xid;
	int64		last_id;
	int			nxip;			/* > SLOT_POSITION_XIPS: does not fit */
	uint64		xip[SLOT_POSITION_XIPS];
} SharedTick;

typedef struct SharedPosition
{
	bool		valid;			/* false: see the table dispatch.positions */
	uint64		outcomes_xid;	/* last that stored outcomes with it; 0: none */
	SharedTick	before;
	SharedTick	upto;
	int64		settled_id;
} SharedPosition;

/* How a worker fares.  Protected by the slot's mutex. */
typedef struct WorkerReport
{
	WorkerState state;
	int			in_flight;		/* events sent and not settled */
	double		rate;			/* events a second, lately */
	int64		published;		/* ever, by this backend */
	int64		retried;		/* attempts that failed and are repeated */
	TimestampTz last_published_at;
	TimestampTz last_error_at;
	TimestampTz next_attempt_at;	/* of connecting; 0: none is due */
	char		last_error[SLOT_ERROR_LEN];
	uint32		latency[2][LATENCY_BUCKETS];	/* this period's, the last's */
	SharedPosition position;
} WorkerReport;

/*
 * A worker.  The manager takes and frees slots, the worker attaches to its own;
 * both under the lock of SlotArea.
 */
typedef struct WorkerSlot
{
	Oid			database;		/* InvalidOid: the slot is free */
	int32		backend_id;
	uint32		generation;		/* tells a late starter that it is too late */
	int			pid;			/* 0: registered, not attached yet */
	ProcNumber	proc;			/* whose latch to set */
	bool		stop;			/* asked to end in good order, */
	SteadyTime	stop_at;		/* then */
	SteadyTime	registered_at;

	/* Wake-ups: a latch alone may be reset while the worker waits for a buffer. */
	pg_atomic_uint32 wakes;

	/* flush(): the newest request, and the newest that is fulfilled. */
	pg_atomic_uint32 flush_requested;
	pg_atomic_uint32 flush_done;

	slock_t		mutex;
	WorkerReport report;
} WorkerSlot;

/* A database that has, or may have, the extension. */
typedef struct DatabaseSlot
{
	Oid			database;		/* InvalidOid: the slot is free */
	int			manager_pid;	/* 0: none attached */
	ProcNumber	manager_proc;
	uint32		starts;			/* managers that came up */
	pg_atomic_uint32 wakes;		/* as of a worker */
	uint32		generation;
	bool		out_of_workers; /* max_worker_processes is exhausted */
	int			evictor_pid;	/* DDL on the database: nobody may start */
	pg_atomic_uint32 segment;	/* where publish() appends */
} DatabaseSlot;

typedef struct SlotArea
{
	LWLock	   *lock;			/* protects all but atomics and reports */
	int			launcher_pid;
	ProcNumber	launcher_proc;
	bool		rescan;			/* the launcher must look at all databases */
	int			nslots;			/* of each kind: max_worker_processes */
	DatabaseSlot *databases;
	WorkerSlot *workers;
} SlotArea;

extern SlotArea *Slots;			/* NULL: not in shared_preload_libraries */

extern void slots_request(void);	/* shmem_request_hook */
extern void slots_init(void);	/* shmem_startup_hook */
extern void slots_require(void);	/* error unless preloaded */

/* Databases.  The caller holds Slots->lock where it says so. */
extern DatabaseSlot *database_slot_find(Oid database);	/* lock held */
extern DatabaseSlot *database_slot_take(Oid database);	/* lock held exclusively */
extern void database_slot_release(DatabaseSlot *slot);	/* lock held exclusively */
extern uint32 database_current_segment(Oid database);

/* Workers. */
extern WorkerSlot *worker_slot_find(Oid database, int32 backend_id);	/* lock held */
extern WorkerSlot *worker_slot_take(Oid database, int32 backend_id);	/* exclusively */
extern void worker_slot_release(WorkerSlot *slot);	/* exclusively */
extern int	worker_slot_count(Oid database);	/* lock held */

/* Wake a process; callable anywhere, also in a commit callback. */
extern void slots_wake_launcher(void);
extern void slots_wake_manager(Oid database);
extern void slots_wake_worker(Oid database, int32 backend_id);
extern void slots_wake_workers(Oid database);

#endif							/* DISPATCH_SLOTS_H */
