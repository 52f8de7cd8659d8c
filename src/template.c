/*-------------------------------------------------------------------------
 *
 * template.c
 *	  Texts with placeholders: '{event_type}.{data.user.country}'.
 *
 * A template is parsed once into literal pieces and placeholders, and what a
 * placeholder stands for goes out as it is: nothing that comes with an event
 * is ever looked through for placeholders again.  A path walks through objects
 * only, by exact key, so that it means the same for every event.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "json.h"
#include "template.h"
#include "utf8.h"

#define VALID_PLACEHOLDERS \
	"Valid placeholders are {event_type}, {source}, {subject}, {key} and {data.path.to.field}."

typedef enum PieceKind
{
	PIECE_LITERAL,
	PIECE_EVENT_TYPE,
	PIECE_SOURCE,
	PIECE_SUBJECT,
	PIECE_KEY,
	PIECE_DATA
} PieceKind;

typedef struct Piece
{
	PieceKind	kind;
	const char *text;			/* the literal, or the path below data */
	int			len;
} Piece;

struct Template
{
	int			npieces;
	Piece		pieces[FLEXIBLE_ARRAY_MEMBER];	/* their texts follow */
};

static const char *const placeholder_names[] = {
	[PIECE_EVENT_TYPE] = "event_type",
	[PIECE_SOURCE] = "source",
	[PIECE_SUBJECT] = "subject",
	[PIECE_KEY] = "key",
};

/* "problem" takes the text as its %.*s. */
static bool
malformed(const char **error, const char *problem, const char *text, size_t len)
{
	char	   *sentence = psprintf(problem, text_clip(text, len), text);

	*error = psprintf("%s %s", sentence, VALID_PLACEHOLDERS);
	pfree(sentence);
	return false;
}

static bool
path_is_valid(const char *path, const char *end)
{
	if (path == end || *path == '.' || end[-1] == '.')
		return false;
	for (const char *p = path; p + 1 < end; p++)
		if (p[0] == '.' && p[1] == '.')
			return false;
	return true;
}

/* Parses what stands between two braces. */
static bool
parse_placeholder(const char *name, size_t len, Piece *piece, const char **error)
{
	if (len == 0)
		return malformed(error, "A placeholder is empty: \"{%.*s}\".", name, len);

	for (int kind = PIECE_EVENT_TYPE; kind <= PIECE_KEY; kind++)
	{
		const char *known = placeholder_names[kind];

		if (strlen(known) == len && memcmp(known, name, len) == 0)
		{
			piece->kind = kind;
			return true;
		}
	}

	if (len >= 4 && memcmp(name, "data", 4) == 0 && (len == 4 || name[4] == '.'))
	{
		if (len < 6 || !path_is_valid(name + 5, name + len))
			return malformed(error, "Placeholder {%.*s} lacks the name of a field.", name, len);
		piece->kind = PIECE_DATA;
		piece->text = name + 5;
		piece->len = len - 5;
		return true;
	}
	return malformed(error, "Placeholder {%.*s} is unknown.", name, len);
}

static size_t
count_braces(const char *text)
{
	size_t		count = 0;

	for (; *text != '\0'; text++)
		if (*text == '{' || *text == '}')
			count++;
	return count;
}

Template *
template_parse(const char *text, const char **error)
{
	size_t		max_pieces = 2 * count_braces(text) + 1;
	size_t		header = offsetof(Template, pieces) + max_pieces * sizeof(Piece);
	size_t		len = strlen(text);
	Template   *template = palloc(header + len + 1);
	Piece	   *piece = template->pieces;
	const char *p = memcpy((char *) template + header, text, len + 1);

	while (*p != '\0')
	{
		size_t		run = strcspn(p, "{}");

		if (run == 0 && p[0] == p[1])
		{
			*piece++ = (Piece) {PIECE_LITERAL, p, 1};
			p += 2;
		}
		else if (run > 0)
		{
			*piece++ = (Piece) {PIECE_LITERAL, p, (int) run};
			p += run;
		}
		else if (*p == '}')
		{
			malformed(error, "A closing brace has no opening one: \"%.*s\"; write \"}}\" for a brace.",
					  p, strlen(p));
			pfree(template);
			return NULL;
		}
		else
		{
			size_t		name_len = strcspn(p + 1, "{}");
			bool		ok;

			if (p[1 + name_len] == '}')
				ok = parse_placeholder(p + 1, name_len, piece++, error);
			else
				ok = malformed(error, "A placeholder is not closed: \"%.*s\"; write \"{{\" for a brace.",
							   p, strlen(p));
			if (!ok)
			{
				pfree(template);
				return NULL;
			}
			p += name_len + 2;
		}
	}

	template->npieces = piece - template->pieces;
	if (template->npieces == 0)
	{
		*error = "The template is empty.";
		pfree(template);
		return NULL;
	}
	return template;
}

bool
template_is_constant(const Template *template)
{
	for (int i = 0; i < template->npieces; i++)
		if (template->pieces[i].kind != PIECE_LITERAL)
			return false;
	return true;
}

/* Why {data.<path>} cannot be rendered; "len" bytes of the path matter. */
static bool
no_field(const char **error, const Piece *path, size_t len, const char *problem,
		 const char *type)
{
	char	   *place;

	place = len == 0 ? pstrdup("the data") : psprintf("\"%.*s\" in the data", (int) len, path->text);
	*error = psprintf("Placeholder {data.%.*s} cannot be rendered: %s %s%s.",
					  path->len, path->text, place, problem, type);
	pfree(place);
	return false;
}

/* Finds the field that a path names.  It is a scalar other than null. */
static bool
find_field(const Piece *path, Jsonb *data, JsonbValue *field, const char **error)
{
	const char *end = path->text + path->len;
	const char *name = path->text;
	JsonbContainer *container = &data->root;

	for (;;)
	{
		const char *dot = memchr(name, '.', end - name);
		const char *name_end = dot != NULL ? dot : end;
		size_t		walked = name_end - path->text;

		if (!JsonContainerIsObject(container))
			return no_field(error, path, name == path->text ? 0 : name - 1 - path->text,
							"is not an object", "");
		if (getKeyJsonValueFromContainer(container, name, name_end - name, field) == NULL)
			return no_field(error, path, walked, "is missing", "");
		if (dot == NULL && field->type == jbvBinary)
			return no_field(error, path, walked, "is not a scalar but an ", JsonbTypeName(field));
		if (dot == NULL && field->type == jbvNull)
			return no_field(error, path, walked, "is null", "");
		if (dot == NULL)
			return true;
		if (field->type != jbvBinary)
			return no_field(error, path, walked, "is not an object but ",
							field->type == jbvNull ? "null" : psprintf("a %s", JsonbTypeName(field)));
		container = field->val.binary.data;
		name = dot + 1;
	}
}

static bool
append_field(const Piece *path, Jsonb *data, StringInfo result, const char **error)
{
	JsonbValue	field;
	char	   *text;

	if (data == NULL)
	{
		*error = psprintf("Placeholder {data.%.*s} cannot be rendered: the event has no data.",
						  path->len, path->text);
		return false;
	}
	if (!find_field(path, data, &field, error))
		return false;
	text = json_scalar_text(&field);
	appendStringInfoString(result, text);
	pfree(text);
	return true;
}

bool
template_render(const Template *template, const TemplateFields *fields,
				StringInfo result, const char **error)
{
	int			start = result->len;
	const char *const values[] = {
		[PIECE_EVENT_TYPE] = fields->event_type,
		[PIECE_SOURCE] = fields->source,
		[PIECE_SUBJECT] = fields->subject,
		[PIECE_KEY] = fields->key,
	};

	for (int i = 0; i < template->npieces; i++)
	{
		const Piece *piece = &template->pieces[i];

		if (piece->kind == PIECE_LITERAL)
			appendBinaryStringInfo(result, piece->text, piece->len);
		else if (piece->kind == PIECE_DATA)
		{
			if (!append_field(piece, fields->data, result, error))
				return false;
		}
		else if (values[piece->kind] != NULL)
			appendStringInfoString(result, values[piece->kind]);
		else
		{
			*error = psprintf("Placeholder {%s} cannot be rendered: the event has no %s.",
							  placeholder_names[piece->kind], placeholder_names[piece->kind]);
			return false;
		}
	}

	if (result->len == start)
	{
		*error = "The template renders to an empty text.";
		return false;
	}
	return true;
}
