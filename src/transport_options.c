/*-------------------------------------------------------------------------
 *
 * transport_options.c
 *	  dispatch.transport_options(): the options of transports, as a table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

#include "option_table.h"
#include "option_value.h"
#include "transport.h"

PG_FUNCTION_INFO_V1(dispatch_transport_options);

enum
{
	COLUMN_TRANSPORT,
	COLUMN_OPTION,
	COLUMN_SCOPE,
	COLUMN_TYPE,
	COLUMN_DEFAULT,
	COLUMN_REQUIRED,
	COLUMN_SECRET,
	COLUMN_DESCRIPTION,
	COLUMNS
};

/* The line of help, and what is valid where the type does not say it all. */
static char *
describe(const DispatchOption *option)
{
	const char *help = option->help != NULL ? option->help : "";

	if (option->type != DISPATCH_ENUM && option->min == 0 && option->max == 0)
		return pstrdup(help);
	return psprintf("%s%s(%s)", help, *help != '\0' ? " " : "", option_value_domain(option));
}

static void
put_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL;
	if (text != NULL)
		values[column] = CStringGetTextDatum(text);
}

static void
put_option(ReturnSetInfo *result, const char *transport, const DispatchOption *option)
{
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {false};

	put_text(values, nulls, COLUMN_TRANSPORT, transport);
	put_text(values, nulls, COLUMN_OPTION, option->name);
	put_text(values, nulls, COLUMN_SCOPE, option_scope_name(option->flags));
	put_text(values, nulls, COLUMN_TYPE, option_type_names[option->type]);
	put_text(values, nulls, COLUMN_DEFAULT, option->default_value);
	values[COLUMN_REQUIRED] = BoolGetDatum((option->flags & DISPATCH_REQUIRED) != 0);
	values[COLUMN_SECRET] = BoolGetDatum((option->flags & DISPATCH_SECRET) != 0);
	put_text(values, nulls, COLUMN_DESCRIPTION, describe(option));
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_transport(ReturnSetInfo *result, const DispatchTransport *transport)
{
	OptionTable *table = options_table(transport);

	for (int i = 0; i < table->nitems; i++)
		put_option(result, transport->name, &table->items[i]);
}

/*
 * The transport, or NULL and a warning: one module that lacks its library
 * must not hide all others.
 */
static const DispatchTransport *
find_or_warn(const char *name)
{
	const DispatchTransport *volatile transport = NULL;
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		transport = transport_find(name);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("transport \"%s\" is left out: %s", name, error->message),
				 error->detail != NULL ? errdetail_internal("%s", error->detail) : 0));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return transport;
}

Datum
dispatch_transport_options(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	if (!PG_ARGISNULL(0))
	{
		put_transport(result, transport_find(text_to_cstring(PG_GETARG_TEXT_PP(0))));
		return (Datum) 0;
	}

	foreach(cell, transport_names())
	{
		const DispatchTransport *transport = find_or_warn(lfirst(cell));

		if (transport != NULL)
			put_transport(result, transport);
	}
	return (Datum) 0;
}
