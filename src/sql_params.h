/*-------------------------------------------------------------------------
 *
 * sql_params.h
 *	  Parameters of a statement, gathered one by one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_SQL_PARAMS_H
#define DISPATCH_SQL_PARAMS_H

#include "catalog/pg_type_d.h"
#include "utils/jsonb.h"

#define MAX_PARAMS 24

/* Starts as {0}. */
typedef struct Params
{
	int			count;
	Oid			types[MAX_PARAMS];
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];
} Params;

extern void param_add(Params *params, Oid type, Datum value, bool isnull);
extern void param_add_text(Params *params, const char *text);	/* NULL: null */
extern void param_add_jsonb(Params *params, Jsonb *value);	/* NULL: null */
extern void param_add_seconds(Params *params, int seconds);	/* an interval */

/*
 * Runs a statement with them; the caller has connected to SPI.  Returns how
 * many rows it processed.
 */
extern uint64 params_run(const Params *params, const char *statement, bool read_only);

#endif							/* DISPATCH_SQL_PARAMS_H */
