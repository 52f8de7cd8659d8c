/*-------------------------------------------------------------------------
 *
 * report.c
 *	  What a worker tells of itself in shared memory.
 *
 * Latencies are counted in a histogram with four buckets an octave, which
 * tells a percentile within a fifth of its value; two periods of a minute are
 * kept, so that the figures are those of lately.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "port/pg_bitutils.h"
#include "utils/timestamp.h"

#include "error_text.h"
#include "report.h"

#define PERIOD_MS 60000
#define RATE_INTERVAL_MS 1000

static SteadyTime period_start = 0;
static SteadyTime rate_start = 0;
static int64 rate_published = 0;

/* The octave, by the highest bit; its quarter, by 256 times 2^(1/4), 2^(2/4), 2^(3/4). */
static int
bucket_of(int64 microseconds)
{
	int			octave;
	int			fraction;
	int			quarter;

	if (microseconds < 1)
		return 0;
	octave = pg_leftmost_one_pos64(microseconds);
	fraction = octave < 8 ? microseconds << (8 - octave) : microseconds >> (octave - 8);
	quarter = (fraction >= 305) + (fraction >= 363) + (fraction >= 431);
	return Min(octave * 4 + quarter, LATENCY_BUCKETS - 1);
}

void
report_delivered(WorkerReport *report, TimestampTz published_at, TimestampTz now)
{
	report->latency[0][bucket_of(now - published_at)]++;
	report->published++;
	report->last_published_at = now;
}

void
report_error(WorkerReport *report, const char *text)
{
	error_text_copy(report->last_error, sizeof(report->last_error), text);
	report->last_error_at = GetCurrentTimestamp();
}

void
report_position(WorkerReport *report, const Position *position)
{
	position_share(position, &report->position);
}

void
report_hand_over(WorkerReport *report, WorkerSlot *slot, SteadyTime now)
{
	if (now - period_start >= PERIOD_MS * INT64CONST(1000))
	{
		memcpy(report->latency[1], report->latency[0], sizeof(report->latency[0]));
		memset(report->latency[0], 0, sizeof(report->latency[0]));
		period_start = now;
	}
	if (now - rate_start >= RATE_INTERVAL_MS * INT64CONST(1000))
	{
		if (rate_start != 0)
			report->rate = (report->published - rate_published) * 1e6 / (now - rate_start);
		rate_published = report->published;
		rate_start = now;
	}

	SpinLockAcquire(&slot->mutex);
	memcpy(&slot->report, report, sizeof(WorkerReport));
	SpinLockRelease(&slot->mutex);
}

int64
report_latency(const WorkerReport *report, double fraction)
{
	int64		total = 0;
	int64		seen = 0;

	for (int i = 0; i < LATENCY_BUCKETS; i++)
		total += report->latency[0][i] + report->latency[1][i];
	if (total == 0)
		return -1;
	for (int i = 0; i < LATENCY_BUCKETS; i++)
	{
		seen += report->latency[0][i] + report->latency[1][i];
		if (seen >= fraction * total)
			return (int64) exp2((i + 1) / 4.0);
	}
	return (int64) exp2(LATENCY_BUCKETS / 4.0);
}
