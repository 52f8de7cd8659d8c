/*-------------------------------------------------------------------------
 *
 * attribute_syntax.c
 *	  How values of CloudEvents attributes are written.
 *
 * These are the rules of CloudEvents 1.0, section "Type System", and of the
 * RFCs that it names, as far as they can be told without knowing the world:
 * whether a URI leads anywhere is not our business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "mb/pg_wchar.h"

#include "attribute_syntax.h"

#define DIGITS "0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

#define SCHEME_CHARACTERS LETTERS DIGITS "+-."
#define URI_CHARACTERS LETTERS DIGITS "-._~:/?#[]@!$&'()*+,;=%"
#define TOKEN_CHARACTERS LETTERS DIGITS "!#$%&'*+-.^_`|~"

bool
syntax_is_string(const char *text)
{
	bool		is_utf8 = GetDatabaseEncoding() == PG_UTF8;

	for (const unsigned char *p = (const unsigned char *) text; *p != '\0'; p++)
	{
		pg_wchar	character;

		if (*p < ' ' || *p == 0x7f)
			return false;
		if (!is_utf8 || *p < 0x80)
			continue;
		character = utf8_to_unicode(p);
		if (character < 0xa0 || (character >= 0xfdd0 && character <= 0xfdef) ||
			(character & 0xfffe) == 0xfffe)
			return false;
		p += pg_utf_mblen(p) - 1;
	}
	return true;
}

/* ------------------------------------------------------------------------
 * URIs
 * ------------------------------------------------------------------------
 */

static bool
is_hex_digit(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* A colon in the first segment of a path can only end a scheme. */
static bool
scheme_is_valid(const char *text, bool required)
{
	size_t		len = strcspn(text, ":/?#");

	if (text[len] != ':')
		return !required;
	return len > 0 && strchr(LETTERS, text[0]) != NULL &&
		strspn(text, SCHEME_CHARACTERS) == len;
}

static bool
is_uri(const char *text, bool absolute)
{
	const char *fragment = strchr(text, '#');

	if (strspn(text, URI_CHARACTERS) != strlen(text))
		return false;
	for (const char *p = strchr(text, '%'); p != NULL; p = strchr(p + 1, '%'))
		if (!is_hex_digit(p[1]) || !is_hex_digit(p[2]))
			return false;
	if (fragment != NULL && strchr(fragment + 1, '#') != NULL)
		return false;
	return *text != '\0' && scheme_is_valid(text, absolute);
}

bool
syntax_is_uri_reference(const char *text)
{
	return is_uri(text, false);
}

bool
syntax_is_uri(const char *text)
{
	return is_uri(text, true);
}

/* ------------------------------------------------------------------------
 * Timestamps
 * ------------------------------------------------------------------------
 */

/* Reads exactly so many digits; -1 if they are not there. */
static int
read_digits(const char **p, int count)
{
	int			number = 0;

	for (int i = 0; i < count; i++, (*p)++)
	{
		if (**p < '0' || **p > '9')
			return -1;
		number = number * 10 + (**p - '0');
	}
	return number;
}

/* Reads one of these characters. */
static bool
read_one(const char **p, const char *characters)
{
	if (**p == '\0' || strchr(characters, **p) == NULL)
		return false;
	(*p)++;
	return true;
}

static int
days_of_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return days[month - 1] + (month == 2 && leap ? 1 : 0);
}

/* Reads two digits from 0 to "maximum". */
static bool
read_pair(const char **p, int maximum)
{
	int			number = read_digits(p, 2);

	return number >= 0 && number <= maximum;
}

static bool
read_date(const char **p)
{
	int			year = read_digits(p, 4);
	int			month;
	int			day;

	if (year < 0 || !read_one(p, "-"))
		return false;
	month = read_digits(p, 2);
	if (month < 1 || month > MONTHS_PER_YEAR || !read_one(p, "-"))
		return false;
	day = read_digits(p, 2);
	return day >= 1 && day <= days_of_month(year, month);
}

/* A minute may have a 61st second. */
static bool
read_time_of_day(const char **p)
{
	size_t		digits;

	if (!read_pair(p, 23) || !read_one(p, ":") || !read_pair(p, 59) ||
		!read_one(p, ":") || !read_pair(p, 60))
		return false;
	if (!read_one(p, "."))
		return true;
	digits = strspn(*p, DIGITS);
	*p += digits;
	return digits > 0;
}

static bool
read_offset(const char **p)
{
	if (read_one(p, "Zz"))
		return true;
	return read_one(p, "+-") && read_pair(p, 23) && read_one(p, ":") && read_pair(p, 59);
}

bool
syntax_is_timestamp(const char *text)
{
	return read_date(&text) && read_one(&text, "Tt") && read_time_of_day(&text) &&
		read_offset(&text) && *text == '\0';
}

/* ------------------------------------------------------------------------
 * Media types
 * ------------------------------------------------------------------------
 */

static bool
read_token(const char **p)
{
	size_t		len = strspn(*p, TOKEN_CHARACTERS);

	*p += len;
	return len > 0;
}

static bool
read_quoted(const char **p)
{
	if (!read_one(p, "\""))
		return false;
	while (**p != '"')
	{
		if (**p == '\\')
			(*p)++;
		if (**p == '\0')
			return false;
		(*p)++;
	}
	(*p)++;
	return true;
}

bool
syntax_is_media_type(const char *text)
{
	if (!syntax_is_string(text) || !read_token(&text) || !read_one(&text, "/") ||
		!read_token(&text))
		return false;
	for (;;)
	{
		text += strspn(text, " ");
		if (*text == '\0')
			return true;
		if (!read_one(&text, ";"))
			return false;
		text += strspn(text, " ");
		if (!read_token(&text) || !read_one(&text, "=") ||
			!(*text == '"' ? read_quoted(&text) : read_token(&text)))
			return false;
	}
}

bool
media_type_is_json(const char *text)
{
	size_t		len = strcspn(text, "; ");
	const char *slash = memchr(text, '/', len);

	if (slash != NULL && len - (slash + 1 - text) == 4 && pg_strncasecmp(slash + 1, "json", 4) == 0)
		return true;
	return len > 5 && pg_strncasecmp(text + len - 5, "+json", 5) == 0;
}
