/*-------------------------------------------------------------------------
 *
 * template.c
 *	  Texts with placeholders: '{event_type}.{data.user.country}'.
 *
 * A template is parsed once into literal pieces and placeholders, and what a
 * placeholder stands for goes out as it is: nothing that comes with an event
 * is ever looked through for placeholders again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "data_path.h"
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
		if (len < 6 || !data_path_is_valid(name + 5, len - 5))
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

static bool
append_field(const Piece *path, Jsonb *data, StringInfo result, const char **error)
{
	JsonbValue	field;
	const char *problem = "the event has no JSON data";
	char	   *text;

	if (data == NULL || !data_path_find(path->text, path->len, data, &field, &problem))
	{
		*error = psprintf("Placeholder {data.%.*s} cannot be rendered: %s.",
						  path->len, path->text, problem);
		return false;
	}
	text = json_scalar_text(&field);
	appendStringInfoString(result, text);
	pfree(text);
	return true;
}

bool
template_render(const Template *template, const TemplateFields *fields,
				StringInfo result, const char **error)
{
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
	return true;
}
