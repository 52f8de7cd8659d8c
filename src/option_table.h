/*-------------------------------------------------------------------------
 *
 * option_table.h
 *	  Rows of option tables, as text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_OPTION_TABLE_H
#define DISPATCH_OPTION_TABLE_H

#include "options.h"

/* Lower-case letters, digits and underscores, and a letter first. */
extern bool option_name_is_valid(const char *name);

/* 'backend', 'event' or 'backend, event' */
extern const char *option_scope_name(int flags);

/* The row of that name; NULL: none.  "name" need not be terminated. */
extern const DispatchOption *option_find(const OptionTable *table,
										 const char *name, int len);

#endif							/* DISPATCH_OPTION_TABLE_H */
