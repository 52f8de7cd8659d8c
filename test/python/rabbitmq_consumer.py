"""rabbitmq_consumer.py: the consumer of the demo.

usage: rabbitmq_consumer.py <port> declare|show|count

declare: the exchange "orders" and the queue "all" that gets what goes to it;
show: prints the messages of the queue, which keeps them; count: how many.
"""

import sys

import pika

PROPERTIES = ('message_id', 'type', 'content_type', 'delivery_mode', 'timestamp', 'headers')


def declare(channel):
    channel.exchange_declare('orders', 'topic', durable=True)
    channel.queue_declare('all', durable=True, arguments={'x-queue-type': 'quorum'})
    channel.queue_bind('all', 'orders', '#')


def show(channel):
    while True:
        method, properties, body = channel.basic_get('all')
        if method is None:
            break
        print(f'routing key   {method.routing_key}')
        for name in PROPERTIES:
            value = getattr(properties, name)
            if value is not None:
                print(f'{name:13} {value}')
        print(f'body          {body.decode()}')


def count(channel):
    print(channel.queue_declare('all', passive=True).method.message_count)


def main():
    port, command = sys.argv[1:]
    parameters = pika.ConnectionParameters('127.0.0.1', int(port))
    # what was read and not acknowledged goes back to the queue at the end
    with pika.BlockingConnection(parameters) as connection:
        {'declare': declare, 'show': show, 'count': count}[command](connection.channel())


main()
