/*-------------------------------------------------------------------------
 *
 * known_backends.h
 *	  What publish() knows of backends, cached.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_KNOWN_BACKENDS_H
#define DISPATCH_KNOWN_BACKENDS_H

#include "options.h"
#include "template.h"

/* Where events go that name no backend. */
#define DEFAULT_BACKEND "default"

typedef struct KnownBackend
{
	char		name[NAMEDATALEN];	/* hash key */
	int32		id;
	MemoryContext context;		/* of all below */
	OptionTable *table;			/* event options and templates */
	DispatchValue *values;		/* the backend's */
	bool		is_ours;		/* false: this copy was not adopted yet */
	bool		has_variables;	/* do templates among them hold placeholders? */
} KnownBackend;

/*
 * The backend of that name; errors (42704), or NULL if missing_ok, if there is
 * none, or if it is being dropped.  Valid until the next call.
 */
extern const KnownBackend *known_backend_find(const char *name, bool missing_ok);

#endif							/* DISPATCH_KNOWN_BACKENDS_H */
