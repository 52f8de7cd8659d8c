/*-------------------------------------------------------------------------
 *
 * exceptions.h
 *	  Events that need more than one attempt: the table dispatch.exceptions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_EXCEPTIONS_H
#define DISPATCH_EXCEPTIONS_H

#include "nodes/pg_list.h"

#include "event.h"

typedef enum ExceptionStatus
{
	EXCEPTION_RETRYING,			/* has failed, will be tried again */
	EXCEPTION_PARKED,			/* waits behind one of its key */
	EXCEPTION_FAILED			/* a dead letter */
} ExceptionStatus;

/* A row, without the event. */
typedef struct Exception
{
	int64		id;				/* the event's, in the outbox */
	pg_uuid_t	event_id;
	ExceptionStatus status;
	int			attempts;		/* that failed */
	TimestampTz next_attempt_at;	/* of EXCEPTION_RETRYING */
	uint32		key_hash;		/* of the event's key, */
	bool		has_key;		/* if it has one */
} Exception;

/* All need a transaction. */

/* Adds a row for an event of the log. */
extern void exception_insert(const Event *event, const Exception *exception,
							 const char *error);
/* Changes it after another attempt; error is NULL when it was only parked. */
extern void exception_update(const Exception *exception, const char *error);
/* Removes it: the event is delivered. */
extern void exception_delete(const Exception *exception);

/* The rows of a backend that wait for an attempt, by id, at most "limit". */
extern List *exceptions_read_open(int32 backend_id, int limit);
/* The events of some of them (List of Exception), by id, up to about max_bytes. */
extern List *exceptions_read_events(List *exceptions, Size max_bytes);

/*
 * The rows were changed by somebody else than a worker: at commit, workers are
 * told.
 */
extern void exceptions_announce(void);
/*
 * Whether the active snapshot may see such changes that we have not been told
 * of.  If not, we have been told now of all that it sees.
 */
extern bool exceptions_news_may_be_late(void);

/* How many of them there are. */
extern int64 exceptions_count_open(int32 backend_id);

/* The hash that keys are compared by. */
extern uint32 exception_key_hash(const char *key);


#endif							/* DISPATCH_EXCEPTIONS_H */
