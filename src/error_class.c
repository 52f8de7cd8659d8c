/*-------------------------------------------------------------------------
 *
 * error_class.c
 *	  What is done about each class of errors.
 *
 * Transports say of which class an error is (each has a table of the errors of
 * its broker); this is the one place that says what follows from it.  An error
 * is either the connection's, which is then lost, or an event's own.  A class
 * that is meant for one of the two has a harmless answer for the other, since a
 * transport may be wrong: no event is given up by a class that stands for the
 * broker's trouble.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "error_class.h"

static const ErrorPolicy policies[] = {
	[DISPATCH_OUTAGE] = {200, 30000, false, false, FATE_WAIT, 1000, false},
	[DISPATCH_BACKPRESSURE] = {200, 30000, false, false, FATE_WAIT, 1000, false},
	[DISPATCH_CONFIGURATION] = {5000, 60000, true, false, FATE_WAIT, 10000, false},
	[DISPATCH_DESTINATION] = {200, 30000, false, false, FATE_WAIT, 10000, true},
	[DISPATCH_EVENT_FAILED] = {200, 30000, false, false, FATE_RETRY, 0, false},
	[DISPATCH_EVENT_REJECTED] = {200, 30000, false, false, FATE_DEAD_LETTER, 0, false},
	[DISPATCH_CULPRIT_UNKNOWN] = {200, 200, false, true, FATE_RETRY, 0, false},
};

/* A class that is none, from a transport that is wrong, is an outage. */
const ErrorPolicy *
error_policy(DispatchErrorClass error_class)
{
	if ((unsigned int) error_class >= lengthof(policies))
		error_class = DISPATCH_OUTAGE;
	return &policies[error_class];
}
