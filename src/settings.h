/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  Settings of the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_SETTINGS_H
#define DISPATCH_SETTINGS_H

extern bool setting_enabled;
extern int	setting_batch_size;			/* events */
extern int	setting_batch_bytes;		/* kB */
extern int	setting_sleep_time;			/* ms */
extern int	setting_max_retries;
extern bool setting_retry_backoff;
extern int	setting_retry_delay;		/* ms */
extern int	setting_retry_max_delay;	/* ms */
extern bool setting_cleanup_published;
extern int	setting_published_retention;	/* s */
extern int	setting_failed_retention;	/* s */
extern char *setting_allowed_cluster_name;
extern int	setting_log_level;

extern void settings_define(void);

/* Is this the cluster that dispatch.allowed_cluster_name names, if it does? */
extern bool settings_allow_cluster(void);

/* ereport() of a background process, as far as dispatch.log_level goes. */
#define worker_log(elevel, rest) \
	do { \
		if ((elevel) >= setting_log_level) \
			ereport(elevel, rest); \
	} while (0)

/*
 * What only "debug" shows.  At LOG, as the rest: it is for dispatch.log_level to
 * say whether it is written, and log_min_messages hides what is less.
 */
#define worker_debug(rest) \
	do { \
		if (setting_log_level <= DEBUG1) \
			ereport(LOG, rest); \
	} while (0)

#endif							/* DISPATCH_SETTINGS_H */
