/*-------------------------------------------------------------------------
 *
 * dispatch.c
 *	  Loading the core of dispatch into a server process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "catalog.h"
#include "compat.h"
#include "ddl.h"
#include "launcher.h"
#include "settings.h"
#include "slots.h"
#include "wake.h"

DISPATCH_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

static shmem_request_hook_type prev_shmem_request_hook;
static shmem_startup_hook_type prev_shmem_startup_hook;

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	slots_request();
}

static void
startup_shmem(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	slots_init();
}

void
_PG_init(void)
{
	catalog_register();
	wake_register();

	/*
	 * Loaded by a function call only: publish() works, for an event that is
	 * committed is delivered once the server has been restarted with us.
	 */
	if (!process_shared_preload_libraries_in_progress)
		return;

	settings_define();

	/* During pg_upgrade nothing may run, and nothing may be sent. */
	if (IsBinaryUpgrade)
		return;

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
	ddl_register();
	launcher_register();
}
