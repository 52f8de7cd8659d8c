/*-------------------------------------------------------------------------
 *
 * backend_row.c
 *	  Triggers of dispatch.backends: its rows are checked and completed.
 *
 * The functions that configure backends are plain INSERTs and UPDATEs of the
 * table; all rules are here, so that they hold for whoever writes it.
 *
 * Rows that have an identity, as a restored dump has them, are taken as they
 * are: secrets are in no dump, transports may be missing, and COPY takes all
 * rows or none.  Nothing is sent for them before dispatch.adopt(), also if the
 * dump is of this very database: how far they are settled is yet to be loaded.
 * From then on the worker checks what it reads.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "backends.h"
#include "catalog.h"
#include "exceptions.h"
#include "options.h"
#include "position.h"
#include "schedule.h"
#include "transport.h"

PG_FUNCTION_INFO_V1(dispatch_check_backend_row);

/* A row that is about to be written. */
typedef struct NewRow
{
	TupleDesc	desc;
	HeapTuple	tuple;
} NewRow;

static Datum
get_column(HeapTuple row, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = heap_getattr(row, column, desc, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("column \"%s\" of dispatch.backends must not be null",
						NameStr(TupleDescAttr(desc, column - 1)->attname))));
	return value;
}

static char *
get_text(HeapTuple row, TupleDesc desc, int column)
{
	return TextDatumGetCString(get_column(row, desc, column));
}

static bool
get_bool(HeapTuple row, TupleDesc desc, int column)
{
	return DatumGetBool(get_column(row, desc, column));
}

static int32
get_id(HeapTuple row, TupleDesc desc)
{
	return DatumGetInt32(get_column(row, desc, BACKENDS_ID));
}

static char *
get_owner(HeapTuple row, TupleDesc desc)
{
	return NameStr(*DatumGetName(get_column(row, desc, BACKENDS_OWNER)));
}

static bool
is_changed(HeapTuple before, const NewRow *row, int column)
{
	Form_pg_attribute attribute = TupleDescAttr(row->desc, column - 1);

	return !datum_image_eq(get_column(before, row->desc, column),
						   get_column(row->tuple, row->desc, column),
						   attribute->attbyval, attribute->attlen);
}

static void
set_column(NewRow *row, int column, Datum value)
{
	bool		isnull = false;

	row->tuple = heap_modify_tuple_by_cols(row->tuple, row->desc, 1, &column, &value, &isnull);
}

/* ------------------------------------------------------------------------
 * Queries
 * ------------------------------------------------------------------------
 */

static Oid
owner_of_our_tables(void)
{
	Relation	rel = table_open(catalog_get()->backends, AccessShareLock);
	Oid			owner = rel->rd_rel->relowner;

	table_close(rel, AccessShareLock);
	return owner;
}

/*
 * Runs a statement on behalf of the owner of our tables: whoever may configure
 * backends need not be able to read the secrets.
 */
static void
run_as_owner(const char *statement, int nargs, Oid *argtypes, Datum *args)
{
	Oid			owner = owner_of_our_tables();
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_execute_with_args(statement, nargs, argtypes, args, NULL, false, 0);
	SetUserIdAndSecContext(user, context);
}

static bool
name_is_taken(const char *name)
{
	Oid			argtype = TEXTOID;
	Datum		arg = CStringGetTextDatum(name);

	run_as_owner("SELECT 1 FROM dispatch.backends WHERE name OPERATOR(pg_catalog.=) $1"
				 " AND NOT dropping", 1, &argtype, &arg);
	return SPI_processed > 0;
}

static int32
next_id(void)
{
	bool		isnull;

	run_as_owner("SELECT pg_catalog.nextval('dispatch.backend_id_seq')::pg_catalog.int4",
				 0, NULL, NULL);
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

static void
store_secrets(int32 id, const Jsonb *secrets)
{
	Oid			argtypes[] = {INT4OID, JSONBOID};
	Datum		args[] = {Int32GetDatum(id), JsonbPGetDatum(secrets)};

	run_as_owner("INSERT INTO dispatch.backend_secrets AS s (backend_id, options) VALUES ($1, $2)"
				 " ON CONFLICT (backend_id) DO UPDATE"
				 " SET options = s.options OPERATOR(pg_catalog.||) excluded.options",
				 2, argtypes, args);
}

/* Secrets of options that are not set any more must not linger. */
static void
forget_unset_secrets(int32 id, const Jsonb *options)
{
	Oid			argtypes[] = {INT4OID, JSONBOID};
	Datum		args[] = {Int32GetDatum(id), JsonbPGetDatum(options)};

	run_as_owner("UPDATE dispatch.backend_secrets AS s SET options ="
				 " s.options OPERATOR(pg_catalog.-) ARRAY("
				 "  SELECT k FROM pg_catalog.jsonb_object_keys(s.options) AS k"
				 "  WHERE NOT ($2 OPERATOR(pg_catalog.?) k))"
				 " WHERE s.backend_id OPERATOR(pg_catalog.=) $1",
				 2, argtypes, args);
}

static Jsonb *
stored_secrets(int32 id)
{
	Oid			argtype = INT4OID;
	Datum		arg = Int32GetDatum(id);
	Datum		secrets;
	bool		isnull;

	run_as_owner("SELECT options FROM dispatch.backend_secrets"
				 " WHERE backend_id OPERATOR(pg_catalog.=) $1", 1, &argtype, &arg);
	if (SPI_processed == 0)
		return NULL;
	secrets = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return DatumGetJsonbPCopy(secrets);
}

static bool
has_undelivered(int32 id)
{
	Oid			user;
	int			context;
	Position	position;
	TimestampTz oldest;
	bool		found;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(owner_of_our_tables(),
						   context | SECURITY_LOCAL_USERID_CHANGE);
	PushActiveSnapshot(GetLatestSnapshot());
	position_current(id, &position);
	found = position_count_pending(id, &position, 1, &oldest) > 0 ||
		exceptions_count_open(id) > 0 || schedule_count(id) > 0;
	PopActiveSnapshot();
	SetUserIdAndSecContext(user, context);
	return found;
}

/* ------------------------------------------------------------------------
 * Rules
 * ------------------------------------------------------------------------
 */

static void
check_name(const char *name)
{
	bool		printable = true;

	for (const char *p = name; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			printable = false;
	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN || !printable)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of a backend"),
				 errdetail("It must have between 1 and %d bytes, and no control characters.",
						   NAMEDATALEN - 1)));
	if (name_is_taken(name))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("backend \"%s\" already exists", name),
				 errhint("Change it with dispatch.alter_backend().")));
}

/*
 * The function of an "sql" backend runs as the backend's owner: nobody may make
 * it run as somebody else, nor as one who can do everything.
 */
static void
check_owner(const char *owner, const char *transport)
{
	Oid			role = get_role_oid(owner, false);

	if (!member_can_set_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be able to SET ROLE \"%s\", the owner of the backend", owner)));
	if (strcmp(transport, "sql") == 0 && superuser_arg(role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the owner of an \"sql\" backend must not be a superuser"),
				 errdetail("Its function runs with the rights of the owner, \"%s\".", owner),
				 errhint("Create it as an ordinary role, or name one: INSERT INTO dispatch.backends (name, transport, options, owner) ...")));
}

/* An option that is null is not set. */
static Jsonb *
without_nulls(Jsonb *options)
{
	Oid			argtype = JSONBOID;
	Datum		arg = JsonbPGetDatum(options);
	bool		isnull;
	Datum		kept;

	SPI_execute_with_args("SELECT $1 OPERATOR(pg_catalog.-) ARRAY("
						  " SELECT o.key FROM pg_catalog.jsonb_each($1) AS o"
						  " WHERE pg_catalog.jsonb_typeof(o.value) OPERATOR(pg_catalog.=) 'null')",
						  1, &argtype, &arg, NULL, true, 1);
	kept = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	return DatumGetJsonbPCopy(kept);
}

/* Checks the options, and completes what follows from them. */
static void
check_options(NewRow *row)
{
	const DispatchTransport *transport =
		transport_find(get_text(row->tuple, row->desc, BACKENDS_TRANSPORT));
	OptionTable *table = options_table(transport);
	Jsonb	   *options = DatumGetJsonbP(get_column(row->tuple, row->desc, BACKENDS_OPTIONS));
	int32		id = get_id(row->tuple, row->desc);
	Jsonb	   *secrets;

	options_check(table, options, DISPATCH_OF_BACKEND);
	if (transport->check != NULL)
	{
		DispatchValue *values = palloc0_array(DispatchValue, table->nitems);
		const char *complaint;

		options_read(table, options_with_secrets(options, stored_secrets(id)),
					 DISPATCH_OF_BACKEND, values);
		complaint = transport->check(values);
		if (complaint != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("options of transport \"%s\" do not fit together", transport->name),
					 errdetail("%s", complaint)));
	}

	options = options_mask_secrets(table, without_nulls(options), &secrets);
	forget_unset_secrets(id, options);
	if (secrets != NULL)
		store_secrets(id, secrets);
	set_column(row, BACKENDS_OPTIONS, JsonbPGetDatum(options));
	set_column(row, BACKENDS_EVENT_OPTIONS, JsonbPGetDatum(options_event_spec(table)));
}

static void
check_insert(NewRow *row)
{
	char	   *identity = get_text(row->tuple, row->desc, BACKENDS_IDENTITY);
	bool		is_ours = strcmp(identity, backends_identity()) == 0;

	/* Restored: see the top of the file. */
	if (identity[0] != '\0' && has_privs_of_role(GetUserId(), owner_of_our_tables()))
	{
		if (is_ours)
			set_column(row, BACKENDS_IDENTITY,
					   CStringGetTextDatum(psprintf("restored in %s", identity)));
		return;
	}
	if (identity[0] != '\0' && !is_ours)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("only the owner of dispatch.backends can restore backends of another installation")));

	check_name(get_text(row->tuple, row->desc, BACKENDS_NAME));
	check_owner(get_owner(row->tuple, row->desc),
				get_text(row->tuple, row->desc, BACKENDS_TRANSPORT));
	/* What only who restores a dump may choose. */
	set_column(row, BACKENDS_ID, Int32GetDatum(next_id()));
	set_column(row, BACKENDS_IDENTITY, CStringGetTextDatum(backends_identity()));
	set_column(row, BACKENDS_DROPPING, BoolGetDatum(false));
	set_column(row, BACKENDS_FORCE_DROP, BoolGetDatum(false));
	check_options(row);
}

static void
refuse_change(const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("%s of a backend cannot be changed", what),
			 errhint("%s", hint)));
}

static void
check_drop(HeapTuple row, TupleDesc desc, bool force)
{
	if (force)
		return;
	/* Transaction numbers of another server do not tell what is undelivered. */
	if (strcmp(get_text(row, desc, BACKENDS_IDENTITY), backends_identity()) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("backend \"%s\" is not adopted, and may have undelivered events",
						get_text(row, desc, BACKENDS_NAME)),
				 errhint("Let this copy of the database deliver them with dispatch.adopt(), or give them up with dispatch.drop_backend(name, force => true).")));
	if (has_undelivered(get_id(row, desc)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("backend \"%s\" has undelivered events",
						get_text(row, desc, BACKENDS_NAME)),
				 errhint("Wait until they are delivered, or give them up with dispatch.drop_backend(name, force => true).")));
}

static void
check_update(HeapTuple before, NewRow *row)
{
	TupleDesc	desc = row->desc;
	char	   *name = get_text(row->tuple, desc, BACKENDS_NAME);
	char	   *transport = get_text(row->tuple, desc, BACKENDS_TRANSPORT);

	if (get_id(before, desc) != get_id(row->tuple, desc))
		refuse_change("id", "Events in the outbox refer to it.");
	if (strcmp(get_text(before, desc, BACKENDS_TRANSPORT), transport) != 0)
		refuse_change("transport", "Create another backend, and drop this one once it is drained.");
	if (backends_adopting)
		return;					/* the worker checks what it reads */
	if (strcmp(get_text(before, desc, BACKENDS_IDENTITY),
			   get_text(row->tuple, desc, BACKENDS_IDENTITY)) != 0)
		refuse_change("identity", "Call dispatch.adopt() to let this copy of the database deliver.");
	if (get_bool(before, desc, BACKENDS_DROPPING) && !get_bool(row->tuple, desc, BACKENDS_DROPPING))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("backend \"%s\" is being dropped", name)));

	if (get_bool(row->tuple, desc, BACKENDS_DROPPING))
	{
		bool		force = get_bool(row->tuple, desc, BACKENDS_FORCE_DROP);

		/* Nothing else about it may change any more: nothing else is checked. */
		check_drop(before, desc, force);
		row->tuple = before;
		set_column(row, BACKENDS_DROPPING, BoolGetDatum(true));
		set_column(row, BACKENDS_FORCE_DROP, BoolGetDatum(force));
		return;
	}
	if (strcmp(get_text(before, desc, BACKENDS_NAME), name) != 0)
		check_name(name);
	if (is_changed(before, row, BACKENDS_OWNER) || is_changed(before, row, BACKENDS_OPTIONS))
	{
		/* Or somebody could send the owner's password to a host of his own. */
		check_owner(get_owner(before, desc), transport);
		check_owner(get_owner(row->tuple, desc), transport);
		check_options(row);
	}
	else
		set_column(row, BACKENDS_EVENT_OPTIONS, get_column(before, desc, BACKENDS_EVENT_OPTIONS));
}

/*
 * A DELETE only marks the row: transactions that know the backend may still be
 * publishing to it.  The manager removes it when they are gone.
 */
static void
begin_drop(HeapTuple row, TupleDesc desc)
{
	Oid			argtype = INT4OID;
	Datum		arg = Int32GetDatum(get_id(row, desc));

	SPI_execute_with_args("UPDATE dispatch.backends SET dropping = true"
						  " WHERE id OPERATOR(pg_catalog.=) $1 AND NOT dropping",
						  1, &argtype, &arg, NULL, false, 0);
}

Datum
dispatch_check_backend_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	NewRow		row;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) !=
		TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("dispatch.check_backend_row() must be called by its trigger")));
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("dispatch.backends cannot be truncated"),
				 errhint("Drop backends with dispatch.drop_backend().")));
	if (backends_removing)
		return PointerGetDatum(trigger->tg_trigtuple);

	row.desc = RelationGetDescr(trigger->tg_relation);
	row.tuple = trigger->tg_trigtuple;
	SPI_connect();
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		check_insert(&row);
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		row.tuple = trigger->tg_newtuple;
		check_update(trigger->tg_trigtuple, &row);
	}
	else
	{
		begin_drop(trigger->tg_trigtuple, row.desc);
		row.tuple = NULL;
	}
	if (row.tuple != NULL)
		row.tuple = SPI_copytuple(row.tuple);
	SPI_finish();
	return PointerGetDatum(row.tuple);
}
