/*-------------------------------------------------------------------------
 *
 * options.h
 *	  Option tables: checking, reading and listing the options of transports.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_OPTIONS_H
#define DISPATCH_OPTIONS_H

#include "utils/jsonb.h"

#include "dispatch_transport.h"

/*
 * The options that a transport takes: its own table, then those that the core
 * adds to every transport.  Values come in arrays parallel to items[].
 */
typedef struct OptionTable
{
	const char *transport;		/* name of the transport, for messages */
	int			nitems;
	DispatchOption *items;
	int			envelope;		/* index of "envelope" */
	int			extensions;		/* index of "extensions" */
	int			destination;	/* index of what a topic sets; -1: none */
	bool		is_partial;		/* made from a spec: lacks options that only
								 * the transport's module knows */
} OptionTable;

/* What masks a secret wherever options show. */
#define OPTION_MASK "********"

/*
 * The table of a transport, in the current memory context.  Errors (42P17)
 * when the transport's own is not sound.
 */
extern OptionTable *options_table(const DispatchTransport *transport);

/*
 * Errors (22023; 42883 for a function that does not exist) with a hint that
 * says what is valid, unless "options" can be set in that scope:
 * DISPATCH_OF_BACKEND or DISPATCH_OF_EVENT.  NULL sets nothing, and neither
 * does a JSON null.  The mask of a secret is accepted.
 */
extern void options_check(const OptionTable *table, const Jsonb *options, int scope);

/*
 * What publish() needs to know of a table, as JSON to be stored with a backend,
 * and back, without the transport's module: the event options and all
 * templates.  Such a table reads a backend's options too, and passes over those
 * that it lacks.  Errors (XX001) when the stored spec is malformed.
 */
extern Jsonb *options_event_spec(const OptionTable *table);
extern OptionTable *options_from_spec(const char *transport, const Jsonb *spec);

/*
 * Splits the secrets off, and leaves their masks behind.  *secrets is NULL if
 * there are none; a secret that is masked already is not among them.
 */
extern Jsonb *options_mask_secrets(const OptionTable *table, const Jsonb *options,
								   Jsonb **secrets);
/* Puts secrets back in the place of their masks.  secrets may be NULL. */
extern Jsonb *options_with_secrets(const Jsonb *options, const Jsonb *secrets);

/*
 * Fills in values[] (nitems) from defaults and options, which were checked
 * before, but are not trusted: errors as options_check() does, and when a
 * secret is still masked.  Texts are UTF-8, so that this needs a transaction
 * unless the database is UTF-8, too.  Templates are left as they are written,
 * in the encoding of the database.
 */
extern void options_read(const OptionTable *table, const Jsonb *options, int scope,
						 DispatchValue *values);
/*
 * Overwrites those values[] that an event's options (NULL: none) set.  False,
 * with *error set to a full sentence, when they are not valid: that is the
 * event's own failure.
 */
extern bool options_override(const OptionTable *table, const Jsonb *options,
							 DispatchValue *values, const char **error);

/* What the option "envelope" says. */
extern DispatchEnvelope options_envelope(const OptionTable *table,
										 const DispatchValue *values);

/*
 * The function that a DISPATCH_FUNCTION option (UTF-8) names: 'app.send(text)'.
 * Errors (42883 and the like) when there is none.
 */
extern Oid	options_function(const char *signature);

#endif							/* DISPATCH_OPTIONS_H */
