/*-------------------------------------------------------------------------
 *
 * uuid7.h
 *	  Identities of events: UUIDs of version 7.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_UUID7_H
#define DISPATCH_UUID7_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

/*
 * A new UUIDv7 (RFC 9562) of that moment: 48 bits of milliseconds since 1970,
 * 12 bits of fractions of one, 62 random bits.  Errors when the server has no
 * random numbers.
 */
extern void uuid7_generate(TimestampTz now, pg_uuid_t *uuid);

#endif							/* DISPATCH_UUID7_H */
