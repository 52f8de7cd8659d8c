/*-------------------------------------------------------------------------
 *
 * utf8.h
 *	  Texts of users: to the encoding of the wire and back, and into errors.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_UTF8_H
#define DISPATCH_UTF8_H

/*
 * Makes UTF-8 of *text, which is in the encoding of the database, has *len
 * bytes and is terminated.  It stays where it is if nothing needs to change,
 * else a copy in the current memory context takes its place.  False, with
 * *error set to a full sentence, when it has characters that UTF-8 lacks.
 * Needs a transaction, unless the database is UTF-8.
 */
extern bool utf8_convert(const char **text, size_t *len, const char **error);

/*
 * The other way round: UTF-8 text that is terminated, in the encoding of the
 * database.  NULL when it has characters that encoding lacks.  Needs the same.
 */
extern const char *utf8_to_database(const char *text, size_t len);

/* Are these bytes UTF-8 text, without a zero byte? */
extern bool utf8_is_text(const char *bytes, size_t len);

/* How many bytes of a user's text to repeat in an error: whole characters. */
extern int	text_clip(const char *text, size_t len);

#endif							/* DISPATCH_UTF8_H */
