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
#include "publish.h"
#include "uuid7.h"
#include "wake.h"

#define DEFAULT_BACKEND "default"
#define MAX_RETRIES_LIMIT 1000000

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
check_text(const text *value, const char *name, bool required)
{
	if (value == NULL && required)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s of an event must not be null", name)));
	if (value != NULL && VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of an event must not be empty", name),
				 required ? 0 : errhint("Leave it out, or pass NULL.")));
}

static void
check_event(const NewEvent *event)
{
	check_text(event->event_type, "event_type", true);
	check_text(event->source, "source", true);
	check_text(event->key, "key", false);
	check_text(event->subject, "subject", false);
	if (TIMESTAMP_IS_NOEND(event->scheduled_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("scheduled_at must not be infinity"),
				 errdetail("The event would never be sent.")));
	if (event->max_retries < -1 || event->max_retries > MAX_RETRIES_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_retries must be between 0 and %d",
						MAX_RETRIES_LIMIT)));
}

static void
report_option(const char *option, const char *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("option \"%s\" does not fit this event", option),
			 errdetail("%s", error)));
}

static char *
to_cstring(const text *value)
{
	return value ? text_to_cstring(value) : NULL;
}

/* The event's options, and all templates as they are for it. */
static void
check_options(const NewEvent *event, const KnownBackend *backend)
{
	const OptionTable *table = backend->table;
	DispatchValue *values;
	TemplateFields fields;
	const char *error;

	if (event->options != NULL)
		options_check(table, event->options, DISPATCH_OF_EVENT);
	else if (!backend->has_variables)
		return;

	values = palloc_array(DispatchValue, table->nitems);
	memcpy(values, backend->values, table->nitems * sizeof(DispatchValue));
	if (!options_override(table, event->options, values, &error))
		report_option("options", error);

	fields.event_type = to_cstring(event->event_type);
	fields.source = to_cstring(event->source);
	fields.subject = to_cstring(event->subject);
	fields.key = to_cstring(event->key);
	fields.data = event->has_data ? DatumGetJsonbP(event->data) : NULL;
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
set_column(Datum *values, bool *nulls, int column, Datum value, bool isnull)
{
	values[column - 1] = value;
	nulls[column - 1] = isnull;
}

static void
set_pointer(Datum *values, bool *nulls, int column, const void *value)
{
	set_column(values, nulls, column, PointerGetDatum(value), value == NULL);
}

void
publish_event(const NewEvent *event, pg_uuid_t *event_id)
{
	const KnownBackend *backend;
	Datum		values[OUTBOX_NATTS];
	bool		nulls[OUTBOX_NATTS];
	TimestampTz now;

	check_event(event);
	PreventCommandIfReadOnly("dispatch.publish()");
	PreventCommandIfParallelMode("dispatch.publish()");
	PreventCommandDuringRecovery("dispatch.publish()");

	backend = known_backend_find(event->backend ? text_to_cstring(event->backend) :
								 DEFAULT_BACKEND);
	check_options(event, backend);

	now = GetCurrentTimestamp();
	uuid7_generate(now, event_id);
	set_column(values, nulls, OUTBOX_CREATED_AT, TimestampTzGetDatum(now), false);
	set_column(values, nulls, OUTBOX_EVENT_ID, UUIDPGetDatum(event_id), false);
	set_column(values, nulls, OUTBOX_BACKEND_ID, Int32GetDatum(backend->id), false);
	set_column(values, nulls, OUTBOX_MAX_RETRIES, Int32GetDatum(event->max_retries),
			   event->max_retries < 0);
	set_pointer(values, nulls, OUTBOX_EVENT_TYPE, event->event_type);
	set_pointer(values, nulls, OUTBOX_SOURCE, event->source);
	set_pointer(values, nulls, OUTBOX_SUBJECT, event->subject);
	set_pointer(values, nulls, OUTBOX_KEY, event->key);
	set_column(values, nulls, OUTBOX_DATA, event->data, !event->has_data);
	set_pointer(values, nulls, OUTBOX_OPTIONS, event->options);

	wake_worker_at_commit(backend->id);
	if (event->scheduled_at > now)
	{
		outbox_schedule(values, nulls, event->scheduled_at);
		wake_all_at_commit();	/* the manager must learn when it is due */
	}
	else
		outbox_append(values, nulls);
}

static text *
text_argument(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_TEXT_PP(arg);
}

/* -1 is how an event without a number of its own is kept, and no argument. */
static int
max_retries_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(ARG_MAX_RETRIES))
		return -1;
	return PG_GETARG_INT32(ARG_MAX_RETRIES) == -1 ? PG_INT32_MIN :
		PG_GETARG_INT32(ARG_MAX_RETRIES);
}

Datum
dispatch_publish(PG_FUNCTION_ARGS)
{
	NewEvent	event = {
		.event_type = text_argument(fcinfo, ARG_EVENT_TYPE),
		.source = text_argument(fcinfo, ARG_SOURCE),
		.subject = text_argument(fcinfo, ARG_SUBJECT),
		.key = text_argument(fcinfo, ARG_KEY),
		.data = PG_GETARG_DATUM(ARG_DATA),
		.has_data = !PG_ARGISNULL(ARG_DATA),
		.backend = text_argument(fcinfo, ARG_BACKEND),
		.options = PG_ARGISNULL(ARG_OPTIONS) ? NULL : PG_GETARG_JSONB_P(ARG_OPTIONS),
		.scheduled_at = PG_ARGISNULL(ARG_SCHEDULED_AT) ? DT_NOBEGIN :
			PG_GETARG_TIMESTAMPTZ(ARG_SCHEDULED_AT),
		.max_retries = max_retries_argument(fcinfo),
	};
	pg_uuid_t  *event_id = palloc(sizeof(pg_uuid_t));

	publish_event(&event, event_id);
	PG_RETURN_UUID_P(event_id);
}
