/*-------------------------------------------------------------------------
 *
 * option_table.c
 *	  Option tables: from a transport, and from what a backend stores of one.
 *
 * Neither source is trusted.  A transport may be somebody else's module, and
 * a stored spec is a row that its owner can edit: a table that is not sound is
 * an error here, so that whoever reads values by it need not look again.
 *
 * The spec is an array of objects: name, type, scope, and, where the option
 * has them, default, min, max and choices; destination is true for the option
 * that a topic sets.  It holds what publish() must check or render without the
 * module.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/shortest_dec.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "json.h"
#include "option_table.h"
#include "option_value.h"

#define ANY_SCOPE (DISPATCH_OF_BACKEND | DISPATCH_OF_EVENT)
#define ANY_FLAG (ANY_SCOPE | DISPATCH_REQUIRED | DISPATCH_SECRET | DISPATCH_NO_ADDRESS)

/* In the order of DispatchEnvelope. */
static const char *const envelopes[] = {
	"cloudevents", "cloudevents_binary", "dispytch", "data", NULL
};

static const DispatchOption common_options[] = {
	{
		"envelope", DISPATCH_ENUM, ANY_SCOPE, "cloudevents", 0, 0, envelopes,
		"what goes on the wire"
	},
	{
		"extensions", DISPATCH_SCALARS, DISPATCH_OF_EVENT, NULL, 0, 0, NULL,
		"extension attributes of the CloudEvent"
	},
};

/* Indexes in common_options[]. */
#define ENVELOPE 0
#define EXTENSIONS 1

static const char *const scope_names[ANY_SCOPE + 1] = {
	[DISPATCH_OF_BACKEND] = "backend",
	[DISPATCH_OF_EVENT] = "event",
	[ANY_SCOPE] = "backend, event",
};

const char *
option_scope_name(int flags)
{
	return scope_names[flags & ANY_SCOPE];
}

const DispatchOption *
option_find(const OptionTable *table, const char *name, int len)
{
	for (int i = 0; i < table->nitems; i++)
	{
		const char *known = table->items[i].name;

		if (strncmp(known, name, len) == 0 && known[len] == '\0')
			return &table->items[i];
	}
	return NULL;
}

DispatchEnvelope
options_envelope(const OptionTable *table, const DispatchValue *values)
{
	for (int i = 0; envelopes[i] != NULL; i++)
		if (strcmp(values[table->envelope].text, envelopes[i]) == 0)
			return (DispatchEnvelope) i;
	elog(ERROR, "unrecognized envelope \"%s\"", values[table->envelope].text);
}

/* ------------------------------------------------------------------------
 * Soundness
 * ------------------------------------------------------------------------
 */

bool
option_name_is_valid(const char *name)
{
	return *name >= 'a' && *name <= 'z' && strlen(name) < NAMEDATALEN &&
		strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static const char *
flags_problem(const DispatchOption *option)
{
	if ((option->flags & ANY_SCOPE) == 0 || (option->flags & ~ANY_FLAG) != 0)
		return "Its flags are invalid.";
	if ((option->flags & DISPATCH_REQUIRED) != 0 &&
		((option->flags & DISPATCH_OF_BACKEND) == 0 || option->default_value != NULL))
		return "It is required, but is not of a backend or has a default.";
	/* Events are stored with their options, and templates with the backend. */
	if ((option->flags & DISPATCH_SECRET) != 0 &&
		((option->flags & DISPATCH_OF_EVENT) != 0 || option->type == DISPATCH_TEMPLATE))
		return "It is secret, but of an event or a template.";
	return NULL;
}

/* What is wrong with a row, as a full sentence; NULL: nothing. */
static const char *
row_problem(const OptionTable *table, const DispatchOption *option)
{
	const char *problem;
	DispatchValue value;

	if (!option_name_is_valid(option->name))
		return "Its name is invalid.";
	if (option_find(table, option->name, strlen(option->name)) != option)
		return "It is there twice.";
	if ((int) option->type < 0 || (int) option->type >= OPTION_TYPES)
		return "Its type is invalid.";
	if ((problem = flags_problem(option)) != NULL)
		return problem;
	if (!isfinite(option->min) || !isfinite(option->max) || option->min > option->max)
		return "Its range is invalid.";
	if (option->type == DISPATCH_ENUM && (option->choices == NULL || *option->choices == NULL))
		return "It has no choices.";
	if ((problem = option_value_default(option, &value)) != NULL)
		return psprintf("Its default is invalid: %s", problem);
	return NULL;
}

/*
 * The common options go last, so that one of the same name before them is
 * what shows as the duplicate.
 */
static void
table_finish(OptionTable *table, int sqlerrcode)
{
	table->envelope = table->nitems + ENVELOPE;
	table->extensions = table->nitems + EXTENSIONS;
	memcpy(&table->items[table->nitems], common_options, sizeof(common_options));
	table->nitems += lengthof(common_options);

	for (int i = 0; i < table->nitems; i++)
	{
		const char *problem = row_problem(table, &table->items[i]);

		if (problem != NULL)
			ereport(ERROR,
					(errcode(sqlerrcode),
					 errmsg("option \"%s\" of transport \"%s\" is not well defined",
							table->items[i].name, table->transport),
					 errdetail_internal("%s", problem)));
	}
}

static OptionTable *
table_create(const char *transport, int max_items)
{
	OptionTable *table = palloc0(sizeof(OptionTable));

	table->transport = pstrdup(transport);
	table->destination = -1;
	table->items = palloc0((max_items + lengthof(common_options)) * sizeof(DispatchOption));
	return table;
}

OptionTable *
options_table(const DispatchTransport *transport)
{
	int			nitems = 0;
	OptionTable *table;

	while (transport->options[nitems].name != NULL)
		nitems++;
	table = table_create(transport->name, nitems);
	memcpy(table->items, transport->options, nitems * sizeof(DispatchOption));
	table->nitems = nitems;
	for (int i = 0; transport->destination != NULL && i < nitems; i++)
		if (strcmp(table->items[i].name, transport->destination) == 0)
			table->destination = i;
	table_finish(table, ERRCODE_INVALID_OBJECT_DEFINITION);
	return table;
}

/* ------------------------------------------------------------------------
 * Writing a spec
 * ------------------------------------------------------------------------
 */

/* float8 to numeric would round to 15 digits. */
static void
push_number(JsonbParseState **state, const char *name, double number)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];
	JsonbValue	value;

	double_to_shortest_decimal_buf(number, text);
	value.type = jbvNumeric;
	value.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in,
															CStringGetDatum(text),
															ObjectIdGetDatum(InvalidOid),
															Int32GetDatum(-1)));
	json_push_text(state, WJB_KEY, name);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_row(JsonbParseState **state, const DispatchOption *option, bool is_destination)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	json_push_member(state, "name", option->name);
	json_push_member(state, "type", option_type_names[option->type]);
	json_push_member(state, "scope", option_scope_name(option->flags));
	if (option->default_value != NULL)
		json_push_member(state, "default", option->default_value);
	if (option->min != 0 || option->max != 0)
	{
		push_number(state, "min", option->min);
		push_number(state, "max", option->max);
	}
	if (option->choices != NULL)
	{
		json_push_text(state, WJB_KEY, "choices");
		pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
		for (const char *const *choice = option->choices; *choice != NULL; choice++)
			json_push_text(state, WJB_ELEM, *choice);
		pushJsonbValue(state, WJB_END_ARRAY, NULL);
	}
	if (is_destination)
	{
		JsonbValue	yes = {.type = jbvBool, .val.boolean = true};

		json_push_text(state, WJB_KEY, "destination");
		pushJsonbValue(state, WJB_VALUE, &yes);
	}
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

Jsonb *
options_event_spec(const OptionTable *table)
{
	JsonbParseState *state = NULL;

	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < table->envelope; i++)
		if ((table->items[i].flags & DISPATCH_OF_EVENT) != 0 ||
			table->items[i].type == DISPATCH_TEMPLATE)
			push_row(&state, &table->items[i], i == table->destination);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

/* ------------------------------------------------------------------------
 * Reading a spec
 * ------------------------------------------------------------------------
 */

static void
spec_malformed(const OptionTable *table, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("stored event options of transport \"%s\" are malformed",
					table->transport),
			 errdetail_internal("%s", detail)));
}

/* A member of a row; NULL if there is none. */
static JsonbValue *
row_member(const OptionTable *table, JsonbContainer *row, const char *name,
		   const char *type)
{
	JsonbValue *value = getKeyJsonValueFromContainer(row, name, strlen(name), NULL);

	if (value != NULL && strcmp(JsonbTypeName(value), type) != 0)
		spec_malformed(table, psprintf("Member \"%s\" of row %d must be of type %s.",
									   name, table->nitems + 1, type));
	return value;
}

static char *
row_text(const OptionTable *table, JsonbContainer *row, const char *name)
{
	JsonbValue *value = row_member(table, row, name, "string");

	return value != NULL ? json_scalar_text(value) : NULL;
}

static double
row_number(const OptionTable *table, JsonbContainer *row, const char *name)
{
	JsonbValue *value = row_member(table, row, name, "number");

	/* What is too large for a double becomes infinite, which is refused. */
	return value != NULL ? strtod(json_scalar_text(value), NULL) : 0;
}

/* The index of a member's text in names[]. */
static int
row_index(const OptionTable *table, JsonbContainer *row, const char *name,
		  const char *const *names, int nnames)
{
	const char *text = row_text(table, row, name);

	for (int i = 0; text != NULL && i < nnames; i++)
		if (names[i] != NULL && strcmp(names[i], text) == 0)
			return i;
	spec_malformed(table, psprintf("Member \"%s\" of row %d is missing or unknown.",
								   name, table->nitems + 1));
	return -1;					/* keep compiler quiet */
}

static const char *const *
row_choices(const OptionTable *table, JsonbContainer *row)
{
	JsonbValue *array = row_member(table, row, "choices", "array");
	int			count = array != NULL ? JsonContainerSize(array->val.binary.data) : 0;
	const char **choices = palloc0((count + 1) * sizeof(char *));

	if (array == NULL)
		return NULL;
	for (int i = 0; i < count; i++)
	{
		JsonbValue *choice = getIthJsonbValueFromContainer(array->val.binary.data, i);

		if (choice->type != jbvString)
			spec_malformed(table, psprintf("A choice in row %d is not a text.",
										   table->nitems + 1));
		choices[i] = json_scalar_text(choice);
	}
	return choices;
}

/* Reads the next row of the table. */
static void
read_row(OptionTable *table, const JsonbValue *json)
{
	DispatchOption *option = &table->items[table->nitems];
	JsonbContainer *row;

	if (json->type != jbvBinary || !JsonContainerIsObject(json->val.binary.data))
		spec_malformed(table, psprintf("Row %d is not an object.", table->nitems + 1));
	row = json->val.binary.data;

	option->name = row_text(table, row, "name");
	if (option->name == NULL)
		spec_malformed(table, psprintf("Row %d has no name.", table->nitems + 1));
	option->type = row_index(table, row, "type", option_type_names, OPTION_TYPES);
	option->flags = row_index(table, row, "scope", scope_names, lengthof(scope_names));
	option->default_value = row_text(table, row, "default");
	option->min = row_number(table, row, "min");
	option->max = row_number(table, row, "max");
	option->choices = row_choices(table, row);
	if (row_member(table, row, "destination", "boolean") != NULL)
		table->destination = table->nitems;
	table->nitems++;
}

OptionTable *
options_from_spec(const char *transport, const Jsonb *spec)
{
	JsonbContainer *array = &unconstify(Jsonb *, spec)->root;
	int			count = JsonContainerSize(array);
	OptionTable *table = table_create(transport, count);

	table->is_partial = true;
	if (!JsonContainerIsArray(array) || JsonContainerIsScalar(array))
		spec_malformed(table, "They must be a JSON array.");
	for (int i = 0; i < count; i++)
		read_row(table, getIthJsonbValueFromContainer(array, i));
	table_finish(table, ERRCODE_DATA_CORRUPTED);
	return table;
}
