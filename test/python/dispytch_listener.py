#!/usr/bin/python3
"""A reader of the envelope dispytch on RabbitMQ, for test/t/091_rabbitmq_consumers.pl.

    dispytch_listener.py PORT QUEUE COUNT

It is no part of Dispytch: all four fields of a message must be there and not
null, and have their types.  Writes a line of JSON for each.
"""
import json
import sys

import pika

FIELDS = {'id': str, 'type': str, 'body': dict, 'timestamp': int}


def process(properties, body):
    message = json.loads(body)
    for field, kind in FIELDS.items():
        if not isinstance(message.get(field), kind):
            raise ValueError(f'field {field} is no {kind.__name__}')
    if message['id'] != properties.message_id:
        raise ValueError('the id is not that of the message')
    print(json.dumps(message), flush=True)


port, queue, count = sys.argv[1:]
connection = pika.BlockingConnection(pika.ConnectionParameters('127.0.0.1', int(port)))
channel = connection.channel()
for method, properties, body in channel.consume(queue):
    process(properties, body)
    channel.basic_ack(method.delivery_tag)
    if method.delivery_tag == int(count):
        break
connection.close()
