"""Brings the batches of a PgQ queue to a Redis stream.

A batch is what is between two ticks; it is finished when Redis has answered,
in the transaction that read it: at least once.

usage: pgq_relay.py <connection string> <redis port> <stream>
"""

import sys
import time

import psycopg2
import redis

PAUSE_SECONDS = 0.01
PIPELINE = 1000


def main():
    dsn, port, stream = sys.argv[1:]
    connection = psycopg2.connect(dsn)
    cursor = connection.cursor()
    broker = redis.Redis(host="127.0.0.1", port=int(port))
    while True:
        cursor.execute("SELECT pgq.next_batch('events', 'relay')")
        batch = cursor.fetchone()[0]
        if batch is not None:
            cursor.execute(
                "SELECT ev_id, ev_type, ev_data FROM pgq.get_batch_events(%s)", (batch,))
            while rows := cursor.fetchmany(PIPELINE):
                pipeline = broker.pipeline(transaction=False)
                for event_id, event_type, data in rows:
                    pipeline.xadd(
                        stream, {"event_id": event_id, "event_type": event_type, "data": data})
                pipeline.execute()
            cursor.execute("SELECT pgq.finish_batch(%s)", (batch,))
        connection.commit()
        if batch is None:
            time.sleep(PAUSE_SECONDS)


main()
