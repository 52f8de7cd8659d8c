/*-------------------------------------------------------------------------
 *
 * message.c
 *	  From an event to the message that a transport sends.
 *
 * An event's options come before its backend's.  Templates are rendered here,
 * when the event is about to be sent, so that altering the backend mends what
 * is pending.  Most events set no options, and most templates are constant:
 * then all messages of a backend share one array of values.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "envelope.h"
#include "message.h"
#include "option_value.h"
#include "options.h"
#include "template.h"
#include "utf8.h"

struct MessageMaker
{
	OptionTable *table;
	DispatchValue *values;		/* the backend's; constant templates rendered */
	Template  **templates;		/* by option; NULL: no template, or constant */
	bool		has_variables;	/* is any of templates[] set? */
	DispatchEnvelope envelope;
};

/*
 * Renders a template into a value.  False, with *error set, when the event
 * lacks what it needs.
 */
static bool
render(const Template *template, const TemplateFields *fields, const DispatchOption *option,
	   DispatchValue *value, const char **error)
{
	StringInfoData rendered;
	const char *text;
	size_t		len;

	initStringInfo(&rendered);
	if (!template_render(template, fields, &rendered, error))
		return false;
	text = rendered.data;
	len = rendered.len;
	if (!utf8_convert(&text, &len, error))
		return false;
	*error = option_value_check_rendered(option, len);
	if (*error != NULL)
		return false;
	value->text = text;
	value->text_len = (int) len;
	return true;
}

MessageMaker *
message_maker_create(const DispatchTransport *transport, const Jsonb *options)
{
	MessageMaker *maker = palloc0_object(MessageMaker);
	const TemplateFields nothing = {0};

	maker->table = options_table(transport);
	maker->values = palloc0_array(DispatchValue, maker->table->nitems);
	maker->templates = palloc0_array(Template *, maker->table->nitems);
	options_read(maker->table, options, DISPATCH_OF_BACKEND, maker->values);
	maker->envelope = options_envelope(maker->table, maker->values);

	for (int i = 0; i < maker->table->nitems; i++)
	{
		DispatchValue *value = &maker->values[i];
		const char *error;
		Template   *template;

		if (maker->table->items[i].type != DISPATCH_TEMPLATE || !value->is_set)
			continue;
		template = template_parse(value->text, &error);
		if (template == NULL ||
			(template_is_constant(template) &&
			 !render(template, &nothing, &maker->table->items[i], value, &error)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value for option \"%s\"", maker->table->items[i].name),
					 errdetail("%s", error)));
		if (!template_is_constant(template))
		{
			maker->templates[i] = template;
			maker->has_variables = true;
		}
	}
	return maker;
}

const DispatchValue *
message_maker_values(const MessageMaker *maker)
{
	return maker->values;
}

/* Values of the event's own. */
static const DispatchValue *
make_values(const MessageMaker *maker, const Event *event, const char **error)
{
	int			nitems = maker->table->nitems;
	const TemplateFields fields = {
		event->event_type, event->source, event->subject, event->key, event->data
	};
	DispatchValue *values = palloc_array(DispatchValue, nitems);

	memcpy(values, maker->values, nitems * sizeof(DispatchValue));
	if (!options_override(maker->table, event->options, values, error))
		return NULL;

	for (int i = 0; i < nitems; i++)
	{
		const Template *template = maker->templates[i];

		if (maker->table->items[i].type != DISPATCH_TEMPLATE || !values[i].is_set)
			continue;
		if (values[i].text != maker->values[i].text)
		{
			template = template_parse(values[i].text, error);
			if (template == NULL)
				return NULL;
		}
		if (template != NULL &&
			!render(template, &fields, &maker->table->items[i], &values[i], error))
			return NULL;
	}
	return values;
}

bool
message_make(const MessageMaker *maker, const Event *event,
			 DispatchMessage *message, const char **error, DispatchErrorClass *error_class)
{
	DispatchEnvelope envelope = maker->envelope;

	*error_class = DISPATCH_EVENT_FAILED;
	message->options = maker->values;
	if (event->options != NULL || maker->has_variables)
	{
		message->options = make_values(maker, event, error);
		if (message->options == NULL)
		{
			/* Its texts are needed all the same, to say which event it is. */
			const char *ignored;
			DispatchErrorClass ignored_class;

			message->options = maker->values;
			(void) envelope_write(event, DISPATCH_DATA, message, &ignored, &ignored_class);
			return false;
		}
		envelope = options_envelope(maker->table, message->options);
	}
	return envelope_write(event, envelope, message, error, error_class);
}
