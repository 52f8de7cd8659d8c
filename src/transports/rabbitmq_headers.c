/*-------------------------------------------------------------------------
 *
 * rabbitmq_headers.c
 *	  From the JSON of the option "headers" to the values of a header table.
 *
 * A value takes the type that JSON gives it: a number without fraction or
 * exponent that fits is an integer, of 32 bits or else 64, any other a double.  For what
 * JSON has no type, there are two objects of a single member:
 * {"$timestamp": seconds since 1970} and {"$binary": "base64"}.
 *
 * The core has checked that it is JSON, how deep it is and how long its names
 * are, and hands it over as jsonb writes it.  So this reader is short; but it
 * trusts none of that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/base64.h"
#include "miscadmin.h"

#include "rabbitmq.h"

typedef struct JsonReader
{
	const char *at;				/* the rest; terminated */
	const char *problem;		/* a full sentence; NULL: none yet */
} JsonReader;

/* In the current memory context, as all of it. */
RabbitTable *
rabbit_table_create(void)
{
	RabbitTable *table = palloc0(sizeof(RabbitTable));

	table->size = 16;
	table->fields = palloc(table->size * sizeof(RabbitField));
	return table;
}

/* A new value, null so far; valid until the next one is added. */
RabbitValue *
rabbit_table_add(RabbitTable *table, const char *name)
{
	RabbitField *field;

	if (table->count == table->size)
	{
		table->size *= 2;
		table->fields = repalloc(table->fields, table->size * sizeof(RabbitField));
	}
	field = &table->fields[table->count++];
	memset(field, 0, sizeof(*field));
	field->name = name;
	return &field->value;
}

static void
fail(JsonReader *reader, const char *problem)
{
	if (reader->problem == NULL)
		reader->problem = problem;
}

/* Takes a character, with blanks after it, if it comes next. */
static bool
accept(JsonReader *reader, char c)
{
	if (reader->problem != NULL || *reader->at != c)
		return false;
	reader->at++;
	reader->at += strspn(reader->at, " ");
	return true;
}

static void
expect(JsonReader *reader, char c)
{
	if (!accept(reader, c))
		fail(reader, "The headers are not the JSON that they should be.");
}

static bool
accept_word(JsonReader *reader, const char *word)
{
	size_t		len = strlen(word);

	if (strncmp(reader->at, word, len) != 0)
		return false;
	reader->at += len;
	return true;
}

/* ------------------------------------------------------------------------
 * Strings
 * ------------------------------------------------------------------------
 */

/* jsonb writes only control characters by number. */
static char *
read_escape(JsonReader *reader, char *target)
{
	static const char letters[] = "\"\\/bfnrt";
	static const char meanings[] = "\"\\/\b\f\n\r\t";
	const char *letter;
	unsigned int code;

	reader->at++;
	letter = *reader->at == '\0' ? NULL : strchr(letters, *reader->at);
	if (letter != NULL)
	{
		reader->at++;
		*target++ = meanings[letter - letters];
		return target;
	}
	if (sscanf(reader->at, "u00%2x", &code) != 1 || code == 0 || code >= 0x80)
	{
		fail(reader, "The headers have an escape that is not understood.");
		return target;
	}
	reader->at += 5;
	*target++ = (char) code;
	return target;
}

/* Bytes that a string takes at most; it begins at its quote. */
static size_t
string_size(const char *text)
{
	size_t		len = 1;

	while (text[len - 1] != '\0' && text[len] != '\0' && text[len] != '"')
		len += text[len] == '\\' && text[len + 1] != '\0' ? 2 : 1;
	return len + 1;
}

/* Terminated, without its quotes. */
static char *
read_string(JsonReader *reader, size_t *len)
{
	char	   *text = palloc(string_size(reader->at));
	char	   *target = text;

	if (*reader->at != '"')
		fail(reader, "The headers are not the JSON that they should be.");
	else
		reader->at++;
	while (reader->problem == NULL && *reader->at != '"')
	{
		if (*reader->at == '\0')
			fail(reader, "The headers end in a string.");
		else if (*reader->at == '\\')
			target = read_escape(reader, target);
		else
			*target++ = *reader->at++;
	}
	if (reader->problem == NULL)
		reader->at++;
	reader->at += strspn(reader->at, " ");
	*target = '\0';
	*len = target - text;
	return text;
}

/* ------------------------------------------------------------------------
 * Values
 * ------------------------------------------------------------------------
 */

static void read_value(JsonReader *reader, RabbitValue *value);

static void
read_number(JsonReader *reader, RabbitValue *value)
{
	size_t		len = strspn(reader->at, "+-.0123456789eE");
	char	   *text = pnstrdup(reader->at, len);
	char	   *end;

	reader->at += len;
	errno = 0;
	value->kind = VALUE_INTEGER;
	value->integer = strtoi64(text, &end, 10);
	if (len > 0 && *end == '\0' && errno == 0)
		return;
	errno = 0;
	value->kind = VALUE_DOUBLE;
	value->number = strtod(text, &end);
	if (len == 0 || *end != '\0')
		fail(reader, "The headers are not the JSON that they should be.");
	else if (errno == ERANGE && value->number != 0 &&
			 (value->number > 1 || value->number < -1))
		fail(reader, "A number in the headers is too large for a double.");
}

static void
read_array(JsonReader *reader, RabbitValue *value)
{
	value->kind = VALUE_ARRAY;
	value->table = rabbit_table_create();
	if (accept(reader, ']'))
		return;
	do
	{
		read_value(reader, rabbit_table_add(value->table, NULL));
	} while (accept(reader, ','));
	expect(reader, ']');
}

/* The members of an object whose brace was taken. */
static void
read_members(JsonReader *reader, RabbitTable *table)
{
	if (accept(reader, '}'))
		return;
	do
	{
		size_t		len;
		char	   *name = read_string(reader, &len);

		if (len > SHORT_STRING_MAX)
			fail(reader, "A name in the headers is longer than 255 bytes.");
		expect(reader, ':');
		read_value(reader, rabbit_table_add(table, name));
	} while (accept(reader, ','));
	expect(reader, '}');
}

static void
decode_binary(JsonReader *reader, const RabbitValue *text, RabbitValue *value)
{
	int			size;
	char	   *bytes;
	int			len;

	if (text->kind != VALUE_STRING)
	{
		fail(reader, "\"$binary\" in the headers must be a string of base64.");
		return;
	}
	size = pg_b64_dec_len(text->len) + 1;
	bytes = palloc(size);
	len = pg_b64_decode(text->text, text->len, (void *) bytes, size);
	if (len < 0)
		fail(reader, "\"$binary\" in the headers is not valid base64.");
	*value = (RabbitValue) {.kind = VALUE_BINARY, .text = bytes, .len = Max(len, 0)};
}

static void
read_object(JsonReader *reader, RabbitValue *value)
{
	RabbitTable *table = rabbit_table_create();
	RabbitField *only = table->fields;

	value->kind = VALUE_TABLE;
	value->table = table;
	read_members(reader, table);
	if (reader->problem != NULL || table->count != 1)
		return;
	if (strcmp(only->name, "$binary") == 0)
		decode_binary(reader, &only->value, value);
	else if (strcmp(only->name, "$timestamp") == 0)
	{
		if (only->value.kind != VALUE_INTEGER || only->value.integer < 0)
			fail(reader, "\"$timestamp\" in the headers must be whole seconds since 1970.");
		value->kind = VALUE_TIMESTAMP;
		value->integer = only->value.integer;
	}
}

/* Blanks before it are gone; takes those after it, too. */
static void
read_value(JsonReader *reader, RabbitValue *value)
{
	check_stack_depth();
	if (reader->problem != NULL)
		return;
	if (accept(reader, '{'))
		read_object(reader, value);
	else if (accept(reader, '['))
		read_array(reader, value);
	else if (*reader->at == '"')
	{
		value->kind = VALUE_STRING;
		value->text = read_string(reader, &value->len);
	}
	else if (accept_word(reader, "true"))
		*value = (RabbitValue) {.kind = VALUE_BOOLEAN, .boolean = true};
	else if (accept_word(reader, "false"))
		*value = (RabbitValue) {.kind = VALUE_BOOLEAN, .boolean = false};
	else if (accept_word(reader, "null"))
		value->kind = VALUE_NULL;
	else
		read_number(reader, value);
	reader->at += strspn(reader->at, " ");
}

/*
 * Adds the members of a JSON object (UTF-8) to a table.  NULL, or what is wrong
 * with them, as a full sentence.
 */
const char *
rabbit_headers_read(RabbitTable *table, const char *json)
{
	JsonReader	reader = {json, NULL};

	expect(&reader, '{');
	if (reader.problem == NULL)
		read_members(&reader, table);
	if (reader.problem == NULL && *reader.at != '\0')
		fail(&reader, "The headers are not the JSON that they should be.");
	return reader.problem;
}
