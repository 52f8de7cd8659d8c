/*-------------------------------------------------------------------------
 *
 * attributes.h
 *	  Attributes of a CloudEvent that an event carries beside its columns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_ATTRIBUTES_H
#define DISPATCH_ATTRIBUTES_H

#include "utils/jsonb.h"

/* The longest binary payload; as base64 it is still a text that fits. */
#define CONTENT_MAX (512 * 1024 * 1024)

/* What data is unless datacontenttype says otherwise. */
#define JSON_TYPE "application/json"

/*
 * NULL, or what is wrong with an attribute, as a full sentence.  A JSON null
 * is for the caller: it stands for an attribute that is not there.
 */
extern const char *attribute_problem(const char *name, const JsonbValue *value);

/*
 * Errors (22023) if one of an event's options.extensions, which are scalars,
 * is no extension attribute.
 */
extern void attributes_check_extensions(const Jsonb *options);

/*
 * The attributes with options.extensions (without those that are null) added;
 * an attribute that is there already stays.  Either may be NULL, and so is
 * the result if there are none.
 */
extern Jsonb *attributes_with_extensions(const Jsonb *attributes, const Jsonb *options);

/* Attributes that hold nothing but the type of the data; errors (22023, 22004). */
extern Jsonb *attributes_of_content(const text *content_type);

/*
 * An attribute; NULL: it is not there.  "attributes" may be NULL.  The result
 * is in the current memory context.
 */
extern const JsonbValue *attributes_get(const Jsonb *attributes, const char *name);
/* As text, in the canonical form of CloudEvents. */
extern const char *attributes_get_text(const Jsonb *attributes, const char *name);

/*
 * Is it a CloudEvent of the publisher's, with an id?  Such a one goes out as
 * it was given; to another one our id and time are added.
 */
extern bool attributes_are_given(const Jsonb *attributes);

#endif							/* DISPATCH_ATTRIBUTES_H */
