/*-------------------------------------------------------------------------
 *
 * error_class.h
 *	  What is done about each class of errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_ERROR_CLASS_H
#define DISPATCH_ERROR_CLASS_H

#include "dispatch_transport.h"

/* How an event goes on that has met such an error. */
typedef enum EventFate
{
	FATE_RETRY,					/* tried again, the attempt is counted */
	FATE_WAIT,					/* tried again, it is not */
	FATE_DEAD_LETTER			/* given up at once */
} EventFate;

#define FATE_WAIT_MAX 10000

typedef struct ErrorPolicy
{
	/* When the connection is lost by it. */
	long		delay;			/* before connecting again, at first (ms) */
	long		max_delay;		/* it grows no further (ms) */
	bool		needs_operator; /* it will not go away by itself */
	bool		send_singly;	/* then send what was in flight one by one */

	/* When an event fails by it. */
	EventFate	fate;
	long		wait;			/* of FATE_WAIT (ms), at most FATE_WAIT_MAX */
	bool		closes_gate;	/* others that go there wait as long, unsent */
} ErrorPolicy;

extern const ErrorPolicy *error_policy(DispatchErrorClass error_class);

#endif							/* DISPATCH_ERROR_CLASS_H */
