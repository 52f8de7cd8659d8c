/*-------------------------------------------------------------------------
 *
 * options.c
 *	  The options of a backend or an event: checking and reading them.
 *
 * Checking is reading with the result thrown away, so that what was accepted
 * when it was set is understood in the same way by the worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/regproc.h"
#include "utils/varlena.h"

#include "option_table.h"
#include "option_value.h"
#include "utf8.h"

/* A name at most so many typing errors away is suggested. */
#define MAX_TYPOS 2

/* What is wrong with options; texts as ereport() wants them. */
typedef struct Fault
{
	const char *message;
	const char *detail;			/* NULL: none */
	const char *hint;
} Fault;

/* ------------------------------------------------------------------------
 * Faults
 * ------------------------------------------------------------------------
 */

static void
fault_raise(const Fault *fault)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_internal("%s", fault->message),
			 fault->detail != NULL ? errdetail_internal("%s", fault->detail) : 0,
			 errhint("%s", fault->hint)));
}

static Fault
not_object(void)
{
	return (Fault) {
		"options must be a JSON object", NULL, "For example: {\"envelope\": \"data\"}."
	};
}

static void
require_object(const Jsonb *options)
{
	Fault		fault = not_object();

	if (!JB_ROOT_IS_OBJECT(options))
		fault_raise(&fault);
}

/* The name in that scope which is most like what was given; NULL: none is. */
static const char *
closest_name(const OptionTable *table, const char *given, int len, int scope)
{
	const char *closest = NULL;
	int			least = Min(MAX_TYPOS, len / 2) + 1;

	if (len >= NAMEDATALEN)
		return NULL;
	for (int i = 0; i < table->nitems; i++)
	{
		const char *name = table->items[i].name;
		int			distance;

		if ((table->items[i].flags & scope) == 0)
			continue;
		distance = varstr_levenshtein_less_equal(given, len, name, strlen(name),
												 1, 1, 1, least - 1, true);
		if (distance < least)
		{
			least = distance;
			closest = name;
		}
	}
	return closest;
}

static char *
valid_names_hint(const OptionTable *table, const char *given, int len, int scope)
{
	const char *closest = closest_name(table, given, len, scope);
	StringInfoData hint;
	const char *separator = "";

	initStringInfo(&hint);
	if (closest != NULL)
		appendStringInfo(&hint, "Perhaps you meant \"%s\". ", closest);
	appendStringInfoString(&hint, "Valid options are: ");
	for (int i = 0; i < table->nitems; i++)
		if (table->items[i].flags & scope)
		{
			appendStringInfo(&hint, "%s%s", separator, table->items[i].name);
			separator = ", ";
		}
	appendStringInfoChar(&hint, '.');
	return hint.data;
}

/* "known" is the option of that name in another scope, or NULL. */
static Fault
unrecognized(const OptionTable *table, const JsonbValue *name, int scope,
			 const DispatchOption *known)
{
	bool		is_event = scope == DISPATCH_OF_EVENT;
	const char *text = name->val.string.val;
	int			len = name->val.string.len;

	return (Fault) {
		.message = psprintf("unrecognized %soption \"%.*s\" of transport \"%s\"",
							is_event ? "event " : "",
							text_clip(text, len), text, table->transport),
		.detail = known == NULL ? NULL :
			is_event ? "It is an option of backends only." : "It is an option of events only.",
		.hint = valid_names_hint(table, text, len, scope)
	};
}

static Fault
invalid_value(const OptionTable *table, const DispatchOption *option, const char *problem)
{
	return (Fault) {
		.message = psprintf("invalid value for option \"%s\" of transport \"%s\"",
							option->name, table->transport),
		.detail = problem,
		.hint = psprintf("The option takes %s.", option_value_domain(option))
	};
}

static Fault
value_missing(const OptionTable *table, const DispatchOption *option, const char *why)
{
	return (Fault) {
		.message = psprintf("option \"%s\" of transport \"%s\" must be set",
							option->name, table->transport),
		.detail = why,
		.hint = psprintf("The option takes %s.", option_value_domain(option))
	};
}

/* ------------------------------------------------------------------------
 * Reading
 * ------------------------------------------------------------------------
 */

static bool
is_mask(const JsonbValue *json)
{
	return json->type == jbvString &&
		json->val.string.len == strlen(OPTION_MASK) &&
		memcmp(json->val.string.val, OPTION_MASK, strlen(OPTION_MASK)) == 0;
}

static void
require_values(const OptionTable *table, const DispatchValue *values)
{
	for (int i = 0; i < table->nitems; i++)
		if ((table->items[i].flags & DISPATCH_REQUIRED) != 0 && !values[i].is_set)
		{
			Fault		fault = value_missing(table, &table->items[i], NULL);

			fault_raise(&fault);
		}
}

/* Sets the value of an option; false if it is not valid. */
static bool
set_value(const OptionTable *table, const DispatchOption *option,
		  const JsonbValue *json, bool accept_masks, DispatchValue *value, Fault *fault)
{
	const char *problem;

	if ((option->flags & DISPATCH_SECRET) != 0 && is_mask(json))
	{
		value->is_set = true;
		if (!accept_masks)
			*fault = value_missing(table, option,
								   "It is a secret, of which only the mask is there.");
		return accept_masks;
	}

	problem = option_value_from_json(option, json, value);
	if (problem != NULL)
		*fault = invalid_value(table, option, problem);
	return problem == NULL;
}

/* Sets those values[] that "options" have; false if they are not valid. */
static bool
set_values(const OptionTable *table, const Jsonb *options, int scope,
		   bool accept_masks, DispatchValue *values, Fault *fault)
{
	bool		pass_over = table->is_partial && scope == DISPATCH_OF_BACKEND;
	const DispatchOption *option = NULL;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	json;

	if (options == NULL)
		return true;
	if (!JB_ROOT_IS_OBJECT(options))
	{
		*fault = not_object();
		return false;
	}

	iterator = JsonbIteratorInit(&unconstify(Jsonb *, options)->root);
	while ((token = JsonbIteratorNext(&iterator, &json, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			option = option_find(table, json.val.string.val, json.val.string.len);
			if (option != NULL && (option->flags & scope) != 0)
				continue;
			if (!pass_over)
			{
				*fault = unrecognized(table, &json, scope, option);
				return false;
			}
			option = NULL;
		}
		else if (token == WJB_VALUE && option != NULL && json.type != jbvNull &&
				 !set_value(table, option, &json, accept_masks,
							&values[option - table->items], fault))
			return false;
	}
	return true;
}

void
options_read(const OptionTable *table, const Jsonb *options, int scope,
			 DispatchValue *values)
{
	Fault		fault;

	for (int i = 0; i < table->nitems; i++)
	{
		const char *problem = option_value_default(&table->items[i], &values[i]);

		if (problem != NULL)
			elog(ERROR, "default of option \"%s\": %s", table->items[i].name, problem);
	}
	if (!set_values(table, options, scope, false, values, &fault))
		fault_raise(&fault);
	if (scope == DISPATCH_OF_BACKEND)
		require_values(table, values);
}

bool
options_override(const OptionTable *table, const Jsonb *options, DispatchValue *values,
				 const char **error)
{
	Fault		fault;

	if (set_values(table, options, DISPATCH_OF_EVENT, false, values, &fault))
		return true;
	*error = psprintf("The options of the event are not valid: %s. %s",
					  fault.message, fault.detail != NULL ? fault.detail : fault.hint);
	return false;
}

/* ------------------------------------------------------------------------
 * Checking
 * ------------------------------------------------------------------------
 */

/*
 * The search path is a fixed one, for whoever configures the backend and the
 * worker that serves it must mean the same function.
 */
Oid
options_function(const char *signature)
{
	char	   *text = pg_any_to_server(signature, strlen(signature), PG_UTF8);
	int			nest_level;
	Datum		function;

	/* regprocedure itself would take these for the number of a function. */
	if (*text == '-' || (*text >= '0' && *text <= '9'))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid function signature: \"%s\"", text),
				 errhint("For example: app.deliver(text).")));

	nest_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	function = DirectFunctionCall1(regprocedurein, CStringGetDatum(text));
	AtEOXact_GUC(true, nest_level);
	return DatumGetObjectId(function);
}

static void
function_context(void *arg)
{
	errcontext("option \"%s\", which takes a function with its schema and the types of its arguments",
			   ((const DispatchOption *) arg)->name);
}

static void
check_function(const DispatchOption *option, const DispatchValue *value)
{
	ErrorContextCallback context = {
		.previous = error_context_stack,
		.callback = function_context,
		.arg = unconstify(DispatchOption *, option)
	};

	error_context_stack = &context;
	(void) options_function(value->text);
	error_context_stack = context.previous;
}

void
options_check(const OptionTable *table, const Jsonb *options, int scope)
{
	DispatchValue *values = palloc0(table->nitems * sizeof(DispatchValue));
	Fault		fault;

	if (!set_values(table, options, scope, true, values, &fault))
		fault_raise(&fault);
	if (scope == DISPATCH_OF_BACKEND)
	{
		require_values(table, values);
		for (int i = 0; i < table->nitems; i++)
			if (table->items[i].type == DISPATCH_FUNCTION && values[i].text != NULL)
				check_function(&table->items[i], &values[i]);
	}
	pfree(values);
}

/* ------------------------------------------------------------------------
 * Secrets
 * ------------------------------------------------------------------------
 */

static JsonbValue
mask(void)
{
	JsonbValue	value = {.type = jbvString};

	value.val.string.val = OPTION_MASK;
	value.val.string.len = strlen(OPTION_MASK);
	return value;
}

static void
push_pair(JsonbParseState **state, JsonbValue *name, JsonbValue *value)
{
	pushJsonbValue(state, WJB_KEY, name);
	pushJsonbValue(state, WJB_VALUE, value);
}

Jsonb *
options_mask_secrets(const OptionTable *table, const Jsonb *options, Jsonb **secrets)
{
	JsonbParseState *shown_state = NULL;
	JsonbParseState *secret_state = NULL;
	JsonbValue	mask_value = mask();
	JsonbValue	name;
	JsonbValue	json;
	JsonbValue *secret_object;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	int			nsecrets = 0;

	require_object(options);
	pushJsonbValue(&shown_state, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&secret_state, WJB_BEGIN_OBJECT, NULL);

	iterator = JsonbIteratorInit(&unconstify(Jsonb *, options)->root);
	while ((token = JsonbIteratorNext(&iterator, &json, true)) != WJB_DONE)
	{
		const DispatchOption *option;

		if (token == WJB_KEY)
			name = json;
		if (token != WJB_VALUE)
			continue;
		option = option_find(table, name.val.string.val, name.val.string.len);
		if (option != NULL && (option->flags & DISPATCH_SECRET) != 0 &&
			json.type != jbvNull && !is_mask(&json))
		{
			push_pair(&secret_state, &name, &json);
			push_pair(&shown_state, &name, &mask_value);
			nsecrets++;
		}
		else
			push_pair(&shown_state, &name, &json);
	}

	secret_object = pushJsonbValue(&secret_state, WJB_END_OBJECT, NULL);
	*secrets = nsecrets > 0 ? JsonbValueToJsonb(secret_object) : NULL;
	return JsonbValueToJsonb(pushJsonbValue(&shown_state, WJB_END_OBJECT, NULL));
}

Jsonb *
options_with_secrets(const Jsonb *options, const Jsonb *secrets)
{
	JsonbParseState *state = NULL;
	JsonbValue	name;
	JsonbValue	json;
	JsonbIterator *iterator;
	JsonbIteratorToken token;

	require_object(options);
	if (secrets == NULL)
		return unconstify(Jsonb *, options);
	require_object(secrets);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	iterator = JsonbIteratorInit(&unconstify(Jsonb *, options)->root);
	while ((token = JsonbIteratorNext(&iterator, &json, true)) != WJB_DONE)
	{
		JsonbValue *secret = NULL;

		if (token == WJB_KEY)
			name = json;
		if (token != WJB_VALUE)
			continue;
		if (is_mask(&json))
			secret = getKeyJsonValueFromContainer(&unconstify(Jsonb *, secrets)->root,
												  name.val.string.val,
												  name.val.string.len, NULL);
		push_pair(&state, &name, secret != NULL ? secret : &json);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
