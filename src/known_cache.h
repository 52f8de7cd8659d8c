/*-------------------------------------------------------------------------
 *
 * known_cache.h
 *	  Caches of what publish() looks up by name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_KNOWN_CACHE_H
#define DISPATCH_KNOWN_CACHE_H

#include "utils/hsearch.h"

/*
 * A new, empty hash table, keyed by strings, in *context, which is made if it
 * is NULL, and else emptied first: whatever entries refer to belongs there.
 */
extern HTAB *known_cache_reset(MemoryContext *context, const char *name,
							   Size keysize, Size entrysize);

#endif							/* DISPATCH_KNOWN_CACHE_H */
