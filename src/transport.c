/*-------------------------------------------------------------------------
 *
 * transport.c
 *	  Finding transports: those of the core, and modules in $libdir.
 *
 * A transport is asked for by name, never by path, so that who may configure
 * a backend cannot have any other library loaded.  A module stays loaded, and
 * is checked once, when it is: nobody else need doubt what it returned.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#include "option_table.h"
#include "transport.h"

#define MODULE_PREFIX "dispatch_"
#define INIT_FUNCTION "dispatch_transport_init"
#define MAX_NAME_LENGTH 32

typedef struct BuiltinTransport
{
	const char *name;
	DispatchTransportInit init;
} BuiltinTransport;

static const BuiltinTransport builtins[] = {
	{"notify", notify_transport},
	{"sql", sql_transport},
};

/* What this process has found so far: DispatchTransport. */
static List *found_transports = NIL;

static bool
name_is_valid(const char *name)
{
	return option_name_is_valid(name) && strlen(name) <= MAX_NAME_LENGTH;
}

/* ------------------------------------------------------------------------
 * Listing
 * ------------------------------------------------------------------------
 */

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

static const BuiltinTransport *
find_builtin(const char *name)
{
	for (size_t i = 0; i < lengthof(builtins); i++)
		if (strcmp(builtins[i].name, name) == 0)
			return &builtins[i];
	return NULL;
}

/* The name of the transport in a file; NULL if that is not one. */
static char *
name_of_file(const char *file)
{
	size_t		prefix_len = strlen(MODULE_PREFIX);
	size_t		suffix_len = strlen(DLSUFFIX);
	size_t		len = strlen(file);
	char	   *name;

	if (len <= prefix_len + suffix_len ||
		strncmp(file, MODULE_PREFIX, prefix_len) != 0 ||
		strcmp(file + len - suffix_len, DLSUFFIX) != 0)
		return NULL;
	name = pnstrdup(file + prefix_len, len - prefix_len - suffix_len);
	return name_is_valid(name) && find_builtin(name) == NULL ? name : NULL;
}

List *
transport_names(void)
{
	List	   *names = NIL;
	DIR		   *directory = AllocateDir(pkglib_path);
	struct dirent *entry;

	for (size_t i = 0; i < lengthof(builtins); i++)
		names = lappend(names, pstrdup(builtins[i].name));

	/* A directory that cannot be read is logged, and hides no other error. */
	while ((entry = ReadDirExtended(directory, pkglib_path, LOG)) != NULL)
	{
		char	   *name = name_of_file(entry->d_name);

		if (name != NULL)
			names = lappend(names, name);
	}
	if (directory != NULL)
		FreeDir(directory);
	list_sort(names, compare_names);
	return names;
}

static char *
names_hint(void)
{
	StringInfoData hint;
	ListCell   *cell;

	initStringInfo(&hint);
	appendStringInfoString(&hint, "Available transports are: ");
	foreach(cell, transport_names())
		appendStringInfo(&hint, "%s%s", foreach_current_index(cell) > 0 ? ", " : "",
						 (char *) lfirst(cell));
	appendStringInfoChar(&hint, '.');
	return hint.data;
}

/* ------------------------------------------------------------------------
 * Loading
 * ------------------------------------------------------------------------
 */

/* Says so when a module is there but will not do. */
static void
require(bool condition, const char *name, const char *problem)
{
	if (!condition)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("transport \"%s\" is not valid", name),
				 errdetail_internal("%s", problem)));
}

/* The option that an event type's topic sets must be one that can take it. */
static bool
destination_is_valid(const DispatchTransport *transport, const OptionTable *table)
{
	if (transport->destination == NULL)
		return true;
	return table->destination >= 0 &&
		table->items[table->destination].type == DISPATCH_TEMPLATE &&
		(table->items[table->destination].flags & DISPATCH_OF_EVENT) != 0;
}

/* No field but the first means anything in another version. */
static void
check_transport(const DispatchTransport *transport, const char *name)
{
	require(transport != NULL, name, "Its " INIT_FUNCTION "() returned NULL.");
	if (transport->version != DISPATCH_TRANSPORT_VERSION)
		require(false, name,
				psprintf("It was built for version %u of the interface of transports, but this is version %d.",
						 transport->version, DISPATCH_TRANSPORT_VERSION));
	require(transport->name != NULL && strcmp(transport->name, name) == 0, name,
			"It goes by another name.");
	require(transport->description != NULL, name, "It has no description.");
	require(transport->open != NULL && transport->send != NULL && transport->pump != NULL,
			name, "It lacks one of the callbacks open, send and pump.");
	require(transport->options != NULL, name, "It has no table of options.");
	require(destination_is_valid(transport, options_table(transport)), name,
			"Its destination is not one of its options, or not a template that an event can set.");
}

static const DispatchTransport *
load_module(const char *name)
{
	char	   *path = psprintf("%s/" MODULE_PREFIX "%s" DLSUFFIX, pkglib_path, name);
	struct stat file;
	DispatchTransportInit init;

	if (stat(path, &file) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("transport \"%s\" is not available", name),
				 errdetail("Could not access its module \"%s\": %m.", path),
				 errhint("%s", names_hint())));

	init = (DispatchTransportInit) load_external_function(path, INIT_FUNCTION, false, NULL);
	require(init != NULL, name,
			psprintf("Its module \"%s\" has no function " INIT_FUNCTION "().", path));
	return init();
}

static const DispatchTransport *
load_transport(const char *name)
{
	const BuiltinTransport *builtin = find_builtin(name);
	const DispatchTransport *transport;
	MemoryContext old_context;

	transport = builtin != NULL ? builtin->init() : load_module(name);
	check_transport(transport, name);

	old_context = MemoryContextSwitchTo(TopMemoryContext);
	found_transports = lappend(found_transports, unconstify(DispatchTransport *, transport));
	MemoryContextSwitchTo(old_context);
	return transport;
}

static void
transport_context(void *arg)
{
	errcontext("loading transport \"%s\"", (const char *) arg);
}

const DispatchTransport *
transport_find(const char *name)
{
	ErrorContextCallback context;
	ListCell   *cell;
	const DispatchTransport *transport;

	foreach(cell, found_transports)
	{
		transport = lfirst(cell);
		if (strcmp(transport->name, name) == 0)
			return transport;
	}

	if (!name_is_valid(name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid transport name: \"%s\"", name),
				 errdetail("A name has up to %d lower-case letters, digits and underscores, and starts with a letter.",
						   MAX_NAME_LENGTH),
				 errhint("%s", names_hint())));

	context.previous = error_context_stack;
	context.callback = transport_context;
	context.arg = unconstify(char *, name);
	error_context_stack = &context;
	transport = load_transport(name);
	error_context_stack = context.previous;
	return transport;
}
