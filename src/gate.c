/*-------------------------------------------------------------------------
 *
 * gate.c
 *	  Destinations that take no events for now.
 *
 * A topic that is missing, or a stream that we may not write, is the trouble of
 * all events that go there and of no others.  The first that is refused closes
 * the gate of its destination: the others wait without being sent, since a
 * thousand refusals cost the broker as much as a thousand events, and some
 * brokers close the channel at each.  When the time is over one event probes;
 * its outcome opens the gate, or closes it again.
 *
 * A destination is what the templates of an event come to, but for those that
 * are no part of it, so that of two exchanges with the same routing key one is
 * not taken for the other.  Gates
 * are few and in memory only: they spare work, and nothing depends on them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"

#include "error_text.h"
#include "gate.h"
#include "steady.h"

/* Beyond these, each event of a destination is refused by itself. */
#define GATES_MAX 256

/* How long (ms) events wait at least while one is finding out. */
#define PROBE_PATIENCE 1000

typedef struct Gate
{
	uint64		destination;	/* its hash: the key */
	SteadyTime	until;
	const Entry *probe;			/* sent to find out; NULL: none */
	char		reason[ERROR_TEXT_LEN];
} Gate;

struct Gates
{
	const DispatchTransport *transport;
	HTAB	   *table;
};

Gates *
gates_create(const DispatchTransport *transport)
{
	Gates	   *gates = palloc_object(Gates);
	HASHCTL		info = {.keysize = sizeof(uint64), .entrysize = sizeof(Gate),
	.hcxt = CurrentMemoryContext};

	gates->transport = transport;
	gates->table = hash_create("dispatch gates", 16, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return gates;
}

static uint64
destination_of(const Gates *gates, const Entry *entry)
{
	const DispatchOption *option = gates->transport->options;
	uint64		hash = 0;

	for (int i = 0; option[i].name != NULL; i++)
	{
		const DispatchValue *value = &entry->message.options[i];

		if (option[i].type == DISPATCH_TEMPLATE && value->is_set &&
			(option[i].flags & DISPATCH_NO_ADDRESS) == 0)
			hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) value->text,
															value->text_len, i));
	}
	return hash;
}

static Gate *
gate_of(const Gates *gates, const Entry *entry, HASHACTION action)
{
	uint64		destination;

	/* Nearly always. */
	if (action != HASH_ENTER && hash_get_num_entries(gates->table) == 0)
		return NULL;
	destination = destination_of(gates, entry);
	return hash_search(gates->table, &destination, action, NULL);
}

long
gates_ms_closed(const Gates *gates, const Entry *entry)
{
	const Gate *gate = gate_of(gates, entry, HASH_FIND);

	if (gate == NULL)
		return 0;
	return gate->probe != NULL ? PROBE_PATIENCE : steady_ms_until(gate->until);
}

const char *
gates_reason(const Gates *gates, const Entry *entry)
{
	return gate_of(gates, entry, HASH_FIND)->reason;
}

void
gates_sent(Gates *gates, const Entry *entry)
{
	Gate	   *gate = gate_of(gates, entry, HASH_FIND);

	if (gate != NULL)
		gate->probe = entry;
}

void
gates_unsent(Gates *gates, const Entry *entry)
{
	Gate	   *gate = gate_of(gates, entry, HASH_FIND);

	if (gate != NULL && gate->probe == entry)
		gate->probe = NULL;
}

void
gates_unsent_all(Gates *gates)
{
	HASH_SEQ_STATUS scan;
	Gate	   *gate;

	hash_seq_init(&scan, gates->table);
	while ((gate = hash_seq_search(&scan)) != NULL)
		gate->probe = NULL;
}

void
gates_opened(Gates *gates, const Entry *entry)
{
	gate_of(gates, entry, HASH_REMOVE);
}

void
gates_closed(Gates *gates, const Entry *entry, long ms, const char *reason)
{
	Gate	   *gate = gate_of(gates, entry, HASH_FIND);

	if (gate == NULL)
	{
		if (hash_get_num_entries(gates->table) >= GATES_MAX)
			return;
		gate = gate_of(gates, entry, HASH_ENTER);
		gate->probe = NULL;
	}
	/* The answers of those that went before the probe tell nothing of it. */
	if (gate->probe == entry)
		gate->probe = NULL;
	gate->until = steady_in(ms);
	strlcpy(gate->reason, reason, sizeof(gate->reason));
}
