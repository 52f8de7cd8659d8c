/*-------------------------------------------------------------------------
 *
 * template.h
 *	  Texts with placeholders: '{event_type}.{data.user.country}'.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_TEMPLATE_H
#define DISPATCH_TEMPLATE_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

typedef struct Template Template;

/* What placeholders stand for, in the encoding of the database. */
typedef struct TemplateFields
{
	const char *event_type;
	const char *source;
	const char *subject;		/* NULL: none */
	const char *key;			/* NULL: none */
	Jsonb	   *data;			/* NULL: none */
} TemplateFields;

/*
 * Parses a template.  NULL, with *error set to a full sentence, if it is
 * malformed.  {{ and }} stand for braces.
 */
extern Template *template_parse(const char *text, const char **error);

/* Does it hold no placeholder at all? */
extern bool template_is_constant(const Template *template);

/*
 * Appends the rendered text; values are never expanded again.  False, with
 * *error set to a full sentence, when a field is missing, null or not a
 * scalar.
 */
extern bool template_render(const Template *template, const TemplateFields *fields,
							StringInfo result, const char **error);

#endif							/* DISPATCH_TEMPLATE_H */
