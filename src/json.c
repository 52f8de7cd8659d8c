/*-------------------------------------------------------------------------
 *
 * json.c
 *	  Writing JSON, in the encoding of the database.
 *
 * This runs for each event that is sent, and JsonbToCString() would take most
 * of the time that an event costs: it allocates an iterator for each container
 * and escapes byte by byte.  So containers are walked in place, as their
 * public macros describe them, and strings are copied in clean runs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "json.h"

/*
 * Eight bytes at once.  Each yields nonzero if a byte of the word is zero, or
 * less than a space; it may also do so for a byte next to one that is, which
 * is good enough to stop and look closer.
 */
#define EACH_BYTE(b) (UINT64CONST(0x0101010101010101) * (b))
#define HAS_ZERO(word) (((word) - EACH_BYTE(0x01)) & ~(word) & EACH_BYTE(0x80))
#define HAS_CONTROL(word) (((word) - EACH_BYTE(0x20)) & ~(word) & EACH_BYTE(0x80))

bool
json_make_room(StringInfo out, size_t len)
{
	/* The terminator has a place, too. */
	if (json_is_cut(out) || len >= MaxAllocSize - 1 - out->len)
	{
		out->cursor = 1;
		return false;
	}
	enlargeStringInfo(out, (int) len);
	return true;
}

static inline bool
is_clean(unsigned char c)
{
	return c >= ' ' && c != '"' && c != '\\';
}

/*
 * Copies bytes as long as they go into a JSON string as they are, and returns
 * how many those are.
 */
static inline size_t
copy_clean_run(char *target, const char *text, size_t len)
{
	size_t		n = 0;

	while (len - n >= sizeof(uint64))
	{
		uint64		word;

		memcpy(&word, text + n, sizeof(word));
		if (HAS_CONTROL(word) ||
			HAS_ZERO(word ^ EACH_BYTE('"')) || HAS_ZERO(word ^ EACH_BYTE('\\')))
			break;
		memcpy(target + n, &word, sizeof(word));
		n += sizeof(word);
	}
	for (; n < len && is_clean(text[n]); n++)
		target[n] = text[n];
	return n;
}

static void
append_escape(StringInfo out, unsigned char c)
{
	static const char short_form[' '] = {
		['\b'] = 'b',['\f'] = 'f',['\n'] = 'n',['\r'] = 'r',['\t'] = 't'
	};
	static const char hex[] = "0123456789abcdef";
	char		escape[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 0xf]};

	if (c < ' ' && short_form[c] == 0)
	{
		json_append_raw(out, escape, 6);
		return;
	}
	escape[1] = c < ' ' ? short_form[c] : c;
	json_append_raw(out, escape, 2);
}

void
json_append_string(StringInfo out, const char *text, size_t len)
{
	JSON_APPEND_LITERAL(out, "\"");
	for (;;)
	{
		size_t		run;

		/* with the closing quote */
		if (unlikely(out->len + len + 1 >= (size_t) out->maxlen) &&
			!json_make_room(out, len + 1))
			return;
		run = copy_clean_run(out->data + out->len, text, len);
		out->len += (int) run;
		if (run == len)
			break;
		append_escape(out, (unsigned char) text[run]);
		text += run + 1;
		len -= run + 1;
	}
	out->data[out->len++] = '"';
}

static char *
numeric_text(Numeric number)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
}

static void append_container(StringInfo out, const JsonbContainer *container);

/*
 * Appends the child that lies at *offset of a container's data, and moves
 * *offset past it.
 */
static void
append_child(StringInfo out, JEntry entry, const char *base, uint32 *offset)
{
	uint32		start = *offset;

	JBE_ADVANCE_OFFSET(*offset, entry);
	if (JBE_ISSTRING(entry))
		json_append_string(out, base + start, *offset - start);
	else if (JBE_ISCONTAINER(entry))
		append_container(out, (const JsonbContainer *) (base + INTALIGN(start)));
	else if (JBE_ISNUMERIC(entry))
	{
		char	   *text = numeric_text((Numeric) (base + INTALIGN(start)));

		json_append_raw(out, text, strlen(text));
		pfree(text);
	}
	else if (JBE_ISBOOL_TRUE(entry))
		JSON_APPEND_LITERAL(out, "true");
	else if (JBE_ISBOOL_FALSE(entry))
		JSON_APPEND_LITERAL(out, "false");
	else
		JSON_APPEND_LITERAL(out, "null");
}

static void
append_array(StringInfo out, const JsonbContainer *array)
{
	uint32		count = JsonContainerSize(array);
	const char *base = (const char *) &array->children[count];
	uint32		offset = 0;

	JSON_APPEND_LITERAL(out, "[");
	for (uint32 i = 0; i < count && !json_is_cut(out); i++)
	{
		if (i > 0)
			JSON_APPEND_LITERAL(out, ", ");
		append_child(out, array->children[i], base, &offset);
	}
	JSON_APPEND_LITERAL(out, "]");
}

/* All keys come first, then the values. */
static void
append_object(StringInfo out, const JsonbContainer *object)
{
	uint32		count = JsonContainerSize(object);
	const char *base = (const char *) &object->children[2 * count];
	uint32		key_offset = 0;
	uint32		value_offset = getJsonbOffset(object, count);

	JSON_APPEND_LITERAL(out, "{");
	for (uint32 i = 0; i < count && !json_is_cut(out); i++)
	{
		if (i > 0)
			JSON_APPEND_LITERAL(out, ", ");
		append_child(out, object->children[i], base, &key_offset);
		JSON_APPEND_LITERAL(out, ": ");
		append_child(out, object->children[count + i], base, &value_offset);
	}
	JSON_APPEND_LITERAL(out, "}");
}

/* A scalar document is an array of one element, marked as such. */
static void
append_container(StringInfo out, const JsonbContainer *container)
{
	uint32		offset = 0;

	check_stack_depth();
	if (JsonContainerIsObject(container))
		append_object(out, container);
	else if (JsonContainerIsScalar(container))
		append_child(out, container->children[0],
					 (const char *) &container->children[1], &offset);
	else
		append_array(out, container);
}

void
json_append(StringInfo out, const Jsonb *document)
{
	append_container(out, &document->root);
}

/*
 * Numbers of up to 64 groups of four digits before the point, and 63 digits
 * behind it, have a short header in numeric.c, which this bit tells.
 */
static bool
is_long_number(Numeric number)
{
	uint16		header;

	memcpy(&header, VARDATA_ANY(number), sizeof(header));
	return (header & 0x8000) == 0;
}

/* Takes the long numbers of a container from the room that there is. */
static bool
take_numbers(const JsonbContainer *container, size_t *room)
{
	uint32		count = JsonContainerSize(container) * (JsonContainerIsObject(container) ? 2 : 1);
	const char *base = (const char *) &container->children[count];
	uint32		offset = 0;

	check_stack_depth();
	for (uint32 i = 0; i < count; i++)
	{
		JEntry		entry = container->children[i];
		const char *child = base + INTALIGN(offset);

		JBE_ADVANCE_OFFSET(offset, entry);
		if (JBE_ISCONTAINER(entry))
		{
			if (!take_numbers((const JsonbContainer *) child, room))
				return false;
		}
		else if (JBE_ISNUMERIC(entry) && is_long_number((Numeric) child))
		{
			char	   *text = numeric_text((Numeric) child);
			size_t		len = strlen(text);

			pfree(text);
			if (len > *room)
				return false;
			*room -= len;
		}
	}
	return true;
}

bool
json_numbers_fit(const Jsonb *document, size_t max_bytes)
{
	return take_numbers(&document->root, &max_bytes);
}

char *
json_scalar_text(const JsonbValue *scalar)
{
	switch (scalar->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(scalar->val.string.val, scalar->val.string.len);
		case jbvNumeric:
			return numeric_text(scalar->val.numeric);
		case jbvBool:
			return pstrdup(scalar->val.boolean ? "true" : "false");
		default:
			elog(ERROR, "not a JSON scalar: type %d", (int) scalar->type);
			return NULL;		/* keep compiler quiet */
	}
}

void
json_push_text(JsonbParseState **state, JsonbIteratorToken token, const char *text)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = strlen(text);
	pushJsonbValue(state, token, &value);
}

void
json_push_member(JsonbParseState **state, const char *name, const char *text)
{
	json_push_text(state, WJB_KEY, name);
	json_push_text(state, WJB_VALUE, text);
}

void
json_push_members(JsonbParseState **state, const JsonbContainer *object)
{
	JsonbIterator *iterator = JsonbIteratorInit(unconstify(JsonbContainer *, object));
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = value;
		else if (token == WJB_VALUE && value.type != jbvNull)
		{
			pushJsonbValue(state, WJB_KEY, &name);
			pushJsonbValue(state, WJB_VALUE, &value);
		}
	}
}
