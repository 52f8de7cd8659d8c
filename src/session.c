/*-------------------------------------------------------------------------
 *
 * session.c
 *	  How our background processes live: start, transactions, waiting, end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "catalog.h"
#include "session.h"
#include "steady.h"

/* How long (ms) code of users may go on when it was cancelled by SIGTERM. */
#define STOP_PATIENCE 1000

/* A timer of our own: those of the server cannot be started by a signal handler. */
static timer_t patience;
static bool has_patience = false;

static volatile sig_atomic_t is_users_code = false;
static volatile sig_atomic_t waits_for_standby = false;
static volatile SteadyTime stop_requested_at = 0;
static bool commits_durably = false;
static int	last_sqlstate = 0;

/*
 * What the administrator may have set for the sake of sessions, and what must
 * not reach us.  lock_timeout bounds how long SIGTERM can wait for a lock that
 * somebody else holds on our tables.
 */
static const struct
{
	const char *name;
	const char *value;
}			own_settings[] =
{
	{"role", "none"},
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_deferrable", "off"},
	{"session_replication_role", "origin"},
	{"synchronous_commit", "off"},
	{"lock_timeout", "1s"},
	{"statement_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"transaction_timeout", "0"},
	{"DateStyle", "ISO"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "1"},
	{"jit", "off"},
	/* A worker process for our small queries would be one less for backends. */
	{"max_parallel_workers_per_gather", "0"},
	{"force_parallel_mode", "off"},
	{"debug_parallel_query", "off"},
};

bool
session_register(const char *main_function, const char *name, const char *type,
				 const void *args, Size args_size, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker = {0};

	Assert(args_size <= BGW_EXTRALEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	/* Whoever registered it starts another: it knows whether and when. */
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "dispatch", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, main_function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, name, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, type, sizeof(worker.bgw_type));
	memcpy(worker.bgw_extra, args, args_size);
	return RegisterDynamicBackgroundWorker(&worker, handle);
}

/* Makes the timer that sends us another SIGTERM. */
static void
create_patience(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM};

	has_patience = timer_create(CLOCK_MONOTONIC, &event, &patience) == 0;
}

static void
start_patience(void)
{
	struct itimerspec when = {.it_value.tv_sec = STOP_PATIENCE / 1000};

	(void) timer_settime(patience, 0, &when, NULL);
}

/*
 * Code of users is cancelled, so that the process can end in good order; if it
 * does not care for that, the process dies in the middle of it.
 */
static void
stop_users_code(int signal)
{
	if (!has_patience || steady_is_past(stop_requested_at, STOP_PATIENCE - 1))
	{
		die(signal);
		return;
	}
	QueryCancelPending = true;
	InterruptPending = true;
	start_patience();
}

static void
handle_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!ShutdownRequestPending)
		stop_requested_at = steady_now();
	ShutdownRequestPending = true;
	if (is_users_code)
		stop_users_code(postgres_signal_arg);
	else if (waits_for_standby)
		QueryCancelPending = true;
	SetLatch(MyLatch);
	errno = save_errno;
}

void
session_start(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	create_patience();
	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();

	if (!OidIsValid(database))
	{
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);
		return;
	}
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	for (int i = 0; i < (int) lengthof(own_settings); i++)
		if (GetConfigOption(own_settings[i].name, true, false) != NULL)
			SetConfigOption(own_settings[i].name, own_settings[i].value,
							PGC_SUSET, PGC_S_OVERRIDE);
}

char *
session_recover(MemoryContext context)
{
	ErrorData  *error;
	char	   *text;

	HOLD_INTERRUPTS();
	error_context_stack = NULL;
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	text = pstrdup(error->message ? error->message : "unknown error");
	last_sqlstate = error->sqlerrcode;
	FreeErrorData(error);
	AbortCurrentTransaction();
	FlushErrorState();
	MemoryContextSwitchTo(context);
	RESUME_INTERRUPTS();
	return text;
}

int
session_sqlstate(void)
{
	return last_sqlstate;
}

void
session_commit_durably(void)
{
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	commits_durably = true;
}

/*
 * A server that stops waits for its processes: one that waited for a standby
 * that is not there would keep it for ever.  SIGTERM ends that wait in the way
 * that a cancel does; the commit stands.
 */
static void
commit(void)
{
	waits_for_standby = commits_durably;
	if (waits_for_standby && ShutdownRequestPending)
		QueryCancelPending = true;
	CommitTransactionCommand();
	if (waits_for_standby)
	{
		waits_for_standby = false;
		QueryCancelPending = false;
	}
}

StepResult
session_run(void (*step) (void *arg), void *arg, const char **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile StepResult result = STEP_DONE;

	commits_durably = false;
	waits_for_standby = false;
	*error = "the extension has been dropped";
	pgstat_report_activity(STATE_RUNNING, NULL);
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		if (catalog_lock_extension())
		{
			/*
			 * Looking our tables up can take locks, and with them in what was
			 * committed.  The snapshot must see that, or a step notes as read
			 * what it has not.
			 */
			(void) catalog_get();
			PushActiveSnapshot(GetTransactionSnapshot());
			step(arg);
			PopActiveSnapshot();
		}
		else
			result = STEP_NO_EXTENSION;
		commit();
	}
	PG_CATCH();
	{
		*error = session_recover(context);
		result = STEP_ERROR;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);

	/* Without this, autovacuum would not learn what we write. */
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return result;
}

/* Waits for one of the WL_ events; the socket is for those that are its own. */
static int
wait_for(int wanted, int fd, int events, long timeout_ms)
{
	int			occurred;

	wanted |= WL_EXIT_ON_PM_DEATH;
	if (timeout_ms >= 0)
		wanted |= WL_TIMEOUT;
	if (fd >= 0)
		wanted |= events;
	occurred = WaitLatchOrSocket(MyLatch, wanted, fd < 0 ? PGINVALID_SOCKET : fd,
								 timeout_ms, PG_WAIT_EXTENSION);
	if (occurred & WL_LATCH_SET)
		ResetLatch(MyLatch);
	QueryCancelPending = false; /* there is no statement to cancel */
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		/* What a backend leaves open comes from the settings. */
		catalog_backends_generation++;
	}
	return occurred;
}

int
session_wait(int fd, int events, long timeout_ms)
{
	return wait_for(WL_LATCH_SET, fd, events, timeout_ms);
}

int
session_doze(int fd, int events, long timeout_ms)
{
	return wait_for(0, fd, events, timeout_ms);
}

void
session_pause(long timeout_ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 timeout_ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

bool
session_stop_requested(void)
{
	return ShutdownRequestPending;
}

void
session_enter_users_code(void)
{
	is_users_code = true;
	/* One that came a moment ago has cancelled nothing. */
	if (ShutdownRequestPending)
		stop_users_code(SIGTERM);
}

void
session_leave_users_code(void)
{
	is_users_code = false;
	QueryCancelPending = false; /* it was not for what comes now */
}
