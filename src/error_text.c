/*-------------------------------------------------------------------------
 *
 * error_text.c
 *	  What somebody else said went wrong, made fit to be kept and logged.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "error_text.h"

/*
 * A broker may say anything: bytes of any encoding, line breaks that forge log
 * lines, megabytes.
 */
void
error_text_copy(char *target, Size size, const char *text)
{
	Size		length = Min(strlen(text), size - 1);

	memcpy(target, text, length);
	target[length] = '\0';
	for (char *p = target; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f ||
			(IS_HIGHBIT_SET(*p) && GetDatabaseEncoding() != PG_UTF8))
			*p = '?';
	if (GetDatabaseEncoding() == PG_UTF8)
	{
		char	   *p = target;

		while (*p != '\0')
		{
			int			n = pg_utf_mblen((unsigned char *) p);

			if (n > (int) strlen(p) || !pg_utf8_islegal((unsigned char *) p, n))
				*p++ = '?';
			else
				p += n;
		}
	}
}
