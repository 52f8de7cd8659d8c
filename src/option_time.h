/*-------------------------------------------------------------------------
 *
 * option_time.h
 *	  Spans and points of time in options.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_OPTION_TIME_H
#define DISPATCH_OPTION_TIME_H

/*
 * A point in time, as RFC 3339 and a cast of timestamptz to text write it, in
 * milliseconds since 1970.  False if the text is none.
 */
extern bool option_time_read_moment(const char *text, int64 *ms);

/* A number of seconds, or an interval.  False if the text is neither. */
extern bool option_time_read_span(const char *text, double *seconds);

#endif							/* DISPATCH_OPTION_TIME_H */
