/*-------------------------------------------------------------------------
 *
 * cursor_count.c
 *	  How many events are left to a cursor.
 *
 * A figure is exact up to a maximum, and an estimate above it, so that it takes as
 * long at any backlog: the first events are counted, and those behind them taken to
 * be as dense among the ids.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "cursor_state.h"
#include "outbox.h"

/*
 * Of so many entries of an index, one row is looked at.  A prime number, or it might
 * keep step with what every second or tenth event has in common.
 */
#define SAMPLE_INTERVAL 61

/* Late events, which the index tells nothing of, are usually few: above this, read all. */
#define LATE_MAX 1000

/* Entries of the index from one event on, as they were counted. */
typedef struct Sample
{
	int64		entries;
	int64		rows;			/* looked at */
	int64		hits;			/* of them, events that are left */
	int64		first_id;		/* of all */
	int64		last_id;
} Sample;

static TimestampTz
source_created_at(const Source *source)
{
	bool		isnull;

	return DatumGetTimestampTz(slot_getattr(source->row, OUTBOX_CREATED_AT, &isnull));
}

/* Counts the entries behind the current row of a source, but not for ever. */
static void
sample_source(Sample *sample, const Cursor *cursor, Source *source, int64 maximum)
{
	if (sample->rows == 0)
		sample->first_id = source->id;
	while (sample->entries < maximum &&
		   index_getnext_tid(source->scan, ForwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (++sample->entries % SAMPLE_INTERVAL != 0)
			continue;
		sample->rows++;
		if (!index_fetch_heap(source->scan, source->row) || !source_take_row(cursor, source))
			continue;
		sample->hits++;
		sample->first_id = Min(sample->first_id, source->id);
		sample->last_id = Max(sample->last_id, source->id);
	}
}

/* Counts the rows of a source, from the current one on, but not for ever. */
static int64
count_source(const Cursor *cursor, Source *source, int64 maximum)
{
	int64		count = 1;

	while (count < maximum && source_next(cursor, source))
		count++;
	return count;
}

/* From the density of so many events between these ids, how many there are up to the last. */
static int64
extrapolate(const Cursor *cursor, double count, int64 first_id, int64 id)
{
	int64		rest = Max(cursor->upto->last_id - id, 0);

	return (int64) (count + rest * (count / (id - first_id + 1)));
}

/*
 * An estimate, or -1 if there may be no more than the maximum.  To go through the
 * index costs a tenth of what the rows cost.  Those of an open transaction, or of
 * one that was rolled back, have entries, too: if the rows that are looked at show
 * many of them, there is no saying.  So twice as many as the maximum are counted: if
 * only half of them are events that are left, the sample never shows three quarters.
 */
static int64
estimate_count(Cursor *cursor, int64 maximum, TimestampTz *oldest)
{
	Merge		merge;
	Source	   *source;
	Sample		sample = {.last_id = PG_INT64_MIN};
	int64		enough = 2 * maximum;
	int64		late = 0;

	merge_open(&merge, cursor);
	if ((source = merge_first(&merge)) != NULL)
		*oldest = source_created_at(source);
	while (late <= LATE_MAX && (source = merge_first(&merge)) != NULL)
	{
		if (source->is_new)
			sample_source(&sample, cursor, source, enough);
		else
			late += count_source(cursor, source, LATE_MAX + 1);
		binaryheap_remove_first(merge.heap);
	}
	merge_close(&merge);
	if (late > LATE_MAX || sample.entries < enough || sample.hits * 4 < sample.rows * 3)
		return -1;
	return late + extrapolate(cursor, (double) sample.entries * sample.hits / sample.rows,
							  sample.first_id, sample.last_id);
}

/* Exactly, up to the maximum. */
static int64
count_rows(Cursor *cursor, int64 maximum, TimestampTz *oldest)
{
	Merge		merge;
	Source	   *source;
	int64		count = 0;
	int64		first_id = 0;
	int64		id = 0;

	merge_open(&merge, cursor);
	while (count < maximum && (source = merge_first(&merge)) != NULL)
	{
		if (count++ == 0)
		{
			first_id = source->id;
			*oldest = source_created_at(source);
		}
		id = source->id;
		merge_next(&merge);
	}
	/* Above the maximum: as many more as there would be at the same density. */
	if (merge_first(&merge) != NULL)
	{
		/* A late event may be from long before the others. */
		if (id > cursor->before->last_id)
			first_id = Max(first_id, cursor->before->last_id + 1);
		count = extrapolate(cursor, count, first_id, id);
	}
	merge_close(&merge);
	return count;
}

int64
cursor_count(Cursor *cursor, int64 maximum, TimestampTz *oldest)
{
	int64		count = maximum < CURSOR_LEAST_ESTIMATED ? -1 :
		estimate_count(cursor, maximum, oldest);

	return count >= 0 ? count : count_rows(cursor, maximum, oldest);
}
