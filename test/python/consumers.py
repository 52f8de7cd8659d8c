#!/usr/bin/python3
"""Consumers that know nothing of dispatch, for test/t/064_consumers.pl.

    consumers.py django HOST PORT STREAM [DIE_AFTER]
    consumers.py dispytch-stream HOST PORT STREAM
    consumers.py dispytch-channel HOST PORT CHANNEL COUNT

The first reads what Django Dispatch writes, which has no consumer of its own: a
consumer group, the fields event_id and cloud_event, an acknowledgement when the
event is processed, and the ids of what was processed, because an event can come
twice.  With DIE_AFTER it dies after so many events, before it acknowledges the
last.  The others want the envelope dispytch whole: all four of its fields must
be there and not null, and have their types.

Each writes a line of JSON for every event that it has processed.
"""
import datetime
import json
import os
import sys

import redis

GROUP = 'mailer'
CONSUMER = 'worker-1'
BLOCK_MS = 500

# What the envelope dispytch consists of.
DISPYTCH_FIELDS = {'id': str, 'type': str, 'body': dict, 'timestamp': int}


def report(**event):
    print(json.dumps(event), flush=True)


def entries(client, stream, last):
    """Those of the group: of this consumer's own after "last", or new ones ('>')."""
    answer = client.xreadgroup(GROUP, CONSUMER, {stream: last}, count=10, block=BLOCK_MS)
    return answer[0][1] if answer else []


def process(client, stream, fields):
    event = json.loads(fields['cloud_event'])
    if client.sadd(f'{stream}:processed', fields['event_id']) == 0:
        return
    if datetime.datetime.fromisoformat(event['time']).utcoffset() is None:
        raise ValueError('a time without an offset')
    report(event=event, fields={name: fields[name] for name in fields if name != 'cloud_event'})


def consume_django(client, stream, die_after='0'):
    processed = 0
    try:
        client.xgroup_create(stream, GROUP, id='0', mkstream=True)
    except redis.ResponseError:
        pass  # it is there already
    for last in '0', '>':
        while batch := entries(client, stream, last):
            for entry, fields in batch:
                process(client, stream, fields)
                processed += 1
                if processed == int(die_after):
                    os._exit(1)
                client.xack(stream, GROUP, entry)


def process_dispytch(payload):
    message = json.loads(payload)
    for field, kind in DISPYTCH_FIELDS.items():
        if message.get(field) is None:
            raise ValueError(f'field {field} is missing')
        if not isinstance(message[field], kind):
            raise ValueError(f'field {field} is no {kind.__name__}')
    report(**message)


def consume_dispytch_stream(client, stream):
    for _, fields in client.xread({stream: '0'}, block=BLOCK_MS)[0][1]:
        process_dispytch(fields['payload'])


def consume_dispytch_channel(client, channel, count):
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(channel)
    heard = 0
    for message in subscription.listen():
        process_dispytch(message['data'])
        heard += 1
        if heard == int(count):
            return


CONSUMERS = {
    'django': consume_django,
    'dispytch-stream': consume_dispytch_stream,
    'dispytch-channel': consume_dispytch_channel,
}

what, host, port, *arguments = sys.argv[1:]
CONSUMERS[what](redis.Redis(host=host, port=int(port), decode_responses=True), *arguments)
