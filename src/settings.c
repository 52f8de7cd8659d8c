/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  Settings of the extension.
 *
 * All can be changed by a reload; what differs from backend to backend is a
 * column of dispatch.backends, for which the setting is the default.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "datatype/timestamp.h"
#include "utils/guc.h"

#include "settings.h"

bool		setting_enabled = true;
int			setting_batch_size = 1000;
int			setting_batch_bytes = 16 * 1024;
int			setting_sleep_time = 5000;
int			setting_max_retries = 3;
bool		setting_retry_backoff = true;
int			setting_retry_delay = 1000;
int			setting_retry_max_delay = 300 * 1000;
bool		setting_cleanup_published = true;
int			setting_published_retention = 7 * SECS_PER_DAY;
int			setting_failed_retention = 30 * SECS_PER_DAY;
char	   *setting_allowed_cluster_name;
int			setting_log_level = LOG;

#define MS_PER_DAY (SECS_PER_DAY * 1000)

/*
 * What workers log: their own words for the levels of a program's log.  A
 * background process has no client, so "info" goes out at LOG.
 */
static const struct config_enum_entry log_levels[] = {
	{"debug", DEBUG1, false},
	{"info", LOG, false},
	{"warning", WARNING, false},
	{"error", ERROR, false},
	{NULL, 0, false}
};

void
settings_define(void)
{
	DefineCustomBoolVariable("dispatch.enabled",
							 "Runs the workers that deliver events.",
							 "Events can be published while this is off; they wait.",
							 &setting_enabled, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.batch_size",
							"Sets how many events a worker takes for a batch.",
							"Up to eight batches are in flight, if the broker takes them.",
							&setting_batch_size, 1000, 1, 100000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.batch_bytes",
							"Sets how many bytes of events a worker holds in memory.",
							"A single event may be larger.",
							&setting_batch_bytes, 16 * 1024, 64, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.sleep_time",
							"Sets how long an idle worker sleeps before it looks again.",
							"Only a safety net: commits wake the worker.",
							&setting_sleep_time, 5000, 1, MS_PER_DAY,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.max_retries",
							"Sets how often an event is tried again after it failed by itself.",
							"An outage of the broker costs no retry.",
							&setting_max_retries, 3, 0, 1000000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("dispatch.retry_backoff",
							 "Lets the delay between retries grow.",
							 "Off: it is dispatch.retry_delay each time.",
							 &setting_retry_backoff, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.retry_delay",
							"Sets the delay before the first retry.",
							NULL,
							&setting_retry_delay, 1000, 1, MS_PER_DAY,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.retry_max_delay",
							"Sets the longest delay between retries.",
							NULL,
							&setting_retry_max_delay, 300 * 1000, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("dispatch.cleanup_published",
							 "Removes published events after dispatch.published_retention.",
							 NULL,
							 &setting_cleanup_published, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.published_retention",
							"Sets how long published events are kept.",
							NULL,
							&setting_published_retention, 7 * SECS_PER_DAY, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("dispatch.failed_retention",
							"Sets how long dead letters are kept.",
							NULL,
							&setting_failed_retention, 30 * SECS_PER_DAY, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("dispatch.allowed_cluster_name",
							   "Runs workers only where cluster_name equals this.",
							   "Keeps a file-level clone of the server from sending.  Empty: anywhere.",
							   &setting_allowed_cluster_name, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("dispatch.log_level",
							 "Sets what workers write to the server log.",
							 NULL,
							 &setting_log_level, LOG, log_levels,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("dispatch");
}

bool
settings_allow_cluster(void)
{
	return setting_allowed_cluster_name[0] == '\0' ||
		strcmp(setting_allowed_cluster_name, cluster_name) == 0;
}
