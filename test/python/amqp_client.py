#!/usr/bin/python3
"""An AMQP client that knows nothing of dispatch, for test/perl/AmqpClient.pm.

    amqp_client.py '{"host": ..., "port": ..., "vhost": ..., "username": ...,
                     "password": ..., "ca": ...}'

Reads a line of JSON, [method, {arguments}], and answers with one, ["ok",
result] or ["error", text], until its input ends.  Bytes are texts in which each
character is a byte.
"""
import base64
import datetime
import json
import ssl
import struct
import sys

import pika
import pika.data

BATCH = 2000
END = b'the end of the queue'

PROPERTIES = [
    'content_type', 'content_encoding', 'headers', 'delivery_mode', 'priority', 'correlation_id',
    'reply_to', 'expiration', 'message_id', 'timestamp', 'type', 'user_id', 'app_id', 'cluster_id']

decode_value = pika.data.decode_value

# Numbers that this version of pika reads wrongly: it cuts off fractions, and
# takes for unsigned what RabbitMQ says is signed.
NUMBERS = {'d': '>d', 'f': '>f', 'l': '>q'}


def decode_typed(encoded, offset):
    """Decodes a field of a table as [letter of its type, value]."""
    kind = encoded[offset:offset + 1].decode('ascii')
    number = NUMBERS.get(kind)
    start = offset + 1
    value, offset = decode_value(encoded, offset)
    if number:
        value = struct.unpack_from(number, encoded, start)[0]
    if isinstance(value, (bytes, bytearray)):
        value = base64.b64encode(value).decode('ascii')
    elif isinstance(value, datetime.datetime):
        value = int(value.replace(tzinfo=datetime.timezone.utc).timestamp())
    elif kind == 'D':
        value = str(value)
    return [kind, value], offset


class Client:
    def __init__(self, host, port, vhost='/', username='guest', password='guest', ca=None):
        options = None
        if ca:
            options = pika.SSLOptions(ssl.create_default_context(cafile=ca), host)
        self.parameters = pika.ConnectionParameters(
            host=host, port=port, virtual_host=vhost, heartbeat=0, ssl_options=options,
            credentials=pika.PlainCredentials(username, password))
        self.connection = None
        self.open_channel = None

    def channel(self):
        """A channel that works: a request shows whether the last one does."""
        try:
            self.open_channel.basic_qos(prefetch_count=BATCH)
        except (AttributeError, pika.exceptions.AMQPError):
            # The tables of the handshake are for pika itself.
            pika.data.decode_value = decode_value
            if not self.connection or not self.connection.is_open:
                self.connection = pika.BlockingConnection(self.parameters)
            self.open_channel = self.connection.channel()
            self.open_channel.basic_qos(prefetch_count=BATCH)
            pika.data.decode_value = decode_typed
        return self.open_channel

    def exchange(self, name, type, durable=True, arguments=None):
        self.channel().exchange_declare(name, type, durable=durable, arguments=arguments)

    def queue(self, name, durable=True, arguments=None):
        self.channel().queue_declare(name, durable=durable, arguments=arguments)

    def bind(self, queue, exchange, routing_key):
        self.channel().queue_bind(queue, exchange, routing_key)

    def delete_queue(self, name):
        self.channel().queue_delete(name)

    def purge(self, name):
        self.channel().queue_purge(name)

    def depth(self, name):
        return self.channel().queue_declare(name, passive=True).method.message_count

    def drain(self, name):
        channel, messages = self.channel(), []
        while True:
            method, properties, body = channel.basic_get(name, auto_ack=True)
            if method is None:
                return messages
            messages.append(message(method, properties, body))

    def drain_fast(self, name, path):
        """Consumes up to a message that is put at the end of the queue, into a file."""
        channel = self.channel()
        channel.basic_publish('', name, END)
        with open(path, 'wb') as out:
            for method, properties, body in channel.consume(name):
                last = body == END
                if last or method.delivery_tag % (BATCH // 2) == 0:
                    channel.basic_ack(method.delivery_tag, multiple=True)
                if last:
                    break
                for field in (properties.message_id, properties.type, properties.timestamp):
                    put(out, '' if field is None else str(field))
                put(out, body)
        channel.cancel()


def put(out, field):
    """A text with its length before it, which is read faster than JSON."""
    if isinstance(field, str):
        field = field.encode()
    out.write(struct.pack('>I', len(field)) + field)


def message(method, properties, body):
    return {
        'exchange': method.exchange, 'routing_key': method.routing_key,
        'redelivered': method.redelivered, 'body': body.decode('latin-1'),
        'properties': {
            name: getattr(properties, name) for name in PROPERTIES
            if getattr(properties, name) is not None}}


def main():
    client = Client(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = ['ok', getattr(client, method)(**arguments)]
        except Exception as error:  # pylint: disable=broad-except
            answer = ['error', f'{type(error).__name__}: {error}']
        print(json.dumps(answer), flush=True)


main()
