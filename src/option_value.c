/*-------------------------------------------------------------------------
 *
 * option_value.c
 *	  The value of one option: from JSON or from its default, checked.
 *
 * The type in JSON must be that of the option: a number in quotes is refused
 * rather than guessed at.  What is wrong comes back as a sentence; the caller
 * knows whose option it is, and raises the error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "common/base64.h"
#include "common/shortest_dec.h"
#include "utils/builtins.h"

#include "json.h"
#include "option_time.h"
#include "option_value.h"
#include "template.h"
#include "utf8.h"

const char *const option_type_names[OPTION_TYPES] = {
	[DISPATCH_BOOLEAN] = "boolean",
	[DISPATCH_INTEGER] = "integer",
	[DISPATCH_NUMBER] = "number",
	[DISPATCH_TEXT] = "text",
	[DISPATCH_ENUM] = "enum",
	[DISPATCH_TEMPLATE] = "template",
	[DISPATCH_SCALARS] = "scalars",
	[DISPATCH_OBJECT] = "object",
	[DISPATCH_FUNCTION] = "function",
	[DISPATCH_TIME] = "time",
};

/* How each type is written in JSON; a time may also be a string. */
static const char *const json_types[OPTION_TYPES] = {
	[DISPATCH_BOOLEAN] = "boolean",
	[DISPATCH_INTEGER] = "number",
	[DISPATCH_NUMBER] = "number",
	[DISPATCH_TEXT] = "string",
	[DISPATCH_ENUM] = "string",
	[DISPATCH_TEMPLATE] = "string",
	[DISPATCH_SCALARS] = "object",
	[DISPATCH_OBJECT] = "object",
	[DISPATCH_FUNCTION] = "string",
	[DISPATCH_TIME] = "number",
};

/* In hints; a range or a length may follow. */
static const char *const domains[OPTION_TYPES] = {
	[DISPATCH_BOOLEAN] = "true or false",
	[DISPATCH_INTEGER] = "an integer",
	[DISPATCH_NUMBER] = "a number",
	[DISPATCH_TEXT] = "a text",
	[DISPATCH_ENUM] = "one of ",
	[DISPATCH_TEMPLATE] = "a template",
	[DISPATCH_SCALARS] = "a JSON object whose members are scalars",
	[DISPATCH_OBJECT] = "a JSON object",
	[DISPATCH_FUNCTION] = "a function with its schema and the types of its arguments",
	[DISPATCH_TIME] = "a number of seconds, an interval or a timestamp with its offset",
};

static const char *
wrong_type(const char *wanted, const JsonbValue *json)
{
	const char *given = JsonbTypeName(unconstify(JsonbValue *, json));
	const char *article = json->type == jbvNull ? "" :
		*given == 'a' || *given == 'o' ? "an " : "a ";

	return psprintf("It must be %s %s, but is %s%s.",
					*wanted == 'o' ? "an" : "a", wanted, article, given);
}

/* Both ends of a range are included; 0, 0 is any. */
static const char *
out_of_bounds(const DispatchOption *option, double measure, const char *too_small,
			  const char *too_large)
{
	if (option->min == 0 && option->max == 0)
		return NULL;
	if (measure < option->min)
		return too_small;
	if (measure > option->max)
		return too_large;
	return NULL;
}

const char *
option_value_check_length(const DispatchOption *option, size_t len)
{
	return out_of_bounds(option, (double) len, "It is too short.", "It is too long.");
}

/* An empty text is one only where the range says so. */
static bool
may_be_empty(const DispatchOption *option)
{
	return option->min == 0 && option->max > 0;
}

const char *
option_value_check_rendered(const DispatchOption *option, size_t len)
{
	if (len == 0 && !may_be_empty(option))
		return "The template renders to an empty text.";
	return option_value_check_length(option, len);
}

static const char *
read_integer(const DispatchOption *option, const char *text, DispatchValue *value)
{
	char	   *end;

	errno = 0;
	value->integer = strtoi64(text, &end, 10);
	if (errno == ERANGE)
		return *text == '-' ? "It is too small." : "It is too large.";
	if (end == text)
		return "It is not an integer.";
	if (*end == '.')			/* JSON 5.0 is an integer */
		end += 1 + strspn(end + 1, "0");
	if (*end != '\0')
		return "It is not an integer.";
	value->number = (double) value->integer;
	return out_of_bounds(option, value->number, "It is too small.", "It is too large.");
}

static const char *
read_number(const DispatchOption *option, const char *text, DispatchValue *value)
{
	char	   *end;

	value->number = strtod(text, &end);
	if (end == text || *end != '\0' || isnan(value->number))
		return "It is not a number.";
	if (isinf(value->number))
		return value->number < 0 ? "It is too small." : "It is too large.";
	return out_of_bounds(option, value->number, "It is too small.", "It is too large.");
}

/* The range is that of seconds; there is none for points in time. */
static const char *
read_time(const DispatchOption *option, const char *text, DispatchValue *value)
{
	if (option_time_read_moment(text, &value->integer))
	{
		value->boolean = true;
		return NULL;
	}
	if (!option_time_read_span(text, &value->number))
		return "It is neither seconds, nor an interval, nor a timestamp such as "
			"\"2030-01-31T23:59:59Z\".";
	return out_of_bounds(option, value->number, "It is too small.", "It is too large.");
}

/* Takes the text over as UTF-8. */
static const char *
read_text(const DispatchOption *option, const char *text, DispatchValue *value)
{
	size_t		len = strlen(text);
	const char *problem;

	if (!utf8_convert(&text, &len, &problem))
		return problem;
	value->text = text;
	value->text_len = (int) len;
	return option_value_check_length(option, len);
}

static const char *
read_choice(const DispatchOption *option, const char *text, DispatchValue *value)
{
	for (const char *const *choice = option->choices; *choice != NULL; choice++)
		if (strcmp(*choice, text) == 0)
			return read_text(option, *choice, value);
	if (option->flags & DISPATCH_SECRET)
		return "There is no such choice.";
	return psprintf("There is no choice \"%.*s\".",
					text_clip(text, strlen(text)), text);
}

/*
 * Stays in the encoding of the database, which is that of the fields it will
 * be rendered with.  Where there are placeholders, only the result has a
 * length that matters.
 */
static const char *
read_template(const DispatchOption *option, const char *text, DispatchValue *value)
{
	const char *problem;
	Template   *template = template_parse(text, &problem);

	if (template == NULL)
		return problem;
	if (*text == '\0' && !may_be_empty(option))
		return "The template is empty.";
	value->text = text;
	value->text_len = (int) strlen(text);
	problem = NULL;
	if (template_is_constant(template))
		problem = option_value_check_length(option, value->text_len);
	pfree(template);
	return problem;
}

static const char *
read_boolean(const char *text, DispatchValue *value)
{
	value->boolean = strcmp(text, "true") == 0;
	if (!value->boolean && strcmp(text, "false") != 0)
		return "It is neither true nor false.";
	return NULL;
}

static const char *
read_scalar(const DispatchOption *option, const char *text, DispatchValue *value)
{
	switch (option->type)
	{
		case DISPATCH_BOOLEAN:
			return read_boolean(text, value);
		case DISPATCH_INTEGER:
			return read_integer(option, text, value);
		case DISPATCH_NUMBER:
			return read_number(option, text, value);
		case DISPATCH_ENUM:
			return read_choice(option, text, value);
		case DISPATCH_TEMPLATE:
			return read_template(option, text, value);
		case DISPATCH_TIME:
			return read_time(option, text, value);
		default:
			return read_text(option, text, value);
	}
}

/* Takes the text of a name or value over as UTF-8; NULL remains NULL. */
static const char *
read_part(const JsonbValue *json, const char **part)
{
	const char *problem;
	size_t		len;

	*part = json_scalar_text(json);
	if (*part == NULL)
		return NULL;
	len = strlen(*part);
	return utf8_convert(part, &len, &problem) ? NULL : problem;
}

static const char *
not_scalar(const DispatchOption *option, const char *name, const JsonbValue *json)
{
	if (option->flags & DISPATCH_SECRET)
		return "A member of it is not a scalar.";
	return psprintf("Its member \"%.*s\" must be a scalar, but is an %s.",
					text_clip(name, strlen(name)), name,
					JsonbTypeName(unconstify(JsonbValue *, json)));
}

/* May an object have a member of that name? */
static bool
is_reserved(const DispatchOption *option, const char *name)
{
	if (option->choices == NULL)
		return false;
	for (const char *const *choice = option->choices; *choice != NULL; choice++)
	{
		size_t		len = strlen(*choice);

		if (strcmp(*choice, name) == 0 ||
			(len > 0 && (*choice)[len - 1] == '*' && strncmp(*choice, name, len - 1) == 0))
			return true;
	}
	return false;
}

static const char *
read_pairs(const DispatchOption *option, JsonbContainer *object, DispatchValue *value)
{
	DispatchPair *pairs = palloc(Max(JsonContainerSize(object), 1) * sizeof(DispatchPair));
	DispatchPair *pair = pairs;
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	json;
	const char *problem = NULL;

	while ((token = JsonbIteratorNext(&iterator, &json, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			problem = read_part(&json, &pair->name);
			if (problem == NULL && is_reserved(option, pair->name))
				problem = psprintf("\"%s\" is not to be set by it.", pair->name);
		}
		else if (token == WJB_VALUE && json.type == jbvBinary)
			problem = not_scalar(option, pair->name, &json);
		else if (token == WJB_VALUE)
			problem = read_part(&json, &(pair++)->value);
		if (problem != NULL)
			return problem;
	}
	value->npairs = pair - pairs;
	value->pairs = pairs;
	return NULL;
}

static const char *
check_name(const DispatchOption *option, const JsonbValue *json, int depth)
{
	const char *name;
	const char *problem = read_part(json, &name);

	if (problem != NULL)
		return problem;
	if (strlen(name) > DISPATCH_OBJECT_NAME)
		return psprintf("The name of a member is longer than %d bytes.", DISPATCH_OBJECT_NAME);
	if (depth == 1 && is_reserved(option, name))
		return psprintf("\"%s\" is not to be set by it.", name);
	return NULL;
}

/*
 * What stands for a value that JSON has no type for must be well formed, and
 * the only member of its object.
 */
static const char *
check_special(const JsonbValue *name, const JsonbValue *value, int nmembers)
{
	char	   *text = json_scalar_text(name);
	bool		is_binary = strcmp(text, "$binary") == 0;
	const char *problem = NULL;

	if (!is_binary && strcmp(text, "$timestamp") != 0)
		return NULL;
	if (nmembers != 1)
		return psprintf("\"%s\" must be the only member of its object.", text);
	if (value->type == jbvString && is_binary)
	{
		int			size = pg_b64_dec_len(value->val.string.len) + 1;

		if (pg_b64_decode(value->val.string.val, value->val.string.len,
						  (void *) palloc(size), size) >= 0)
			return NULL;
	}
	if (value->type == jbvNumeric && !is_binary)
	{
		DispatchOption seconds = {.min = 0, .max = (double) (INT64CONST(1) << 53)};
		DispatchValue ignored;

		problem = read_integer(&seconds, json_scalar_text(value), &ignored);
		if (problem == NULL)
			return NULL;
	}
	return is_binary ? "\"$binary\" must be a string of base64." :
		"\"$timestamp\" must be whole seconds since 1970.";
}

/* Whether an object of any shape is one that transports can be asked to take. */
static const char *
check_shape(const DispatchOption *option, JsonbContainer *object)
{
	JsonbIterator *iterator = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbIteratorToken last = WJB_DONE;
	JsonbValue	json;
	JsonbValue	name;
	int			nmembers[DISPATCH_OBJECT_DEPTH + 1];
	int			depth = 0;
	const char *problem = NULL;

	for (; problem == NULL; last = token)
	{
		token = JsonbIteratorNext(&iterator, &json, false);
		if (token == WJB_DONE)
			break;
		if (last == WJB_KEY && depth > 1)
			problem = check_special(&name, &json, nmembers[depth]);
		if (token == WJB_BEGIN_OBJECT || token == WJB_BEGIN_ARRAY)
		{
			if (++depth > DISPATCH_OBJECT_DEPTH)
				return psprintf("It is nested more than %d deep.", DISPATCH_OBJECT_DEPTH);
			nmembers[depth] = token == WJB_BEGIN_OBJECT ? json.val.object.nPairs : 0;
		}
		else if (token == WJB_END_OBJECT || token == WJB_END_ARRAY)
			depth--;
		else if (token == WJB_KEY)
		{
			name = json;
			problem = check_name(option, &json, depth);
		}
	}
	return problem;
}

static const char *
read_object(const DispatchOption *option, JsonbContainer *object, int size,
			DispatchValue *value)
{
	const char *problem;

	if (option->type == DISPATCH_SCALARS)
		problem = read_pairs(option, object, value);
	else
		problem = check_shape(option, object);
	if (problem == NULL)
		problem = read_text(option, JsonbToCString(NULL, object, size), value);
	return problem;
}

const char *
option_value_from_json(const DispatchOption *option, const JsonbValue *json,
					   DispatchValue *value)
{
	const char *problem;

	memset(value, 0, sizeof(*value));
	if (strcmp(JsonbTypeName(unconstify(JsonbValue *, json)), json_types[option->type]) != 0 &&
		!(option->type == DISPATCH_TIME && json->type == jbvString))
		return wrong_type(option->type == DISPATCH_TIME ? "number or a string" :
						  json_types[option->type], json);

	if (json->type == jbvBinary)
		problem = read_object(option, json->val.binary.data, json->val.binary.len, value);
	else
		problem = read_scalar(option, json_scalar_text(json), value);
	value->is_set = problem == NULL;
	return problem;
}

const char *
option_value_default(const DispatchOption *option, DispatchValue *value)
{
	const char *text = option->default_value;
	const char *problem;

	memset(value, 0, sizeof(*value));
	if (text == NULL)
		return NULL;

	if (option->type == DISPATCH_SCALARS || option->type == DISPATCH_OBJECT)
	{
		Jsonb	   *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));

		if (!JB_ROOT_IS_OBJECT(json))
			return "It is not a JSON object.";
		problem = read_object(option, &json->root, VARSIZE(json), value);
	}
	else
		problem = read_scalar(option, text, value);
	value->is_set = problem == NULL;
	return problem;
}

/* Short and exact: 65535, 0.1 */
static void
append_bound(StringInfo out, double bound)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];

	if (bound == rint(bound) && fabs(bound) < 1e18)
		appendStringInfo(out, INT64_FORMAT, (int64) bound);
	else
	{
		double_to_shortest_decimal_buf(bound, text);
		appendStringInfoString(out, text);
	}
}

char *
option_value_domain(const DispatchOption *option)
{
	StringInfoData out;
	bool		is_number = option->type == DISPATCH_INTEGER ||
		option->type == DISPATCH_NUMBER || option->type == DISPATCH_TIME;

	initStringInfo(&out);
	appendStringInfoString(&out, domains[option->type]);
	if (option->type == DISPATCH_ENUM)
	{
		for (const char *const *choice = option->choices; *choice != NULL; choice++)
			appendStringInfo(&out, "%s\"%s\"", choice == option->choices ? "" : ", ", *choice);
	}
	else if (option->min != 0 || option->max != 0)
	{
		appendStringInfoString(&out, option->type == DISPATCH_TIME ? "; seconds from " :
							   is_number ? " from " : " of ");
		append_bound(&out, option->min);
		appendStringInfoString(&out, " to ");
		append_bound(&out, option->max);
		appendStringInfoString(&out, is_number ? "" : " bytes");
	}
	return out.data;
}
