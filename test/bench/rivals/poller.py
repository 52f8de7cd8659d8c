"""The usual outbox poller, written to be fast.

Takes up to a batch of rows in one statement that deletes or marks them, sends
them as one pipeline, and commits when Redis has answered: at least once.  The
ids are taken by ANY(ARRAY(...)), so that the planner cannot choose a scan of
the table.  A batch that was not full is followed by a pause.

usage: poller.py <connection string> <redis port> <stream> delete|update <batch>
"""

import sys
import time

import psycopg2
import redis

PAUSE_SECONDS = 0.01

TAKE = {
    "delete": """
        DELETE FROM outbox
         WHERE id = ANY (ARRAY(SELECT id FROM outbox ORDER BY id
                                LIMIT %s FOR UPDATE SKIP LOCKED))
     RETURNING id, event_id::text, event_type, data::text""",
    "update": """
        UPDATE outbox SET sent_at = now()
         WHERE id = ANY (ARRAY(SELECT id FROM outbox WHERE sent_at IS NULL ORDER BY id
                                LIMIT %s FOR UPDATE SKIP LOCKED))
     RETURNING id, event_id::text, event_type, data::text""",
}


def main():
    dsn, port, stream, done, batch = sys.argv[1:]
    batch = int(batch)
    connection = psycopg2.connect(dsn)
    cursor = connection.cursor()
    broker = redis.Redis(host="127.0.0.1", port=int(port))
    while True:
        cursor.execute(TAKE[done], (batch,))
        rows = sorted(cursor.fetchall())
        if rows:
            pipeline = broker.pipeline(transaction=False)
            for _, event_id, event_type, data in rows:
                pipeline.xadd(
                    stream, {"event_id": event_id, "event_type": event_type, "data": data})
            pipeline.execute()
        connection.commit()
        if len(rows) < batch:
            time.sleep(PAUSE_SECONDS)


main()
