/*-------------------------------------------------------------------------
 *
 * option_time.c
 *	  Spans and points of time in options.
 *
 * An option is checked by the session that sets it and read by a worker, whose
 * settings differ: so a point in time must say its offset and have the one
 * form that no setting changes.  Nothing here raises errors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "utils/datetime.h"

#include "attribute_syntax.h"
#include "option_time.h"

/* Makes RFC 3339 of what timestamptz is as text: "2030-01-31 23:59:59+00". */
static char *
as_rfc3339(const char *text)
{
	size_t		len = strlen(text);
	char	   *copy = palloc(len + sizeof(":00"));

	strcpy(copy, text);
	if (len > 10 && copy[10] == ' ')
		copy[10] = 'T';
	if (len > 3 && (copy[len - 3] == '+' || copy[len - 3] == '-'))
		strcpy(copy + len, ":00");
	return copy;
}

bool
option_time_read_moment(const char *text, int64 *ms)
{
	int			year;
	int			month;
	int			day;
	int			hour;
	int			minute;
	double		second;
	int			len;
	int			offset_hours = 0;
	int			offset_minutes = 0;
	int64		minutes;

	text = as_rfc3339(text);
	if (!syntax_is_timestamp(text))
		return false;
	sscanf(text, "%4d-%2d-%2d%*c%2d:%2d:%lf%n",
		   &year, &month, &day, &hour, &minute, &second, &len);
	/* "Z" leaves it at 0 */
	sscanf(text + len + 1, "%2d:%2d", &offset_hours, &offset_minutes);

	minutes = ((date2j(year, month, day) - UNIX_EPOCH_JDATE) * INT64CONST(24) + hour) * 60 + minute;
	if (text[len] == '-')
		minutes += offset_hours * 60 + offset_minutes;
	else
		minutes -= offset_hours * 60 + offset_minutes;
	*ms = minutes * 60000 + (int64) (second * 1000);
	return true;
}

/* As the input function of interval does. */
static bool
decode_interval(const char *text, struct pg_itm_in *span)
{
	char		work[256];
	char	   *fields[MAXDATEFIELDS];
	int			types[MAXDATEFIELDS];
	int			nfields;
	int			kind;
	int			error;
	char	   *copy = pstrdup(text);

	memset(span, 0, sizeof(*span));
	error = ParseDateTime(text, work, sizeof(work), fields, types, MAXDATEFIELDS, &nfields);
	if (error == 0)
		error = DecodeInterval(fields, types, nfields, INTERVAL_FULL_RANGE, &kind, span);
	if (error == DTERR_BAD_FORMAT)
		error = DecodeISO8601Interval(copy, &kind, span);
	pfree(copy);
	return error == 0 && kind == DTK_DELTA;
}

bool
option_time_read_span(const char *text, double *seconds)
{
	struct pg_itm_in span;
	char	   *end;

	*seconds = strtod(text, &end);
	if (end != text && *end == '\0')
		return isfinite(*seconds);
	if (!decode_interval(text, &span))
		return false;
	/* as EXTRACT(epoch) counts */
	*seconds = span.tm_usec / (double) USECS_PER_SEC +
		(span.tm_mday + (double) DAYS_PER_MONTH * span.tm_mon) * SECS_PER_DAY +
		(double) SECS_PER_YEAR * span.tm_year;
	return true;
}
