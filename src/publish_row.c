/*-------------------------------------------------------------------------
 *
 * publish_row.c
 *	  dispatch.publish_row(): a trigger that publishes what happens to a row.
 *
 * The event of a row holds the row as it was and as it is, as to_jsonb() gives
 * it, and has the primary key as its key, so that the events of a row keep
 * their order.  A statement trigger on TRUNCATE publishes one event without
 * data, for it has no rows.
 *
 * Nothing of a trigger's arguments can be checked when the trigger is created:
 * what is wrong with them is an error of the first statement that fires it.
 * What they say is worked out once a statement and kept in fn_extra, which
 * belongs to one trigger of one table; neither can change meanwhile.
 *
 * Text of a value must not depend on the session that happens to write the
 * row, least of all in the key: the settings that decide it are fixed in the
 * definition of the function (see the install script).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "publish.h"

#define HINT_USAGE \
	"For example: CREATE TRIGGER publish AFTER INSERT OR UPDATE OR DELETE ON users" \
	" FOR EACH ROW EXECUTE FUNCTION dispatch.publish_row('user', 'user-service')."

PG_FUNCTION_INFO_V1(dispatch_publish_row);

/* Columns of a table, by number; a list of them that may change length. */
typedef struct Columns
{
	int			count;
	AttrNumber *numbers;
} Columns;

/* What a trigger is to do. */
typedef struct RowPublisher
{
	const char *name;			/* "user" of user.inserted */
	const char *source;
	const char *backend;		/* NULL: the default */
	Columns		shown;			/* columns that events hold */
	Columns		key;			/* of the primary key, in its order */
	FmgrInfo   *key_output;		/* of these */
	TupleDesc	row;			/* record of the columns shown */
	TupleDesc	old_only;		/* records of the data: (old), (new), (old, new) */
	TupleDesc	new_only;
	TupleDesc	old_and_new;
	FmgrInfo	to_jsonb;		/* of a record */
} RowPublisher;

/* A row in pieces. */
typedef struct Row
{
	Datum	   *values;			/* by number of column - 1 */
	bool	   *nulls;
} Row;

/* ------------------------------------------------------------------------
 * The trigger and its arguments
 * ------------------------------------------------------------------------
 */

static void
check_trigger(const TriggerData *trigger)
{
	const char *name = trigger->tg_trigger->tgname;

	if (!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be an AFTER trigger", name),
				 errdetail("Before that it is not known what becomes of the row."),
				 errhint(HINT_USAGE)));
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) &&
		!TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be FOR EACH ROW", name),
				 errdetail("Only a trigger on TRUNCATE is FOR EACH STATEMENT."),
				 errhint(HINT_USAGE)));
}

static void
report_argument(const char *problem, const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid argument of trigger function publish_row(): \"%s\"", argument),
			 errdetail_internal("%s", problem),
			 errhint("Arguments are a name, a source and then, if wanted,"
					 " a backend and 'columns=a,b' or 'exclude=a,b'.")));
}

/* The value of an argument "word=value"; NULL if it is another. */
static const char *
argument_value(const char *argument, const char *word)
{
	size_t		len = strlen(word);

	return strncmp(argument, word, len) == 0 && argument[len] == '=' ?
		argument + len + 1 : NULL;
}

static bool
is_column(const TupleDesc table, int i)
{
	Form_pg_attribute column = TupleDescAttr(table, i);

	/* A virtual generated column has no value in a tuple. */
	return !column->attisdropped &&
		(column->attgenerated == '\0' || column->attgenerated == ATTRIBUTE_GENERATED_STORED);
}

/* Marks the columns that an argument names, as SQL does, with commas between. */
static void
mark_columns(const char *argument, const char *names, const TupleDesc table, bool *marks)
{
	List	   *list;
	ListCell   *cell;

	if (!SplitIdentifierString(pstrdup(names), ',', &list) || list == NIL)
		report_argument("It must name columns, with commas between them.", argument);
	foreach(cell, list)
	{
		int			i;

		for (i = 0; i < table->natts; i++)
			if (is_column(table, i) &&
				strcmp(NameStr(TupleDescAttr(table, i)->attname), lfirst(cell)) == 0)
				break;
		if (i == table->natts)
			report_argument(psprintf("The table has no column \"%s\" that could be published.",
									 (char *) lfirst(cell)), argument);
		marks[i] = true;
	}
}

/* Sets what events hold, in the order of the table. */
static void
choose_columns(RowPublisher *publisher, const TupleDesc table, const bool *marks, bool marked)
{
	publisher->shown.numbers = palloc_array(AttrNumber, table->natts);
	for (int i = 0; i < table->natts; i++)
		if (is_column(table, i) && marks[i] == marked)
			publisher->shown.numbers[publisher->shown.count++] = i + 1;
}

/* NULL in the list of a trigger's arguments comes as this text. */
static const char *
required_argument(const Trigger *trigger, int i, const char *what)
{
	const char *argument = trigger->tgargs[i];

	if (argument[0] == '\0' || strcmp(argument, "null") == 0)
		report_argument(psprintf("The %s must not be empty or null.", what), argument);
	return argument;
}

static void
read_arguments(RowPublisher *publisher, const Trigger *trigger, const TupleDesc table)
{
	bool	   *marks = palloc0_array(bool, table->natts);
	bool		marked = false;
	bool		has_list = false;

	if (trigger->tgnargs < 2)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("trigger function publish_row() needs a name and a source"),
				 errdetail("Trigger \"%s\" gives it %d arguments.",
						   trigger->tgname, trigger->tgnargs),
				 errhint(HINT_USAGE)));
	publisher->name = pstrdup(required_argument(trigger, 0, "name"));
	publisher->source = pstrdup(required_argument(trigger, 1, "source"));

	for (int i = 2; i < trigger->tgnargs; i++)
	{
		const char *argument = trigger->tgargs[i];
		const char *columns = argument_value(argument, "columns");
		const char *list = columns ? columns : argument_value(argument, "exclude");
		const char *backend = argument_value(argument, "backend");

		if (i == 2 && strchr(argument, '=') == NULL)
			backend = argument;
		if (list != NULL)
		{
			if (has_list)
				report_argument("Only one list of columns can be given.", argument);
			mark_columns(argument, list, table, marks);
			marked = columns != NULL;
			has_list = true;
		}
		else if (backend == NULL || publisher->backend != NULL)
			report_argument(publisher->backend ? "There is a backend already." :
							"It is neither 'columns=...' nor 'exclude=...' nor 'backend=...'.",
							argument);
		else
			publisher->backend = pstrdup(backend);
	}
	choose_columns(publisher, table, marks, marked);
}

/* ------------------------------------------------------------------------
 * What is worked out once
 * ------------------------------------------------------------------------
 */

/* The columns of the primary key; none if there is none. */
static void
find_key(RowPublisher *publisher, Relation table)
{
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(table))
	{
		HeapTuple	row = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(cell)));
		Form_pg_index index;

		if (!HeapTupleIsValid(row))
			continue;
		index = (Form_pg_index) GETSTRUCT(row);
		if (index->indisprimary)
		{
			publisher->key.count = index->indnkeyatts;
			publisher->key.numbers = palloc_array(AttrNumber, index->indnkeyatts);
			memcpy(publisher->key.numbers, index->indkey.values,
				   index->indnkeyatts * sizeof(AttrNumber));
		}
		ReleaseSysCache(row);
	}

	publisher->key_output = palloc_array(FmgrInfo, publisher->key.count);
	for (int i = 0; i < publisher->key.count; i++)
	{
		Oid			output;
		bool		is_varlena;

		getTypeOutputInfo(TupleDescAttr(RelationGetDescr(table),
										publisher->key.numbers[i] - 1)->atttypid,
						  &output, &is_varlena);
		fmgr_info(output, &publisher->key_output[i]);
	}
}

static TupleDesc
describe_row(const Columns *shown, const TupleDesc table)
{
	TupleDesc	desc = CreateTemplateTupleDesc(shown->count);

	for (int i = 0; i < shown->count; i++)
		TupleDescCopyEntry(desc, i + 1, table, shown->numbers[i]);
	return BlessTupleDesc(desc);
}

/* Data with one row in it, or with two. */
static TupleDesc
describe_data(const char *first, const char *second)
{
	TupleDesc	desc = CreateTemplateTupleDesc(second ? 2 : 1);

	TupleDescInitEntry(desc, 1, first, RECORDOID, -1, 0);
	if (second)
		TupleDescInitEntry(desc, 2, second, RECORDOID, -1, 0);
	return BlessTupleDesc(desc);
}

static RowPublisher *
make_publisher(const TriggerData *trigger)
{
	TupleDesc	table = RelationGetDescr(trigger->tg_relation);
	RowPublisher *publisher = palloc0_object(RowPublisher);
	List	   *args = list_make1(makeNullConst(RECORDOID, -1, InvalidOid));

	read_arguments(publisher, trigger->tg_trigger, table);
	find_key(publisher, trigger->tg_relation);
	publisher->row = describe_row(&publisher->shown, table);
	publisher->old_only = describe_data("old", NULL);
	publisher->new_only = describe_data("new", NULL);
	publisher->old_and_new = describe_data("old", "new");

	/* to_jsonb() learns the type of its argument from the call's expression. */
	fmgr_info(F_TO_JSONB, &publisher->to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, args, InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   &publisher->to_jsonb);
	return publisher;
}

/* The trigger's publisher, made when it is first called in a statement. */
static const RowPublisher *
get_publisher(FmgrInfo *flinfo, const TriggerData *trigger)
{
	if (flinfo->fn_extra == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(flinfo->fn_mcxt);

		flinfo->fn_extra = make_publisher(trigger);
		MemoryContextSwitchTo(old);
	}
	return flinfo->fn_extra;
}

/* ------------------------------------------------------------------------
 * Events
 * ------------------------------------------------------------------------
 */

static Row
take_apart(HeapTuple tuple, TupleDesc table)
{
	Row			row;

	row.values = palloc_array(Datum, table->natts);
	row.nulls = palloc_array(bool, table->natts);
	heap_deform_tuple(tuple, table, row.values, row.nulls);
	return row;
}

/* The record of the columns shown. */
static Datum
shown_record(const RowPublisher *publisher, const Row *row)
{
	int			count = publisher->shown.count;
	Datum	   *values = palloc_array(Datum, count);
	bool	   *nulls = palloc_array(bool, count);

	for (int i = 0; i < count; i++)
	{
		values[i] = row->values[publisher->shown.numbers[i] - 1];
		nulls[i] = row->nulls[publisher->shown.numbers[i] - 1];
	}
	return HeapTupleGetDatum(heap_form_tuple(publisher->row, values, nulls));
}

/* A row that was not there, or is no more, is not in the data. */
static Datum
make_data(const RowPublisher *publisher, const Row *old_row, const Row *new_row)
{
	bool		nulls[2] = {0};
	Datum		rows[2];
	int			count = 0;
	TupleDesc	desc;

	if (old_row)
		rows[count++] = shown_record(publisher, old_row);
	if (new_row)
		rows[count++] = shown_record(publisher, new_row);
	desc = count == 2 ? publisher->old_and_new :
		old_row ? publisher->old_only : publisher->new_only;
	return FunctionCall1(unconstify(FmgrInfo *, &publisher->to_jsonb),
						 HeapTupleGetDatum(heap_form_tuple(desc, rows, nulls)));
}

/*
 * The primary key as text.  That of many columns is a JSON array of their
 * texts; so is that of one which is empty, for a key must not be.
 */
static text *
make_key(const RowPublisher *publisher, const Row *row)
{
	StringInfoData array;
	char	   *value = NULL;

	if (publisher->key.count == 0)
		return NULL;
	initStringInfo(&array);
	for (int i = 0; i < publisher->key.count; i++)
	{
		value = OutputFunctionCall(&publisher->key_output[i],
								   row->values[publisher->key.numbers[i] - 1]);
		appendStringInfoString(&array, i == 0 ? "[" : ", ");
		escape_json(&array, value);
	}
	appendStringInfoChar(&array, ']');
	return cstring_to_text(publisher->key.count == 1 && value[0] != '\0' ? value : array.data);
}

static void
publish_change(const RowPublisher *publisher, const char *change,
			   const Row *old_row, const Row *new_row)
{
	NewEvent	event = {
		.event_type = cstring_to_text(psprintf("%s.%s", publisher->name, change)),
		.source = cstring_to_text(publisher->source),
		.backend = publisher->backend ? cstring_to_text(publisher->backend) : NULL,
		.has_data = old_row || new_row,
		.scheduled_at = DT_NOBEGIN,
		.max_retries = -1,
	};
	pg_uuid_t	event_id;

	if (event.has_data)
	{
		event.data = make_data(publisher, old_row, new_row);
		event.key = make_key(publisher, new_row ? new_row : old_row);
	}
	publish_event(&event, &event_id);
}

Datum
dispatch_publish_row(PG_FUNCTION_ARGS)
{
	const TriggerData *trigger = (TriggerData *) fcinfo->context;
	const RowPublisher *publisher;
	TupleDesc	table;
	Row			row;
	Row			new_row;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function publish_row() can only be called as a trigger"),
				 errhint(HINT_USAGE)));
	check_trigger(trigger);
	publisher = get_publisher(fcinfo->flinfo, trigger);

	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		publish_change(publisher, "truncated", NULL, NULL);
		return PointerGetDatum(NULL);
	}

	table = RelationGetDescr(trigger->tg_relation);
	row = take_apart(trigger->tg_trigtuple, table);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		publish_change(publisher, "inserted", NULL, &row);
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		publish_change(publisher, "deleted", &row, NULL);
	else
	{
		new_row = take_apart(trigger->tg_newtuple, table);
		publish_change(publisher, "updated", &row, &new_row);
	}
	return PointerGetDatum(NULL);
}
