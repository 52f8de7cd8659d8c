/*-------------------------------------------------------------------------
 *
 * known_cache.c
 *	  Caches of what publish() looks up by name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "known_cache.h"

#define INITIAL_ENTRIES 16

HTAB *
known_cache_reset(MemoryContext *context, const char *name, Size keysize, Size entrysize)
{
	HASHCTL		control = {.keysize = keysize, .entrysize = entrysize};

	if (*context == NULL)
		*context = AllocSetContextCreate(CacheMemoryContext, "dispatch cache",
										 ALLOCSET_SMALL_SIZES);
	else
		MemoryContextReset(*context);
	control.hcxt = *context;
	return hash_create(name, INITIAL_ENTRIES, &control,
					   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}
