/*-------------------------------------------------------------------------
 *
 * attributes.c
 *	  Attributes of a CloudEvent that an event carries beside its columns.
 *
 * Most events have none: their type, source, subject, id and time are columns.
 * What else a publisher sets, extensions or a CloudEvent of its own, is one
 * JSON object of scalars, "attributes", which keeps the types that were given:
 * id, time, datacontenttype, dataschema and extensions.
 *
 * The rules are those of CloudEvents 1.0; a name may be of any length, for 20
 * characters are only a recommendation.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "attribute_syntax.h"
#include "attributes.h"
#include "json.h"
#include "utf8.h"

#define EXTENSIONS "extensions"

/* Why a text cannot be the value: a full sentence, or NULL. */
typedef const char *(*TextProblem) (const char *text);

static const char *
name_problem(const char *text)
{
	return *text == '\0' ? "It must not be empty." : NULL;
}

static const char *
version_problem(const char *text)
{
	return strcmp(text, "1.0") == 0 ? NULL : "It must be \"1.0\".";
}

static const char *
source_problem(const char *text)
{
	return syntax_is_uri_reference(text) ? NULL :
		"It must be a URI-reference as in RFC 3986, such as \"/shop/orders\".";
}

static const char *
schema_problem(const char *text)
{
	return syntax_is_uri(text) ? NULL :
		"It must be an absolute URI as in RFC 3986, such as \"https://example.com/order.json\".";
}

static const char *
time_problem(const char *text)
{
	return syntax_is_timestamp(text) ? NULL :
		"It must be a timestamp as in RFC 3339, such as \"2025-06-25T10:11:12.5Z\".";
}

static const char *
media_type_problem(const char *text)
{
	return syntax_is_media_type(text) ? NULL :
		"It must be a media type as in RFC 2046, such as \"application/json\".";
}

typedef struct CoreAttribute
{
	const char *name;
	TextProblem problem;
} CoreAttribute;

static const CoreAttribute core_attributes[] = {
	{"specversion", version_problem},
	{"id", name_problem},
	{"source", source_problem},
	{"type", name_problem},
	{"subject", name_problem},
	{"time", time_problem},
	{"datacontenttype", media_type_problem},
	{"dataschema", schema_problem},
};

static const CoreAttribute *
find_core(const char *name)
{
	for (int i = 0; i < (int) lengthof(core_attributes); i++)
		if (strcmp(core_attributes[i].name, name) == 0)
			return &core_attributes[i];
	return NULL;
}

static const char *
string_problem(const char *text)
{
	return syntax_is_string(text) ? NULL :
		"It must not hold control characters or Unicode noncharacters.";
}

/* A CloudEvents Integer has 32 bits, and no fraction or exponent. */
static const char *
integer_problem(const char *text)
{
	int64		number;
	char	   *end;

	errno = 0;
	number = strtoi64(text, &end, 10);
	if (*end != '\0' || errno == ERANGE || number < PG_INT32_MIN || number > PG_INT32_MAX)
		return "A number must be an integer from -2147483648 to 2147483647.";
	return NULL;
}

const char *
attribute_problem(const char *name, const JsonbValue *value)
{
	const CoreAttribute *core = find_core(name);
	const char *problem;
	const char *text;

	if (core == NULL && (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789") != strlen(name) ||
						 *name == '\0'))
		return "Its name must consist of the letters a to z and digits.";
	if (core == NULL && strcmp(name, "data") == 0)
		return "No attribute has this name.";
	if (core != NULL && value->type != jbvString)
		return "It must be a string.";
	if (value->type == jbvBinary)
		return "It must be a string, an integer or a boolean.";

	text = json_scalar_text(value);
	if (value->type == jbvNumeric)
		return integer_problem(text);
	problem = string_problem(text);
	if (problem == NULL && core != NULL)
		problem = core->problem(text);
	return problem;
}

/* ------------------------------------------------------------------------
 * Extensions
 * ------------------------------------------------------------------------
 */

/* The object options.extensions; NULL: there is none. */
static JsonbContainer *
find_extensions(const Jsonb *options)
{
	JsonbValue *value = NULL;

	if (options != NULL)
		value = getKeyJsonValueFromContainer(&unconstify(Jsonb *, options)->root, EXTENSIONS,
											 strlen(EXTENSIONS), NULL);
	return value != NULL && value->type == jbvBinary ? value->val.binary.data : NULL;
}

static void
check_extension(const JsonbValue *key, const JsonbValue *value)
{
	char	   *name = json_scalar_text(key);
	const char *problem = NULL;

	if (find_core(name) != NULL)
		problem = "It is an attribute of CloudEvents itself, which dispatch sets.";
	else if (value->type != jbvNull)
		problem = attribute_problem(name, value);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("extension attribute \"%.*s\" is not valid",
						text_clip(name, strlen(name)), name),
				 errdetail("%s", problem)));
}

void
attributes_check_extensions(const Jsonb *options)
{
	JsonbContainer *extensions = find_extensions(options);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	value;

	if (extensions == NULL)
		return;
	iterator = JsonbIteratorInit(extensions);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = value;
		else if (token == WJB_VALUE)
			check_extension(&name, &value);
	}
}

Jsonb *
attributes_with_extensions(const Jsonb *attributes, const Jsonb *options)
{
	JsonbContainer *extensions = find_extensions(options);
	JsonbParseState *state = NULL;
	Jsonb	   *merged;

	if (extensions == NULL)
		return unconstify(Jsonb *, attributes);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_members(&state, extensions);
	if (attributes != NULL)
		json_push_members(&state, &attributes->root);
	merged = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	return JB_ROOT_COUNT(merged) > 0 ? merged : NULL;
}

/* ------------------------------------------------------------------------
 * Access
 * ------------------------------------------------------------------------
 */

Jsonb *
attributes_of_content(const text *content_type)
{
	JsonbParseState *state = NULL;
	char	   *type;

	if (content_type == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("content_type of an event must not be null")));
	type = text_to_cstring(content_type);
	if (media_type_problem(type) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("content_type of the event is not valid: \"%.*s\"",
						text_clip(type, strlen(type)), type),
				 errdetail("%s", media_type_problem(type))));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	json_push_member(&state, "datacontenttype", type);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

const JsonbValue *
attributes_get(const Jsonb *attributes, const char *name)
{
	if (attributes == NULL)
		return NULL;
	return getKeyJsonValueFromContainer(&unconstify(Jsonb *, attributes)->root, name,
										strlen(name), NULL);
}

const char *
attributes_get_text(const Jsonb *attributes, const char *name)
{
	const JsonbValue *value = attributes_get(attributes, name);

	return value != NULL ? json_scalar_text(value) : NULL;
}

bool
attributes_are_given(const Jsonb *attributes)
{
	return attributes_get(attributes, "id") != NULL;
}
