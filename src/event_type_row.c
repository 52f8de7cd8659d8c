/*-------------------------------------------------------------------------
 *
 * event_type_row.c
 *	  Rows of dispatch.event_types, and the trigger that checks them.
 *
 * As with backends, define_event_type() is a plain INSERT, and all rules are
 * here.  A row that names an installation comes from a dump, and is taken as it
 * is: its backend may be restored after it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"

#include "backends.h"
#include "event_type_row.h"
#include "known_backends.h"

PG_FUNCTION_INFO_V1(dispatch_check_event_type_row);

static char *
read_text(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = heap_getattr(row, column, desc, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

void
event_type_read(HeapTuple row, TupleDesc desc, EventType *type)
{
	bool		isnull;
	Datum		options = heap_getattr(row, EVENT_TYPES_OPTIONS, desc, &isnull);

	type->backend = read_text(row, desc, EVENT_TYPES_BACKEND);
	type->topic = read_text(row, desc, EVENT_TYPES_TOPIC);
	type->partition_by = read_text(row, desc, EVENT_TYPES_PARTITION_BY);
	type->options = isnull ? NULL : DatumGetJsonbPCopy(options);
}

static void
check_name(const char *name)
{
	if (name == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of an event type must not be null")));
	if (*name == '\0' || strlen(name) >= EVENT_TYPE_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid name of an event type"),
				 errdetail("It must have between 1 and %d bytes.", EVENT_TYPE_LEN - 1)));
}

/* Of the default backend, too, which may be created later. */
static const OptionTable *
backend_table(const EventType *type)
{
	const KnownBackend *backend;

	if (type->backend != NULL)
		backend = known_backend_find(type->backend, false);
	else
		backend = known_backend_find(DEFAULT_BACKEND, true);
	return backend != NULL ? backend->table : NULL;
}

static HeapTuple
check_row(HeapTuple row, TupleDesc desc)
{
	int			column = EVENT_TYPES_IDENTITY;
	Datum		identity = CStringGetTextDatum(backends_identity());
	bool		isnull = false;
	EventType	type;

	check_name(read_text(row, desc, EVENT_TYPES_EVENT_TYPE));
	event_type_read(row, desc, &type);
	event_type_check(&type, backend_table(&type));
	return heap_modify_tuple_by_cols(row, desc, 1, &column, &identity, &isnull);
}

static bool
is_restored(HeapTuple row, TupleDesc desc)
{
	char	   *identity = read_text(row, desc, EVENT_TYPES_IDENTITY);

	return identity != NULL && *identity != '\0';
}

Datum
dispatch_check_event_type_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) || TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("dispatch.check_event_type_row() must be called by its trigger")));

	desc = RelationGetDescr(trigger->tg_relation);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return PointerGetDatum(check_row(trigger->tg_newtuple, desc));
	if (is_restored(trigger->tg_trigtuple, desc))
		return PointerGetDatum(trigger->tg_trigtuple);
	return PointerGetDatum(check_row(trigger->tg_trigtuple, desc));
}
