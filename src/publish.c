/*-------------------------------------------------------------------------
 *
 * publish.c
 *	  dispatch.publish(): an event joins the current transaction.
 *
 * All it does to the caller's transaction is one insert.  Whatever could make
 * delivery fail later, and can be known now, is an error here: the backend, its
 * options for the event, and whether the templates of the destination can be
 * rendered.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "known_backends.h"
#include "outbox.h"
#include "uuid7.h"
#include "wake.h"

#define DEFAULT_BACKEND "default"

PG_FUNCTION_INFO_V1(dispatch_publish);

/* Arguments of dispatch.publish(). */
enum
{
	ARG_EVENT_TYPE,
	ARG_SOURCE,
	ARG_DATA,
	ARG_BACKEND,
	ARG_KEY,
	ARG_SUBJECT,
	ARG_OPTIONS,
	ARG_SCHEDULED_AT,
	ARG_MAX_RETRIES
};

/* A text that may be left out, but not be empty. */
static void
check_text(FunctionCallInfo fcinfo, int arg, const char *name, bool required)
{
	if (fcinfo->args[arg].isnull)
	{
		if (required)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s of an event must not be null", name)));
		return;
	}
	if (VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(arg)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of an event must not be empty", name),
				 required ? 0 : errhint("Leave it out, or pass NULL.")));
}

static void
check_max_retries(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(ARG_MAX_RETRIES) &&
		(PG_GETARG_INT32(ARG_MAX_RETRIES) < 0 || PG_GETARG_INT32(ARG_MAX_RETRIES) > 1000000))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_retries must be between 0 and 1000000, not %d",
						PG_GETARG_INT32(ARG_MAX_RETRIES))));
}

static void
check_scheduled_at(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(ARG_SCHEDULED_AT) &&
		TIMESTAMP_IS_NOEND(PG_GETARG_TIMESTAMPTZ(ARG_SCHEDULED_AT)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("scheduled_at must not be infinity"),
				 errdetail("The event would never be sent.")));
}

static char *
text_or_null(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

static void
report_option(const char *option, const char *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" does not fit this event", option),
			 errdetail("%s", error)));
}

/* The event's options, and all templates as they are for it. */
static void
check_options(FunctionCallInfo fcinfo, const KnownBackend *backend)
{
	const OptionTable *table = backend->table;
	Jsonb	   *options = PG_ARGISNULL(ARG_OPTIONS) ? NULL : PG_GETARG_JSONB_P(ARG_OPTIONS);
	DispatchValue *values;
	TemplateFields fields;
	const char *error;

	if (options != NULL)
		options_check(table, options, DISPATCH_OF_EVENT);
	else if (!backend->has_variables)
		return;

	values = palloc_array(DispatchValue, table->nitems);
	memcpy(values, backend->values, table->nitems * sizeof(DispatchValue));
	if (!options_override(table, options, values, &error))
		report_option("options", error);

	fields.event_type = text_or_null(fcinfo, ARG_EVENT_TYPE);
	fields.source = text_or_null(fcinfo, ARG_SOURCE);
	fields.subject = text_or_null(fcinfo, ARG_SUBJECT);
	fields.key = text_or_null(fcinfo, ARG_KEY);
	fields.data = PG_ARGISNULL(ARG_DATA) ? NULL : PG_GETARG_JSONB_P(ARG_DATA);
	for (int i = 0; i < table->nitems; i++)
	{
		Template   *template;
		StringInfoData rendered;

		if (table->items[i].type != DISPATCH_TEMPLATE || !values[i].is_set)
			continue;
		template = template_parse(values[i].text, &error);
		initStringInfo(&rendered);
		if (template == NULL || !template_render(template, &fields, &rendered, &error))
			report_option(table->items[i].name, error);
	}
}

static void
set_argument(FunctionCallInfo fcinfo, int arg, Datum *values, bool *nulls, int column)
{
	values[column - 1] = fcinfo->args[arg].value;
	nulls[column - 1] = fcinfo->args[arg].isnull;
}

Datum
dispatch_publish(PG_FUNCTION_ARGS)
{
	const KnownBackend *backend;
	Datum		values[OUTBOX_NATTS];
	bool		nulls[OUTBOX_NATTS];
	TimestampTz now;
	pg_uuid_t  *event_id = palloc(sizeof(pg_uuid_t));

	check_text(fcinfo, ARG_EVENT_TYPE, "event_type", true);
	check_text(fcinfo, ARG_SOURCE, "source", true);
	check_text(fcinfo, ARG_KEY, "key", false);
	check_text(fcinfo, ARG_SUBJECT, "subject", false);
	check_scheduled_at(fcinfo);
	check_max_retries(fcinfo);
	PreventCommandIfReadOnly("dispatch.publish()");
	PreventCommandIfParallelMode("dispatch.publish()");
	PreventCommandDuringRecovery("dispatch.publish()");

	backend = known_backend_find(PG_ARGISNULL(ARG_BACKEND) ? DEFAULT_BACKEND :
								 text_to_cstring(PG_GETARG_TEXT_PP(ARG_BACKEND)));
	check_options(fcinfo, backend);

	now = GetCurrentTimestamp();
	uuid7_generate(now, event_id);
	values[OUTBOX_CREATED_AT - 1] = TimestampTzGetDatum(now);
	nulls[OUTBOX_CREATED_AT - 1] = false;
	values[OUTBOX_EVENT_ID - 1] = UUIDPGetDatum(event_id);
	nulls[OUTBOX_EVENT_ID - 1] = false;
	values[OUTBOX_BACKEND_ID - 1] = Int32GetDatum(backend->id);
	nulls[OUTBOX_BACKEND_ID - 1] = false;
	set_argument(fcinfo, ARG_MAX_RETRIES, values, nulls, OUTBOX_MAX_RETRIES);
	set_argument(fcinfo, ARG_EVENT_TYPE, values, nulls, OUTBOX_EVENT_TYPE);
	set_argument(fcinfo, ARG_SOURCE, values, nulls, OUTBOX_SOURCE);
	set_argument(fcinfo, ARG_SUBJECT, values, nulls, OUTBOX_SUBJECT);
	set_argument(fcinfo, ARG_KEY, values, nulls, OUTBOX_KEY);
	set_argument(fcinfo, ARG_DATA, values, nulls, OUTBOX_DATA);
	set_argument(fcinfo, ARG_OPTIONS, values, nulls, OUTBOX_OPTIONS);

	wake_worker_at_commit(backend->id);
	if (!PG_ARGISNULL(ARG_SCHEDULED_AT) && PG_GETARG_TIMESTAMPTZ(ARG_SCHEDULED_AT) > now)
	{
		outbox_schedule(values, nulls, PG_GETARG_TIMESTAMPTZ(ARG_SCHEDULED_AT));
		wake_all_at_commit();	/* the manager must learn when it is due */
	}
	else
		outbox_append(values, nulls);

	PG_RETURN_UUID_P(event_id);
}
