/*-------------------------------------------------------------------------
 *
 * json.h
 *	  Writing JSON, in the encoding of the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_JSON_H
#define DISPATCH_JSON_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

/*
 * A number of a few bytes may have a hundred thousand digits: a small document
 * can be a text that no memory holds.  Where there is no room for more, nothing
 * is appended any more, and the text is cut.
 */
extern bool json_make_room(StringInfo out, size_t len);

/* StringInfos leave their cursor to their users. */
static inline bool
json_is_cut(const StringInfoData *out)
{
	return out->cursor != 0;
}

/*
 * Appends bytes as they are.  Unlike appendBinaryStringInfo() this is inlined
 * and leaves the terminator to the caller, for the many short pieces that JSON
 * is made of.
 */
static inline void
json_append_raw(StringInfo out, const char *text, size_t len)
{
	if (unlikely(out->len + len >= (size_t) out->maxlen) && !json_make_room(out, len))
		return;
	memcpy(out->data + out->len, text, len);
	out->len += (int) len;
}

#define JSON_APPEND_LITERAL(out, text) \
	json_append_raw((out), "" text "", sizeof(text) - 1)

/* Ends what was appended: StringInfos are terminated. */
static inline void
json_finish(StringInfo out)
{
	out->data[out->len] = '\0';
}

/* Appends a text as a JSON string, quotes included; not terminated. */
extern void json_append_string(StringInfo out, const char *text, size_t len);

/*
 * Appends a document just as a cast from jsonb to text writes it; not
 * terminated.
 */
extern void json_append(StringInfo out, const Jsonb *document);

/*
 * Do the long numbers of a document take no more than so many bytes as text?
 * Others are not looked at: their texts are in proportion to the document.
 */
extern bool json_numbers_fit(const Jsonb *document, size_t max_bytes);

/*
 * The text of a scalar: a string as it is, unquoted; NULL for JSON null.
 * Allocated in the current memory context.
 */
extern char *json_scalar_text(const JsonbValue *scalar);

/*
 * For building a document: pushes a text, a member that is one, and all
 * members of an object but for nulls.  Of members that were pushed twice, the
 * last one stays.
 */
extern void json_push_text(JsonbParseState **state, JsonbIteratorToken token, const char *text);
extern void json_push_member(JsonbParseState **state, const char *name, const char *text);
extern void json_push_members(JsonbParseState **state, const JsonbContainer *object);

#endif							/* DISPATCH_JSON_H */
