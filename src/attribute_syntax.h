/*-------------------------------------------------------------------------
 *
 * attribute_syntax.h
 *	  How values of CloudEvents attributes are written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_ATTRIBUTE_SYNTAX_H
#define DISPATCH_ATTRIBUTE_SYNTAX_H

/*
 * A CloudEvents String: no control characters (U+0000-001F, U+007F-009F), and
 * no noncharacters.  In a database that is not UTF-8, only ASCII is looked at.
 */
extern bool syntax_is_string(const char *text);

/*
 * RFC 3986: the characters that may stand in a URI, each % before two hex
 * digits, at most one #, and a well-formed scheme where there is one.  What
 * the scheme demands of the rest is not looked at.
 */
extern bool syntax_is_uri_reference(const char *text);
/* The same with a scheme; a fragment is taken, too. */
extern bool syntax_is_uri(const char *text);

/* RFC 3339, with an offset or Z; any number of digits of a second. */
extern bool syntax_is_timestamp(const char *text);

/* RFC 2046: type "/" subtype, and parameters. */
extern bool syntax_is_media_type(const char *text);

/* Does a media type declare JSON: a subtype of json, or one that ends in +json? */
extern bool media_type_is_json(const char *text);

#endif							/* DISPATCH_ATTRIBUTE_SYNTAX_H */
