/*-------------------------------------------------------------------------
 *
 * backends.h
 *	  The table dispatch.backends, as our processes read it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_BACKENDS_H
#define DISPATCH_BACKENDS_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/* Columns of the table, as the install script has them. */
enum
{
	BACKENDS_ID = 1,
	BACKENDS_NAME,
	BACKENDS_TRANSPORT,
	BACKENDS_OPTIONS,
	BACKENDS_ENABLED,
	BACKENDS_ORDERING,
	BACKENDS_BATCH_SIZE,
	BACKENDS_SLEEP_TIME,
	BACKENDS_MAX_RETRIES,
	BACKENDS_RETRY_BACKOFF,
	BACKENDS_RETRY_DELAY,
	BACKENDS_RETRY_MAX_DELAY,
	BACKENDS_OWNER,
	BACKENDS_DROPPING,
	BACKENDS_FORCE_DROP,
	BACKENDS_EVENT_OPTIONS,
	BACKENDS_IDENTITY
};

typedef enum Ordering
{
	ORDER_KEY,
	ORDER_STRICT,
	ORDER_NONE
} Ordering;

typedef struct Backend
{
	int32		id;
	TransactionId version;		/* another one: the row was written again */
	char	   *name;
	char	   *transport;
	Jsonb	   *options;		/* with the secrets in their places */
	bool		enabled;
	bool		dropping;
	bool		force_drop;
	bool		ours;			/* false: a restored row that was not adopted yet */
	Ordering	ordering;
	char	   *owner;			/* name of the role */
	int			batch_size;
	int			sleep_time;		/* ms */
	int			max_retries;
	bool		retry_backoff;
	int			retry_delay;	/* ms */
	int			retry_max_delay;	/* ms */
} Backend;

/*
 * Both need a transaction; the result is in the current memory context.
 * Columns that are NULL have the value of their setting.
 */
extern List *backends_read_all(void);
extern Backend *backends_read(int32 id);	/* NULL if there is none */

/* Errors (42704) with a hint that lists the backends.  Needs SPI. */
extern void backends_report_missing(const char *name);

/* Removes what is left of a backend that was being dropped. */
extern void backends_remove(int32 id);

/* True while backends_remove() runs: its DELETE is not to be refused. */
extern bool backends_removing;

/* True while dispatch.adopt() runs: it alone may change the identity. */
extern bool backends_adopting;

/* Who we are: system identifier and database, as in backends.identity. */
extern char *backends_identity(void);

#endif							/* DISPATCH_BACKENDS_H */
