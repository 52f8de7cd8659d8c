/*-------------------------------------------------------------------------
 *
 * utf8.c
 *	  Texts of users: to the encoding of the wire, and into errors.
 *
 * The server's own pg_server_to_any() raises an error for what it cannot
 * convert.  Here that is a value: an event that has no UTF-8 form is one
 * event's failure and must not stop the stream.
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

/* The copy is an exact one: messages wait in memory by the thousand. */
static bool
convert(const char **text, size_t *len, Oid procedure, const char **error)
{
	Size		size = (Size) *len * MAX_CONVERSION_GROWTH + 1;
	unsigned char *buffer = MemoryContextAllocHuge(CurrentMemoryContext, size);
	bool		ok;

	ok = pg_do_encoding_conversion_buf(procedure, GetDatabaseEncoding(), PG_UTF8,
									   (unsigned char *) unconstify(char *, *text), (int) *len,
									   buffer, (int) size, true) == (int) *len;
	if (ok)
	{
		*text = pstrdup((char *) buffer);
		*len = strlen(*text);
	}
	pfree(buffer);
	return ok || fail(error);
}

bool
utf8_convert(const char **text, size_t *len, const char **error)
{
	int			encoding = GetDatabaseEncoding();
	Oid			procedure;

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

	Assert(IsTransactionState());
	procedure = FindDefaultConversionProc(encoding, PG_UTF8);
	if (!OidIsValid(procedure))
		return fail(error);
	return convert(text, len, procedure, error);
}
