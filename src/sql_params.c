/*-------------------------------------------------------------------------
 *
 * sql_params.c
 *	  Parameters of a statement, gathered one by one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "sql_params.h"

void
param_add(Params *params, Oid type, Datum value, bool isnull)
{
	if (params->count == MAX_PARAMS)
		elog(ERROR, "too many parameters");
	params->types[params->count] = type;
	params->values[params->count] = value;
	params->nulls[params->count] = isnull ? 'n' : ' ';
	params->count++;
}

void
param_add_text(Params *params, const char *text)
{
	param_add(params, TEXTOID, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

void
param_add_jsonb(Params *params, Jsonb *value)
{
	param_add(params, JSONBOID, JsonbPGetDatum(value), value == NULL);
}

void
param_add_seconds(Params *params, int seconds)
{
	Interval   *interval = palloc0_object(Interval);

	interval->time = (int64) seconds * USECS_PER_SEC;
	param_add(params, INTERVALOID, IntervalPGetDatum(interval), false);
}

uint64
params_run(const Params *params, const char *statement, bool read_only)
{
	/* The function wants arrays that it may write to, though it does not. */
	Params		copy = *params;

	SPI_execute_with_args(statement, copy.count, copy.types, copy.values, copy.nulls,
						  read_only, 0);
	return SPI_processed;
}
