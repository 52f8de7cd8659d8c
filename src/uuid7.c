/*-------------------------------------------------------------------------
 *
 * uuid7.c
 *	  Identities of events: UUIDs of version 7.
 *
 * They grow with time, which is kind to every index that a consumer may put on
 * them.  The fraction of a millisecond (method 3 of RFC 9562, section 6.2)
 * orders those of one millisecond.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "uuid7.h"

#define UNIX_EPOCH_OFFSET \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* Random bytes are fetched for many at once: a call costs more than the bytes. */
static void
random_bytes(uint8 *target, int n)
{
	static uint8 pool[512];
	static int	left = 0;

	if (left < n)
	{
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(pool);
	}
	left -= n;
	memcpy(target, pool + left, n);
}

void
uuid7_generate(TimestampTz now, pg_uuid_t *uuid)
{
	int64		us = now + UNIX_EPOCH_OFFSET;
	int64		ms = us / 1000;
	int			fraction = (int) (us % 1000 * 4096 / 1000);

	for (int i = 0; i < 6; i++)
		uuid->data[i] = (uint8) (ms >> (40 - 8 * i));
	uuid->data[6] = 0x70 | (fraction >> 8);
	uuid->data[7] = (uint8) fraction;
	random_bytes(&uuid->data[8], 8);
	uuid->data[8] = 0x80 | (uuid->data[8] & 0x3f);
}
