/*-------------------------------------------------------------------------
 *
 * utf8.c
 *	  Texts of users: to the encoding of the wire and back, and into errors.
 *
 * The server's own pg_server_to_any() and pg_any_to_server() raise an error for
 * what they cannot convert.  Here that is a value: an event that has no form in
 * the other encoding is one event's failure and must not stop the stream.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "catalog/namespace.h"
#include "common/string.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"

#include "utf8.h"

#define SHOWN_LENGTH 64

int
text_clip(const char *text, size_t len)
{
	return pg_mbcliplen(text, (int) len, SHOWN_LENGTH);
}

bool
utf8_is_text(const char *bytes, size_t len)
{
	return pg_verify_mbstr(PG_UTF8, bytes, (int) len, true);
}

static bool
fail(const char **error)
{
	*error = psprintf("It has a character that cannot be converted from encoding \"%s\" to \"UTF8\".",
					  GetDatabaseEncodingName());
	return false;
}

/*
 * A copy in another encoding; NULL if that cannot be.  It is an exact one:
 * messages wait in memory by the thousand.
 */
static char *
convert(const char *text, size_t len, int from, int to)
{
	Oid			procedure;
	Size		size = (Size) len * MAX_CONVERSION_GROWTH + 1;
	unsigned char *buffer;
	char	   *converted = NULL;

	Assert(IsTransactionState());
	procedure = FindDefaultConversionProc(from, to);
	if (!OidIsValid(procedure))
		return NULL;
	buffer = MemoryContextAllocHuge(CurrentMemoryContext, size);
	if (pg_do_encoding_conversion_buf(procedure, from, to,
									  (unsigned char *) unconstify(char *, text), (int) len,
									  buffer, (int) size, true) == (int) len)
		converted = pstrdup((char *) buffer);
	pfree(buffer);
	return converted;
}

bool
utf8_convert(const char **text, size_t *len, const char **error)
{
	int			encoding = GetDatabaseEncoding();
	char	   *converted;

	if (encoding == PG_UTF8 || pg_is_ascii(*text))
		return true;

	if (*len > (INT_MAX - 1) / MAX_CONVERSION_GROWTH)
	{
		*error = "It is too long to be converted to encoding \"UTF8\".";
		return false;
	}

	/* The bytes of such a database are what clients sent: perhaps UTF-8. */
	if (encoding == PG_SQL_ASCII)
		return utf8_is_text(*text, *len) || fail(error);

	converted = convert(*text, *len, encoding, PG_UTF8);
	if (converted == NULL)
		return fail(error);
	*text = converted;
	*len = strlen(converted);
	return true;
}

const char *
utf8_to_database(const char *text, size_t len)
{
	int			encoding = GetDatabaseEncoding();

	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII || pg_is_ascii(text))
		return text;
	if (len > (INT_MAX - 1) / MAX_CONVERSION_GROWTH)
		return NULL;
	return convert(text, len, PG_UTF8, encoding);
}
