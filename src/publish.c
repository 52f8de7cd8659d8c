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
 * What the caller says comes before what the event type says, and that before
 * what the backend says.  The first two are settled here and stored with the
 * event; the backend's options are looked up when it is sent.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "attributes.h"
#include "json.h"
#include "known_backends.h"
#include "option_value.h"
#include "known_event_types.h"
#include "outbox.h"
#include "publish.h"
#include "uuid7.h"
#include "wake.h"

#define MAX_RETRIES_LIMIT 1000000

PG_FUNCTION_INFO_V1(dispatch_publish);
PG_FUNCTION_INFO_V1(dispatch_publish_binary);

/* Arguments of dispatch.publish(). */
enum
{
	ARG_EVENT_TYPE,
	ARG_SOURCE,
	ARG_DATA,
	ARG_BACKEND,
	ARG_SUBJECT = ARG_BACKEND + 2,
	ARG_OPTIONS
};

/* Those of dispatch.publish_binary(), where they are others. */
enum
{
	BINARY_ARG_CONTENT = ARG_DATA,
	BINARY_ARG_CONTENT_TYPE,
	BINARY_ARG_BACKEND,
	BINARY_ARG_SUBJECT = BINARY_ARG_BACKEND + 2,
	BINARY_ARG_OPTIONS
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

/*
 * Numbers are sent in digits, up to 147,456 of them, whereas 1e100000 takes a
 * dozen bytes here, and those of options are digits wherever they are read.
 * Only a document of so many bytes can go too far by that.
 */
#define NUMBER_BYTES 12
#define NUMBER_DIGITS (128 * 1024 + 16 * 1024)
#define NUMBERS_MAX (256 * 1024 * 1024)
#define UNCHECKED_BYTES (NUMBERS_MAX / NUMBER_DIGITS * NUMBER_BYTES)

static void
check_numbers(Datum document, const char *too_long)
{
	if (toast_raw_datum_size(document) <= UNCHECKED_BYTES)
		return;
	if (!json_numbers_fit(DatumGetJsonbP(document), NUMBERS_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s", too_long),
				 errdetail("The numbers have more than %d digits together.", NUMBERS_MAX),
				 errhint("Pass numbers with such exponents as strings: \"1e100000\".")));
}

static void
check_event(const NewEvent *event)
{
	check_text(event->event_type, "event_type", true);
	check_text(event->source, "source", true);
	check_text(event->key, "key", false);
	check_text(event->subject, "subject", false);
	if (event->has_data)
		check_numbers(event->data, "data of an event is too long as text");
	if (event->options != NULL)
		check_numbers(JsonbPGetDatum(event->options), "options of an event are too long as text");
	if (event->has_content && toast_raw_datum_size(event->content) - VARHDRSZ > CONTENT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("binary data of an event must not be longer than %d bytes",
						CONTENT_MAX)));
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

static void
check_envelope(const NewEvent *event, DispatchEnvelope envelope)
{
	if (event->has_content && envelope == DISPATCH_DISPYTCH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("envelope \"dispytch\" cannot hold binary data"),
				 errhint("Set the event's option \"envelope\" to another one.")));
}

/* The templates of the destination can be rendered. */
static void
check_templates(const NewEvent *event, const OptionTable *table, const DispatchValue *values)
{
	const TemplateFields fields = {
		to_cstring(event->event_type), to_cstring(event->source), to_cstring(event->subject),
		to_cstring(event->key), event->has_data ? DatumGetJsonbP(event->data) : NULL
	};

	for (int i = 0; i < table->nitems; i++)
	{
		Template   *template;
		StringInfoData rendered;
		const char *error;

		if (table->items[i].type != DISPATCH_TEMPLATE || !values[i].is_set)
			continue;
		template = template_parse(values[i].text, &error);
		initStringInfo(&rendered);
		if (template == NULL || !template_render(template, &fields, &rendered, &error))
			report_option(table->items[i].name, error);
		error = option_value_check_rendered(&table->items[i], rendered.len);
		if (error != NULL)
			report_option(table->items[i].name, error);
	}
}

/* The event's options, and what follows from them. */
static void
apply_options(NewEvent *event, const KnownBackend *backend)
{
	const OptionTable *table = backend->table;
	DispatchValue *values;
	const char *error;

	if (event->options != NULL)
		options_check(table, event->options, DISPATCH_OF_EVENT);
	else if (!backend->has_variables && !event->has_content)
		return;

	values = palloc_array(DispatchValue, table->nitems);
	memcpy(values, backend->values, table->nitems * sizeof(DispatchValue));
	if (!options_override(table, event->options, values, &error))
		report_option("options", error);
	check_envelope(event, options_envelope(table, values));
	check_templates(event, table, values);
	if (values[table->extensions].is_set)
	{
		attributes_check_extensions(event->options);
		event->attributes = attributes_with_extensions(event->attributes, event->options);
	}
}

/* What the event type sets, where the caller has not. */
static void
apply_event_type(NewEvent *event, const EventType *type, const KnownBackend *backend)
{
	event->options = event_type_options(type, backend->table, event->options);
	if (event->key == NULL && type->partition_by != NULL)
		event->key = event_type_key(type, event->has_data ? DatumGetJsonbP(event->data) : NULL);
}

static const KnownBackend *
find_backend(const NewEvent *event, const EventType *type)
{
	if (event->backend != NULL)
		return known_backend_find(text_to_cstring(event->backend), false);
	if (type != NULL && type->backend != NULL)
		return known_backend_find(type->backend, false);
	return known_backend_find(DEFAULT_BACKEND, false);
}

static void
event_type_context(void *arg)
{
	char	   *name = text_to_cstring(arg);

	errcontext("publishing an event of type \"%s\", which is in dispatch.event_types", name);
}

/* Completes the event, and returns the backend that it goes to. */
static const KnownBackend *
complete_event(NewEvent *event)
{
	const EventType *type = known_event_type_find(event->event_type);
	const KnownBackend *backend;
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = event_type_context,
		.arg = event->event_type
	};

	if (type != NULL)
		error_context_stack = &context;
	backend = find_backend(event, type);
	if (type != NULL)
		apply_event_type(event, type, backend);
	apply_options(event, backend);
	error_context_stack = context.previous;
	return backend;
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
publish_event(const NewEvent *given, pg_uuid_t *event_id)
{
	NewEvent	event = *given;
	const KnownBackend *backend;
	Datum		values[OUTBOX_NATTS];
	bool		nulls[OUTBOX_NATTS];
	TimestampTz now;

	check_event(&event);
	PreventCommandIfReadOnly("dispatch.publish()");
	PreventCommandIfParallelMode("dispatch.publish()");
	PreventCommandDuringRecovery("dispatch.publish()");
	/*
	 * Before the backend is looked up: who drops it waits for all transactions
	 * that had an xid when nobody could look it up any more.
	 */
	(void) GetTopTransactionId();
	backend = complete_event(&event);

	now = GetCurrentTimestamp();
	uuid7_generate(now, event_id);
	set_column(values, nulls, OUTBOX_CREATED_AT, TimestampTzGetDatum(now), false);
	set_column(values, nulls, OUTBOX_EVENT_ID, UUIDPGetDatum(event_id), false);
	set_column(values, nulls, OUTBOX_BACKEND_ID, Int32GetDatum(backend->id), false);
	set_column(values, nulls, OUTBOX_MAX_RETRIES, Int32GetDatum(event.max_retries),
			   event.max_retries < 0);
	set_pointer(values, nulls, OUTBOX_EVENT_TYPE, event.event_type);
	set_pointer(values, nulls, OUTBOX_SOURCE, event.source);
	set_pointer(values, nulls, OUTBOX_SUBJECT, event.subject);
	set_pointer(values, nulls, OUTBOX_KEY, event.key);
	set_column(values, nulls, OUTBOX_DATA, event.data, !event.has_data);
	set_pointer(values, nulls, OUTBOX_OPTIONS, event.options);
	set_pointer(values, nulls, OUTBOX_ATTRIBUTES, event.attributes);
	set_column(values, nulls, OUTBOX_CONTENT, event.content, !event.has_content);

	/*
	 * In a copy that was not adopted, positions are in the numbers of another
	 * installation: this event could look delivered by them.
	 */
	if (event.scheduled_at > now || !backend->is_ours)
	{
		outbox_schedule(values, nulls, Max(event.scheduled_at, now));
		wake_manager_at_commit();	/* it must learn when it is due */
	}
	else
	{
		outbox_append(values, nulls);
		wake_worker_at_commit(backend->id);
	}
}

/* ------------------------------------------------------------------------
 * SQL functions
 * ------------------------------------------------------------------------
 */

text *
publish_text_argument(FunctionCallInfo fcinfo, int arg)
{
	return PG_ARGISNULL(arg) ? NULL : PG_GETARG_TEXT_PP(arg);
}

/* -1 is how an event without a number of its own is kept, and no argument. */
static int
max_retries_argument(FunctionCallInfo fcinfo, int arg)
{
	if (PG_ARGISNULL(arg))
		return -1;
	return PG_GETARG_INT32(arg) == -1 ? PG_INT32_MIN : PG_GETARG_INT32(arg);
}

void
publish_read_arguments(FunctionCallInfo fcinfo, int backend, int options, NewEvent *event)
{
	event->backend = publish_text_argument(fcinfo, backend);
	event->key = publish_text_argument(fcinfo, backend + 1);
	event->options = PG_ARGISNULL(options) ? NULL : PG_GETARG_JSONB_P(options);
	event->scheduled_at = PG_ARGISNULL(options + 1) ? DT_NOBEGIN :
		PG_GETARG_TIMESTAMPTZ(options + 1);
	event->max_retries = max_retries_argument(fcinfo, options + 2);
}

Datum
dispatch_publish(PG_FUNCTION_ARGS)
{
	NewEvent	event = {
		.event_type = publish_text_argument(fcinfo, ARG_EVENT_TYPE),
		.source = publish_text_argument(fcinfo, ARG_SOURCE),
		.subject = publish_text_argument(fcinfo, ARG_SUBJECT),
		.data = PG_GETARG_DATUM(ARG_DATA),
		.has_data = !PG_ARGISNULL(ARG_DATA),
	};
	pg_uuid_t  *event_id = palloc(sizeof(pg_uuid_t));

	publish_read_arguments(fcinfo, ARG_BACKEND, ARG_OPTIONS, &event);
	publish_event(&event, event_id);
	PG_RETURN_UUID_P(event_id);
}

Datum
dispatch_publish_binary(PG_FUNCTION_ARGS)
{
	NewEvent	event = {
		.event_type = publish_text_argument(fcinfo, ARG_EVENT_TYPE),
		.source = publish_text_argument(fcinfo, ARG_SOURCE),
		.subject = publish_text_argument(fcinfo, BINARY_ARG_SUBJECT),
		.content = PG_GETARG_DATUM(BINARY_ARG_CONTENT),
		.has_content = true,
	};
	pg_uuid_t  *event_id = palloc(sizeof(pg_uuid_t));

	if (PG_ARGISNULL(BINARY_ARG_CONTENT))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("content of an event must not be null"),
				 errhint("Publish an event without data with dispatch.publish().")));
	event.attributes =
		attributes_of_content(publish_text_argument(fcinfo, BINARY_ARG_CONTENT_TYPE));
	publish_read_arguments(fcinfo, BINARY_ARG_BACKEND, BINARY_ARG_OPTIONS, &event);
	publish_event(&event, event_id);
	PG_RETURN_UUID_P(event_id);
}
