/*-------------------------------------------------------------------------
 *
 * option_value.h
 *	  The value of one option.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_OPTION_VALUE_H
#define DISPATCH_OPTION_VALUE_H

#include "utils/jsonb.h"

#include "dispatch_transport.h"

#define OPTION_TYPES (DISPATCH_TIME + 1)

extern const char *const option_type_names[OPTION_TYPES];

/*
 * Reads a value, in the current memory context.  Returns NULL, or what is wrong
 * with it as a full sentence, which never tells a secret.
 */
extern const char *option_value_from_json(const DispatchOption *option,
										  const JsonbValue *json,
										  DispatchValue *value);
/* The same for the default; without one, the value is not set. */
extern const char *option_value_default(const DispatchOption *option,
										DispatchValue *value);

/*
 * Whether a text, or what a template renders to, has a length that the option
 * allows: NULL, or what is wrong as a full sentence.  Templates render to
 * nothing only where the option has a range that begins at 0.
 */
extern const char *option_value_check_length(const DispatchOption *option, size_t len);
extern const char *option_value_check_rendered(const DispatchOption *option, size_t len);

/* What the option takes, as it is put into hints: 'an integer from 1 to 9'. */
extern char *option_value_domain(const DispatchOption *option);

#endif							/* DISPATCH_OPTION_VALUE_H */
