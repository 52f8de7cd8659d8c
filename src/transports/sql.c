/*-------------------------------------------------------------------------
 *
 * sql.c
 *	  The transport "sql": a function of the user's, in any language.
 *
 * The function gets a batch of events, and returns those that it could not
 * deliver; the others are delivered when its transaction has committed.  It
 * runs in the worker, but with the rights of the backend's owner and under the
 * restrictions of a security-restricted operation, for the worker itself is
 * a superuser.  When it raises an error the events are tried one at a time, so
 * that only the culprit has failed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parse_type.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

#include "compat.h"
#include "options.h"
#include "session.h"
#include "transport.h"
#include "utf8.h"

/* Given to the function at once. */
#define CHUNK_MAX 1000

enum
{
	OPTION_FUNCTION,
	OPTION_TIMEOUT
};

static const DispatchOption options[] = {
	{"function", DISPATCH_FUNCTION, DISPATCH_OF_BACKEND | DISPATCH_REQUIRED, NULL,
	0, 0, NULL, "function(dispatch.event[]) returning setof dispatch.failure"},
	{"timeout", DISPATCH_NUMBER, DISPATCH_OF_BACKEND, "60",
	0.001, 86400, NULL, "seconds that a call of the function may take"},
	{0}
};

typedef struct Failure
{
	DispatchMessage *message;
	bool		permanent;
	const char *error;
} Failure;

typedef struct SqlConnection
{
	DispatchHost *host;
	const char *function;
	int			timeout_ms;
	int			singly;			/* so many messages are to go one at a time */
	int			count;
	DispatchMessage *messages[CHUNK_MAX];
	int			nunfit;
	DispatchMessage *unfit[CHUNK_MAX];	/* taken out of those: not to be given */
	MemoryContext context;		/* of one call */
	List	   *failures;		/* of Failure, that it returned */
	bool		is_called;		/* the function has begun */
} SqlConnection;

/* ------------------------------------------------------------------------
 * The function
 * ------------------------------------------------------------------------
 */

static Oid
type_named(const char *name)
{
	Oid			type;
	int32		typmod;

	parseTypeString(name, &type, &typmod, 0);	/* errors, by 15 as by 16 */
	return type;
}

/* What is wrong with the function; NULL: nothing. */
static const char *
function_complaint(Oid function)
{
	HeapTuple	row = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	const char *complaint = NULL;
	Form_pg_proc proc;

	if (!HeapTupleIsValid(row))
		return "The function does not exist.";
	proc = (Form_pg_proc) GETSTRUCT(row);
	if (proc->prokind != PROKIND_FUNCTION || proc->pronargs != 1 ||
		proc->proargtypes.values[0] != type_named("dispatch.event[]"))
		complaint = "The function must take one argument, of type dispatch.event[].";
	else if (!proc->proretset || proc->prorettype != type_named("dispatch.failure"))
		complaint = "The function must return setof dispatch.failure.";
	ReleaseSysCache(row);
	return complaint;
}

static const char *
sql_check(const DispatchValue *values)
{
	return function_complaint(options_function(values[OPTION_FUNCTION].text));
}

/* ------------------------------------------------------------------------
 * Calling it
 * ------------------------------------------------------------------------
 */

/*
 * Takes out what the encoding of the database has no characters for.  Only a
 * body can be that: all else was made of texts that are in this encoding.
 */
static void
take_out_unfit(SqlConnection *connection)
{
	int			count = connection->count;

	connection->count = connection->nunfit = 0;
	for (int i = 0; i < count; i++)
	{
		DispatchMessage *message = connection->messages[i];

		if (message->body == NULL || utf8_to_database(message->body, message->body_len) != NULL)
			connection->messages[connection->count++] = message;
		else
			connection->unfit[connection->nunfit++] = message;
	}
}

static Datum
text_datum(const char *utf8, size_t len, bool *isnull)
{
	*isnull = utf8 == NULL;
	if (utf8 == NULL)
		return (Datum) 0;
	return CStringGetTextDatum(pg_any_to_server(utf8, (int) len, PG_UTF8));
}

static Datum
event_datum(const DispatchMessage *message, TupleDesc desc)
{
	Datum		values[7];
	bool		nulls[7] = {0};

	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(message->event_id));
	values[1] = text_datum(message->event_type, strlen(message->event_type), &nulls[1]);
	values[2] = text_datum(message->source, strlen(message->source), &nulls[2]);
	values[3] = text_datum(message->subject, message->subject ? strlen(message->subject) : 0,
						   &nulls[3]);
	values[4] = text_datum(message->key, message->key ? strlen(message->key) : 0, &nulls[4]);
	values[5] = DirectFunctionCall3(timestamptz_in, CStringGetDatum(message->time),
									ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	values[6] = text_datum(message->body, message->body_len, &nulls[6]);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}

static Datum
events_datum(const SqlConnection *connection)
{
	Oid			type = type_named("dispatch.event");
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(type, -1);
	Datum	   *events = palloc_array(Datum, connection->count);

	for (int i = 0; i < connection->count; i++)
		events[i] = event_datum(connection->messages[i], BlessTupleDesc(desc));
	return PointerGetDatum(construct_array(events, connection->count, type, -1, false,
										   TYPALIGN_DOUBLE));
}

static DispatchMessage *
message_of(const SqlConnection *connection, const char *event_id)
{
	for (int i = 0; i < connection->count; i++)
		if (strcmp(connection->messages[i]->event_id, event_id) == 0)
			return connection->messages[i];
	ereport(ERROR,
			(errcode(ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION),
			 errmsg("function %s returned an event that it was not given: %s",
					connection->function, event_id)));
}

/* Keeps what the function returned. */
static void
read_failures(SqlConnection *connection)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		char	   *event_id = SPI_getvalue(row, SPI_tuptable->tupdesc, 1);
		char	   *error = SPI_getvalue(row, SPI_tuptable->tupdesc, 2);
		char	   *permanent = SPI_getvalue(row, SPI_tuptable->tupdesc, 3);
		MemoryContext old = MemoryContextSwitchTo(connection->context);
		Failure    *failure = palloc_object(Failure);

		failure->message = message_of(connection, event_id ? event_id : "NULL");
		failure->permanent = permanent != NULL && permanent[0] == 't';
		failure->error = pstrdup(error ? error : "the function gave no reason");
		connection->failures = lappend(connection->failures, failure);
		MemoryContextSwitchTo(old);
	}
}

/* The function's name, for a query. */
static char *
qualified_name(Oid function)
{
	return quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
									  get_func_name(function));
}

/*
 * Runs as the owner from here to the end of the step, which is the end of the
 * transaction.
 */
static void
become_owner(Oid owner)
{
	int			context;
	Oid			user;

	if (superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of an \"sql\" backend must not be a superuser")));
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	/* What is good for our own short steps is not for somebody's function. */
	(void) set_config_option("lock_timeout", "0", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

static void
call_function(void *arg)
{
	SqlConnection *connection = arg;
	Oid			function;
	Oid			owner;
	Oid			argtype = type_named("dispatch.event[]");
	const char *complaint;
	Datum		events;
	Oid			user;
	int			context;
	int			nest_level;

	take_out_unfit(connection);
	if (connection->count == 0)
		return;
	function = options_function(connection->function);
	owner = get_role_oid(connection->host->owner, false);
	complaint = function_complaint(function);
	if (complaint != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				 errmsg("function %s cannot be a transport: %s", connection->function, complaint)));
	if (object_aclcheck(ProcedureRelationId, function, owner, ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\", the owner of the backend, may not execute function %s",
						connection->host->owner, connection->function)));
	events = events_datum(connection);

	GetUserIdAndSecContext(&user, &context);
	nest_level = NewGUCNestLevel();
	become_owner(owner);
	connection->is_called = true;
	SPI_connect();
	SPI_execute_with_args(psprintf("SELECT f.event_id, f.error, f.permanent FROM %s($1) AS f",
								   qualified_name(function)),
						  1, &argtype, &events, NULL, false, 0);
	read_failures(connection);
	SPI_finish();
	AtEOXact_GUC(false, nest_level);
	SetUserIdAndSecContext(user, context);
}

/* ------------------------------------------------------------------------
 * The transport
 * ------------------------------------------------------------------------
 */

static void *
sql_open(DispatchHost *host, const DispatchValue *values)
{
	SqlConnection *connection = MemoryContextAllocZero(host->context, sizeof(SqlConnection));

	connection->host = host;
	connection->function = values[OPTION_FUNCTION].text;
	connection->timeout_ms = (int) (values[OPTION_TIMEOUT].number * 1000);
	connection->context = AllocSetContextCreate(host->context, "dispatch sql call",
												ALLOCSET_DEFAULT_SIZES);
	return connection;
}

static bool
sql_send(void *arg, DispatchMessage *message)
{
	SqlConnection *connection = arg;
	DispatchHost *host = connection->host;

	if (connection->count == (connection->singly > 0 ? 1 : CHUNK_MAX))
		return false;
	if (message->body != NULL && !utf8_is_text(message->body, message->body_len))
		host->failed(host, message, DISPATCH_EVENT_REJECTED,
					 "the event is binary, which the body of dispatch.event cannot be");
	else
		connection->messages[connection->count++] = message;
	return true;
}

/* No outcome: they are to be sent again. */
static void
return_chunk(SqlConnection *connection)
{
	DispatchHost *host = connection->host;

	for (int i = 0; i < connection->count; i++)
		host->returned(host, connection->messages[i]);
	connection->count = 0;
}

/* The call has failed as a whole. */
static void
fail_chunk(SqlConnection *connection, const char *error)
{
	DispatchHost *host = connection->host;

	if (connection->count == 1)
	{
		connection->count = 0;
		host->failed(host, connection->messages[0], DISPATCH_EVENT_FAILED, error);
	}
	else
	{
		connection->singly = connection->count;
		return_chunk(connection);
	}
}

static Failure *
failure_of(const SqlConnection *connection, const DispatchMessage *message)
{
	ListCell   *lc;

	foreach(lc, connection->failures)
		if (((Failure *) lfirst(lc))->message == message)
			return lfirst(lc);
	return NULL;
}

static void
settle_chunk(SqlConnection *connection)
{
	DispatchHost *host = connection->host;
	int			count = connection->count;

	connection->count = 0;
	for (int i = 0; i < count; i++)
	{
		Failure    *failure = failure_of(connection, connection->messages[i]);

		if (failure == NULL)
			host->delivered(host, connection->messages[i]);
		else
			host->failed(host, connection->messages[i],
						 failure->permanent ? DISPATCH_EVENT_REJECTED : DISPATCH_EVENT_FAILED,
						 failure->error);
	}
}

/*
 * Is it the fault of no event: a deadlock, a lock, a full disk, a shutdown?
 * (A cancelled statement is: it took longer than its timeout.)
 */
static bool
is_servers_fault(int sqlstate)
{
	int			category = ERRCODE_TO_CATEGORY(sqlstate);

	return category == ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR) ||
		sqlstate == ERRCODE_LOCK_NOT_AVAILABLE ||
		sqlstate == ERRCODE_ADMIN_SHUTDOWN;
}

static DispatchState
sql_pump(void *arg, DispatchWait *wait)
{
	SqlConnection *connection = arg;
	const char *error;
	StepResult	result;

	if (connection->count == 0)
		return DISPATCH_READY;
	if (session_stop_requested())
	{
		/* Another worker calls the function, which may take long. */
		return_chunk(connection);
		return DISPATCH_READY;
	}
	if (connection->singly > 0)
		connection->singly--;

	MemoryContextReset(connection->context);
	connection->failures = NIL;
	connection->is_called = false;
	connection->nunfit = 0;
	session_enter_users_code();
	enable_timeout_after(STATEMENT_TIMEOUT, connection->timeout_ms);
	result = session_run(call_function, connection, &error);
	disable_timeout(STATEMENT_TIMEOUT, false);
	/* Its session would end; ours does not, nor would its advisory locks. */
	LockReleaseSession(USER_LOCKMETHOD);
	session_leave_users_code();

	for (int i = 0; i < connection->nunfit; i++)
		connection->host->failed(connection->host, connection->unfit[i], DISPATCH_EVENT_REJECTED,
								 "the event has characters that the encoding of the database lacks");
	if (result == STEP_DONE)
		settle_chunk(connection);
	else if (session_stop_requested())
		return_chunk(connection);	/* it was cancelled, which is no event's fault */
	else if (result == STEP_ERROR && !connection->is_called)
	{
		/* The backend is at fault, not its events. */
		connection->host->explain(connection->host, DISPATCH_CONFIGURATION, error);
		return DISPATCH_LOST;
	}
	else if (result == STEP_ERROR && is_servers_fault(session_sqlstate()))
	{
		connection->host->explain(connection->host, DISPATCH_BACKPRESSURE, error);
		return DISPATCH_LOST;
	}
	else
		fail_chunk(connection, error);
	return DISPATCH_READY;
}

static const DispatchTransport transport = {
	.version = DISPATCH_TRANSPORT_VERSION,
	.name = "sql",
	.description = "a function in the database",
	.options = options,
	.check = sql_check,
	.open = sql_open,
	.send = sql_send,
	.pump = sql_pump,
};

const DispatchTransport *
sql_transport(void)
{
	return &transport;
}
