/*-------------------------------------------------------------------------
 *
 * window.h
 *	  The events that were read and are not settled yet, in order.
 *
 *-------------------------------------------------------------------------
 */
#ifndef WINDOW_H
#define WINDOW_H

#include "dispatch_transport.h"
#include "event.h"
#include "position.h"

typedef enum EntryState
{
	ENTRY_WAITING,				/* to be sent */
	ENTRY_SENT,					/* no outcome yet */
	ENTRY_DELIVERED,
	ENTRY_FAILED
} EntryState;

/* Events that were read together, and their memory. */
typedef struct Batch
{
	MemoryContext context;
	Tick	   *before;			/* the ticks that they are between */
	Tick	   *upto;
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
	DispatchErrorClass error_class; /* of ENTRY_FAILED */
	char	   *error;
} Entry;

/* Keys share counters; what shares one at most waits for the other. */
#define KEY_COUNTERS 4096

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
	Entry	   *failed;			/* the first in state ENTRY_FAILED; NULL: none */
	uint32		keys_sent[KEY_COUNTERS];	/* of those sent, by hash of the key */
} Window;

extern Window *window_create(void); /* in the current memory context */

/* Starts a batch; its entries are added while its context is current. */
extern Batch *window_begin_batch(Window *window, Tick *before, Tick *upto);
extern void window_add(Window *window, Batch *batch, Entry *entry);
/* Ends it; an empty one is let go. */
extern void window_end_batch(Window *window, Batch *batch);

extern uint64 window_count(const Window *window);

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
 * Lets go of the entries at the front that were delivered, and moves the
 * position past them.  Returns how many.
 */
extern int	window_settle(Window *window, Position *position);

/* Forgets all entries; none of them must be with a transport. */
extern void window_clear(Window *window);

#endif							/* WINDOW_H */
