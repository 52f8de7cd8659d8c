/*-------------------------------------------------------------------------
 *
 * data_path.c
 *	  Dot paths into the data of an event: 'user.address.country'.
 *
 * A path walks through objects only, by exact key, so that it means the same
 * for every event: no index into arrays, and no way to write a dot of a key.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "data_path.h"

bool
data_path_is_valid(const char *path, size_t len)
{
	if (len == 0 || path[0] == '.' || path[len - 1] == '.')
		return false;
	for (size_t i = 0; i + 1 < len; i++)
		if (path[i] == '.' && path[i + 1] == '.')
			return false;
	return true;
}

/* "len" bytes of the path lead to the place that matters. */
static bool
no_field(const char **problem, const char *path, size_t len, const char *what,
		 const char *type)
{
	if (len == 0)
		*problem = psprintf("the data %s%s", what, type);
	else
		*problem = psprintf("\"%.*s\" in the data %s%s", (int) len, path, what, type);
	return false;
}

bool
data_path_find(const char *path, size_t len, Jsonb *data, JsonbValue *field,
			   const char **problem)
{
	const char *end = path + len;
	const char *name = path;
	JsonbContainer *container = &data->root;

	for (;;)
	{
		const char *dot = memchr(name, '.', end - name);
		const char *name_end = dot != NULL ? dot : end;
		size_t		walked = name_end - path;

		if (!JsonContainerIsObject(container))
			return no_field(problem, path, name == path ? 0 : name - 1 - path,
							"is not an object", "");
		if (getKeyJsonValueFromContainer(container, name, name_end - name, field) == NULL)
			return no_field(problem, path, walked, "is missing", "");
		if (dot == NULL && field->type == jbvBinary)
			return no_field(problem, path, walked, "is not a scalar but an ",
							JsonbTypeName(field));
		if (dot == NULL && field->type == jbvNull)
			return no_field(problem, path, walked, "is null", "");
		if (dot == NULL)
			return true;
		if (field->type != jbvBinary)
			return no_field(problem, path, walked, "is not an object but ",
							field->type == jbvNull ? "null" :
							psprintf("a %s", JsonbTypeName(field)));
		container = field->val.binary.data;
		name = dot + 1;
	}
}
