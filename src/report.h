/*-------------------------------------------------------------------------
 *
 * report.h
 *	  What a worker tells of itself in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_REPORT_H
#define DISPATCH_REPORT_H

#include "position.h"
#include "slots.h"

/*
 * A worker gathers its report in its own memory, and hands it over as a whole
 * from time to time.
 */
extern void report_delivered(WorkerReport *report, TimestampTz published_at, TimestampTz now);
extern void report_error(WorkerReport *report, const char *text);
extern void report_position(WorkerReport *report, const Position *position);
extern void report_hand_over(WorkerReport *report, WorkerSlot *slot, SteadyTime now);

/*
 * The latency in microseconds that a fraction of the events stayed below; -1
 * if there were none lately.
 */
extern int64 report_latency(const WorkerReport *report, double fraction);

#endif							/* DISPATCH_REPORT_H */
