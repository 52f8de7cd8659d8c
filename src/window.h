/*-------------------------------------------------------------------------
 *
 * window.h
 *	  The events that were read and are not settled yet, in order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_WINDOW_H
#define DISPATCH_WINDOW_H

#include "dispatch_transport.h"
#include "event.h"
#include "exceptions.h"
#include "position.h"
#include "retry_queue.h"

typedef enum EntryState
{
	ENTRY_WAITING,				/* to be sent */
	ENTRY_SENT,					/* no outcome yet */
	ENTRY_DELIVERED,
	ENTRY_FAILED,				/* needs another attempt, or is a dead letter */
	ENTRY_PARKED,				/* waits behind another one of its key */
	ENTRY_SKIPPED				/* of a retry: is not to be sent now after all */
} EntryState;

/* Events that were read together, and their memory. */
typedef struct Batch
{
	MemoryContext context;
	Tick	   *before;			/* the ticks that they are between; NULL of */
	Tick	   *upto;			/* retries */
	int			unsettled;		/* entries that have not left the window */
	Size		bytes;
} Batch;

typedef struct Entry
{
	DispatchMessage message;	/* first: a message is its entry's address */
	Event	   *event;
	Batch	   *batch;
	EntryState	state;
	uint64		number;			/* place in the window, counted from the start */
	uint32		key_hash;		/* of event->key, if it has one */
	bool		is_retry;		/* has a row in dispatch.exceptions */
	bool		skip_if_returned;	/* of a retry that is with the transport: to be
								 * skipped if it comes back without an outcome */
	Exception	exception;		/* of that row, or of the one that is to be */
	char	   *error;			/* of the last attempt; NULL: none */
	DispatchErrorClass error_class; /* of an error before it was sent */
} Entry;

/* Entries first <= number < end, of which those before next need no look. */
typedef struct Window
{
	MemoryContext context;
	Entry	  **ring;
	uint64		ring_size;		/* a power of two */
	uint64		first;
	uint64		next;
	uint64		end;
	Size		bytes;			/* of all batches */
	int			sent;			/* entries in state ENTRY_SENT */
	List	   *held;			/* entries that have left it, but whose outcome
								 * is not stored yet */
	uint32		keys_sent[KEY_COUNTERS];	/* of those sent, by hash of the key */
} Window;

extern Window *window_create(void); /* in the current memory context */

/* Starts a batch; its entries are added while its context is current. */
extern Batch *window_begin_batch(Window *window, Tick *before, Tick *upto);
extern void window_add(Window *window, Batch *batch, Entry *entry);
/* Ends it; an empty one is let go. */
extern void window_end_batch(Window *window, Batch *batch);

/* What the row of an entry's event says, before it had one. */
extern Exception entry_exception(const Entry *entry, ExceptionStatus status);

extern uint64 window_count(const Window *window);

/* The entry of that number, which is in the window. */
extern Entry *window_entry(const Window *window, uint64 number);

/* The next entry to be sent, skipping those that need not; NULL if none. */
extern Entry *window_next(Window *window);

/* An entry is given to the transport, or got its outcome, or is taken back. */
extern void window_set_state(Window *window, Entry *entry, EntryState state);

/* Takes back all entries that have no outcome. */
extern void window_unsend_all(Window *window);

/* Is an event with the key of this entry with the transport? */
extern bool window_key_is_sent(const Window *window, const Entry *entry);

/* The first entry that is not settled; NULL if there is none. */
extern Entry *window_first(const Window *window);

/*
 * Lets go of the entries at the front that have an outcome.  In the window of
 * the log that moves the position past them, and those that were delivered are
 * done with; in that of retries, position is NULL.  All others are held until
 * their outcome is stored.  Returns how many have left.
 */
extern int	window_settle(Window *window, Position *position);

/* The outcomes of those held are stored. */
extern void window_release_held(Window *window);

/* Skips an entry that waits: the queue has it again, as it is now. */
extern void window_skip(Window *window, Entry *entry, RetryQueue *queue);

/*
 * Skips those entries that are waiting and have a key of that hash, and marks
 * those that are with the transport.
 */
extern void window_skip_key(Window *window, uint32 key_hash, RetryQueue *queue);

/* Forgets all entries; none of them must be with a transport. */
extern void window_clear(Window *window);

#endif							/* DISPATCH_WINDOW_H */
