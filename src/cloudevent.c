/*-------------------------------------------------------------------------
 *
 * cloudevent.c
 *	  dispatch.publish_cloudevent(): a CloudEvent of somebody else's making.
 *
 * The event is taken apart, checked against CloudEvents 1.0 and its JSON
 * format, and stored as any other is: what we have columns for in those, the
 * rest as attributes.  On the wire it has the attributes that it was given
 * with, and no others; a JSON null stands for one that is not there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "utils/builtins.h"

#include "attribute_syntax.h"
#include "attributes.h"
#include "json.h"
#include "publish.h"
#include "utf8.h"

PG_FUNCTION_INFO_V1(dispatch_publish_cloudevent);

/* Arguments of dispatch.publish_cloudevent(). */
enum
{
	ARG_EVENT,
	ARG_BACKEND,
	ARG_OPTIONS = ARG_BACKEND + 2
};

/* The attribute that is the key, unless another one is passed. */
#define KEY_ATTRIBUTE "partitionkey"

static void
invalid_attribute(const char *name, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("attribute \"%.*s\" of the CloudEvent is not valid",
					text_clip(name, strlen(name)), name),
			 errdetail("%s", problem)));
}

static void
invalid_data(const char *name, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" of the CloudEvent is not valid", name),
			 errdetail("%s", problem)));
}

/*
 * The decoder takes a padding for the end of a group, not of the text, so where
 * it stands is for us to see.
 */
static Datum
decode_base64(const JsonbValue *value)
{
	const char *text = value->val.string.val;
	int			len = value->val.string.len;
	const char *padding;
	bytea	   *content;
	void	   *bytes;
	int			size;

	if (value->type != jbvString)
		invalid_data("data_base64", "It must be a string.");
	padding = memchr(text, '=', len);
	if (len % 4 != 0 || (padding != NULL && padding < text + len - 2) ||
		(padding == text + len - 2 && text[len - 1] != '='))
		invalid_data("data_base64", "It is not base64 as in RFC 4648, with padding.");

	content = palloc(VARHDRSZ + pg_b64_dec_len(len));
	bytes = VARDATA(content);
	size = pg_b64_decode(text, len, bytes, pg_b64_dec_len(len));
	if (size < 0)
		invalid_data("data_base64", "It is not base64 as in RFC 4648, with padding.");
	SET_VARSIZE(content, VARHDRSZ + size);
	return PointerGetDatum(content);
}

/* Takes an attribute over: as a column, or into the object that is being built. */
static void
read_attribute(NewEvent *event, JsonbParseState **attributes, const char *name,
			   JsonbValue *value)
{
	const char *problem = attribute_problem(name, value);

	if (problem != NULL)
		invalid_attribute(name, problem);
	if (strcmp(name, "specversion") == 0)
		return;					/* there is only one */
	if (strcmp(name, "type") == 0)
		event->event_type = cstring_to_text(json_scalar_text(value));
	else if (strcmp(name, "source") == 0)
		event->source = cstring_to_text(json_scalar_text(value));
	else if (strcmp(name, "subject") == 0)
		event->subject = cstring_to_text(json_scalar_text(value));
	else
	{
		json_push_text(attributes, WJB_KEY, name);
		pushJsonbValue(attributes, WJB_VALUE, value);
	}
}

static void
read_member(NewEvent *event, JsonbParseState **attributes, const char *name,
			JsonbValue *value)
{
	if (strcmp(name, "data") == 0)
	{
		event->data = JsonbPGetDatum(JsonbValueToJsonb(value));
		event->has_data = true;
	}
	else if (strcmp(name, "data_base64") == 0)
	{
		event->content = decode_base64(value);
		event->has_content = true;
	}
	else if (value->type != jbvNull)
		read_attribute(event, attributes, name, value);
}

static void
read_members(const Jsonb *cloudevent, NewEvent *event)
{
	JsonbIterator *iterator = JsonbIteratorInit(&unconstify(Jsonb *, cloudevent)->root);
	JsonbParseState *attributes = NULL;
	JsonbIteratorToken token;
	JsonbValue	value;
	char	   *name = NULL;

	pushJsonbValue(&attributes, WJB_BEGIN_OBJECT, NULL);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = json_scalar_text(&value);
		else if (token == WJB_VALUE)
			read_member(event, &attributes, name, &value);
	}
	event->attributes = JsonbValueToJsonb(pushJsonbValue(&attributes, WJB_END_OBJECT, NULL));
}

static void
require_attributes(const Jsonb *cloudevent)
{
	static const char *const required[] = {"specversion", "id", "source", "type"};

	for (int i = 0; i < (int) lengthof(required); i++)
	{
		const JsonbValue *value = attributes_get(cloudevent, required[i]);

		if (value == NULL || value->type == jbvNull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("attribute \"%s\" of the CloudEvent is missing", required[i]),
					 errhint("A CloudEvent must have specversion, id, source and type.")));
	}
}

/* What is not JSON is a text, or else base64. */
static void
check_data(const NewEvent *event)
{
	const char *type = attributes_get_text(event->attributes, "datacontenttype");
	JsonbValue	scalar;

	if (event->has_data && event->has_content)
		invalid_data("data_base64", "It cannot be there beside \"data\".");
	if (!event->has_data || type == NULL || media_type_is_json(type))
		return;
	if (!JsonbExtractScalar(&DatumGetJsonbP(event->data)->root, &scalar) ||
		scalar.type != jbvString)
		invalid_data("data", psprintf("It must be a string, for it is not JSON but \"%.*s\".",
									  text_clip(type, strlen(type)), type));
}

static void
read_cloudevent(const Jsonb *cloudevent, NewEvent *event)
{
	if (!JB_ROOT_IS_OBJECT(cloudevent))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a CloudEvent must be a JSON object")));
	require_attributes(cloudevent);
	read_members(cloudevent, event);
	check_data(event);
}

Datum
dispatch_publish_cloudevent(PG_FUNCTION_ARGS)
{
	NewEvent	event = {0};
	pg_uuid_t  *event_id = palloc(sizeof(pg_uuid_t));
	const char *key;

	if (PG_ARGISNULL(ARG_EVENT))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a CloudEvent must not be null")));
	read_cloudevent(PG_GETARG_JSONB_P(ARG_EVENT), &event);
	publish_read_arguments(fcinfo, ARG_BACKEND, ARG_OPTIONS, &event);
	key = attributes_get_text(event.attributes, KEY_ATTRIBUTE);
	if (event.key == NULL && key != NULL && *key != '\0')
		event.key = cstring_to_text(key);
	publish_event(&event, event_id);
	PG_RETURN_UUID_P(event_id);
}
