/*-------------------------------------------------------------------------
 *
 * event_type.c
 *	  What an event type sets for its events.
 *
 * Options are merged when the event is published and stored with it: what is
 * published does not change when its type does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "attributes.h"
#include "data_path.h"
#include "event_type.h"
#include "json.h"
#include "template.h"

static bool
sets_option(const Jsonb *options, const char *name)
{
	JsonbValue *value;

	if (options == NULL)
		return false;
	value = getKeyJsonValueFromContainer(&unconstify(Jsonb *, options)->root, name,
										 strlen(name), NULL);
	return value != NULL && value->type != jbvNull;
}

static void
push_topic(JsonbParseState **state, const EventType *type, const OptionTable *table)
{
	const char *destination;

	if (table->destination < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("transport \"%s\" takes no topic", table->transport),
				 errdetail("The event type sets the topic \"%s\".", type->topic)));
	destination = table->items[table->destination].name;
	if (sets_option(type->options, destination))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event type sets both topic and option \"%s\"", destination),
				 errdetail("With transport \"%s\" they are the same.", table->transport)));

	json_push_member(state, destination, type->topic);
}

Jsonb *
event_type_options(const EventType *type, const OptionTable *table, Jsonb *own)
{
	JsonbParseState *state = NULL;

	if (type->options == NULL && type->topic == NULL)
		return own;
	if (own != NULL && !JB_ROOT_IS_OBJECT(own))
		return own;				/* which is an error, for the caller to find */
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (type->options != NULL)
		json_push_members(&state, &type->options->root);
	if (type->topic != NULL)
		push_topic(&state, type, table);
	if (own != NULL)
		json_push_members(&state, &own->root);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

text *
event_type_key(const EventType *type, Jsonb *data)
{
	const char *path = type->partition_by;
	const char *problem = "there is no JSON data";
	JsonbValue	field;

	if (data != NULL && data_path_find(path, strlen(path), data, &field, &problem))
	{
		char	   *key = json_scalar_text(&field);

		if (*key != '\0')
			return cstring_to_text(key);
		problem = psprintf("\"%s\" in the data is an empty text", path);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("partition_by \"%s\" does not lead to a key", path),
			 errdetail("In this event, %s.", problem),
			 errhint("It must lead to a string, a number or a boolean; or pass a key.")));
}

/* ------------------------------------------------------------------------
 * Checks
 * ------------------------------------------------------------------------
 */

static void
check_topic(const char *topic)
{
	const char *error;

	if (template_parse(topic, &error) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("topic of the event type is not valid"),
				 errdetail("%s", error)));
}

static void
check_partition_by(const char *path)
{
	if (!data_path_is_valid(path, strlen(path)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition_by of the event type is not valid: \"%s\"", path),
				 errdetail("It must be names of fields of the data, with a dot between two."),
				 errhint("For example: user.id")));
}

static void
check_options(const EventType *type, const OptionTable *table)
{
	if (type->options != NULL && !JB_ROOT_IS_OBJECT(type->options))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options must be a JSON object"),
				 errhint("For example: {\"envelope\": \"data\"}.")));
	if (table == NULL)
		return;
	options_check(table, event_type_options(type, table, NULL), DISPATCH_OF_EVENT);
	attributes_check_extensions(type->options);
}

void
event_type_check(const EventType *type, const OptionTable *table)
{
	if (type->topic != NULL)
		check_topic(type->topic);
	if (type->partition_by != NULL)
		check_partition_by(type->partition_by);
	check_options(type, table);
}
