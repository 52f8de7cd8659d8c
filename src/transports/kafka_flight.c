/*-------------------------------------------------------------------------
 *
 * kafka_flight.c
 *	  The messages that a producer has, or is to get.
 *
 * A message that must wait for the scout of its partition (kafka_topic.c) is held
 * here, not refused: behind it in line may be others that need not wait.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kafka.h"

/* So many times message_timeout, a message waits in line at the most. */
#define PATIENCE 4

/* How often to look through old messages for those that have expired (ms). */
#define SCAN_MS 1000

/* In that context, which must live as long. */
void
kafka_flights_init(KafkaFlights *flights, MemoryContext context)
{
	*flights = (KafkaFlights) {.context = context};
	dlist_init(&flights->all);
	dlist_init(&flights->unused);
}

KafkaFlight *
kafka_flight_begin(KafkaFlights *flights, DispatchMessage *message, KafkaTopic *topic,
				   int64 now)
{
	KafkaFlight *flight;

	if (dlist_is_empty(&flights->unused))
		flight = MemoryContextAlloc(flights->context, sizeof(KafkaFlight));
	else
		flight = dlist_container(KafkaFlight, node, dlist_pop_head_node(&flights->unused));
	*flight = (KafkaFlight) {.message = message, .topic = topic, .sent_at = now};
	dlist_push_tail(&flights->all, &flight->node);
	flights->count++;
	return flight;
}

void
kafka_flight_hold(KafkaFlights *flights, KafkaFlight *flight)
{
	flight->is_held = true;
	flights->nheld++;
	dlist_push_tail(&flight->topic->held, &flight->held_node);
}

void
kafka_flight_release(KafkaFlights *flights, KafkaFlight *flight)
{
	dlist_delete(&flight->held_node);
	flights->nheld--;
	flight->is_held = false;
}

/* The producer is done with it. */
void
kafka_flight_scout_back(KafkaFlight *flight)
{
	if (flight->is_scout)
		kafka_topic_scout_back(flight->topic, flight->partition);
	flight->is_scout = false;
}

/* Forgets it. */
void
kafka_flight_end(KafkaFlights *flights, KafkaFlight *flight)
{
	dlist_delete(&flight->node);
	dlist_push_head(&flights->unused, &flight->node);
	flights->count--;
}

/*
 * Lets go of those that are held, as if the producer had; returns how many.
 */
int
kafka_flights_unsend_held(KafkaFlights *flights)
{
	dlist_iter	iter;

	dlist_foreach(iter, &flights->all)
	{
		KafkaFlight *flight = dlist_container(KafkaFlight, node, iter.cur);

		flight->unsent = flight->unsent || flight->is_held;
	}
	return flights->nheld;
}

/*
 * While its topic takes records a message may have to wait in line, over a slow
 * network for long; but not for ever, as its partition may be the one that does
 * not.
 */
bool
kafka_flight_has_expired(const KafkaFlight *flight, int64 timeout, int64 now)
{
	return Min(Max(flight->sent_at, flight->topic->delivered_at) + timeout,
			   flight->sent_at + PATIENCE * timeout) <= now;
}

/*
 * Has any of them?  They are looked through from *next_scan on, and not too often.
 */
bool
kafka_flights_have_expired(const KafkaFlights *flights, int64 timeout, int64 now,
						   int64 *next_scan)
{
	dlist_iter	iter;

	if (now < *next_scan)
		return false;
	dlist_foreach(iter, unconstify(dlist_head *, &flights->all))
	{
		const KafkaFlight *flight = dlist_container(KafkaFlight, node, iter.cur);

		if (flight->sent_at + timeout > now)
			return false;		/* as are all behind it */
		*next_scan = now + SCAN_MS;
		if (kafka_flight_has_expired(flight, timeout, now))
			return true;
	}
	return false;
}

/* There is one. */
const KafkaFlight *
kafka_flights_oldest(const KafkaFlights *flights)
{
	return dlist_head_element(KafkaFlight, node, unconstify(dlist_head *, &flights->all));
}
