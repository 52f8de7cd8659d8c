#!/usr/bin/python3
"""A broker that speaks AMQP 0-9-1 as badly as a test wants, for FakeRabbit.pm.

Prints the port that it listens on, then reads lines of JSON from its input and
answers each with one:

    ["behave", {...}]   how it behaves from now on, to new connections and old
    ["report"]          what happened since then; ends with ["end"]

Behaviour:

    confirm   what becomes of a message that has arrived, see CONFIRM
    group     how many messages those wait for that confirm several (10)
    at, say   at this point of a connection (connect, start_ok, open,
              channel_open, select, publish), say that instead of what is due,
              see SAY
    code      the reply code of "confirm": "close" and "say": "close_code"
    where     what is closed then, "channel" or "connection"
    once      only the first connection meets it
    tune      [channel_max, frame_max, heartbeat] that it asks for
    beat      seconds between its own heartbeats; none without
    forget    its messages so far, too

A message is stored when it was confirmed, and only then.
"""
import json
import random
import socket
import struct
import sys
import threading
import time

import pika.frame
import pika.spec

IDLE_SECONDS = 0.03
TUNE = [2047, 131072, 60]
MECHANISMS = 'PLAIN AMQPLAIN'
PRODUCT = {
    'product': 'RabbitMQ', 'version': '3.10.8', 'platform': 'a test', 'capabilities': {
        'publisher_confirms': True, 'basic.nack': True, 'connection.blocked': True,
        'authentication_failure_close': True}}
POISON = 'poison'


def frame(kind, channel, payload, end=0xCE):
    return struct.pack('>BHI', kind, channel, len(payload)) + payload + bytes([end])


def method(channel, method_):
    return pika.frame.Method(channel, method_).marshal()


def nested(depth):
    """A table in a table in a table: a decoder that recurses runs out of stack."""
    table = b''
    for _ in range(depth):
        table = b'\x01xF' + struct.pack('>I', len(table)) + table
    return struct.pack('>I', len(table)) + table


# What a broken or hostile broker says: bytes, or None where nothing is said any
# more.  'close' hangs up, 'half' does so in the middle of what is due.
SAY = {
    'close': b'',
    'half': b'',
    'nothing': None,
    'stall': None,
    'http': b'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n',
    'tls_alert': b'\x15\x03\x01\x00\x02\x02\x46',
    'zeros': bytes(4096),
    'ones': b'\xff' * 4096,
    'other_version': b'AMQP\x00\x00\x09\x01',
    'unknown_frame': frame(5, 0, b'abc'),
    'oversized_frame': struct.pack('>BHI', 1, 0, 0x7fffffff) + bytes(70000),
    'huge_frame': struct.pack('>BHI', 1, 0, 0xffffffff) + bytes(70000),
    'bad_end': frame(1, 0, struct.pack('>HH', 10, 11), end=0),
    'no_method': frame(1, 0, b''),
    'half_method': frame(1, 0, b'\x00\x0a\x00'),
    'unknown_method': frame(1, 0, struct.pack('>HH', 999, 999)),
    'unknown_method_of_channel': frame(1, 1, struct.pack('>HH', 60, 999)),
    'method_out_of_turn': method(0, pika.spec.Connection.Tune(*TUNE)),
    'other_channel': method(7, pika.spec.Basic.Ack(1)),
    'body_from_nowhere': frame(3, 1, b'body'),
    'header_from_nowhere': frame(2, 1, struct.pack('>HHQH', 60, 0, 4, 0)),
    'return_without_header': (
        method(1, pika.spec.Basic.Return(312, 'NO_ROUTE', '', 'x')) +
        method(1, pika.spec.Basic.Ack(1))),
    'return_with_endless_body': (
        method(1, pika.spec.Basic.Return(312, 'NO_ROUTE', '', 'x')) +
        frame(2, 1, struct.pack('>HHQH', 60, 0, 2 ** 63, 0)) + frame(3, 1, b'x' * 4000) * 30),
    'return_with_header_cut_off': (
        method(1, pika.spec.Basic.Return(312, 'NO_ROUTE', '', 'x')) +
        frame(2, 1, struct.pack('>HHQH', 60, 0, 0, 0xffff) + b'\xff')),
    'ack_cut_off': frame(1, 1, struct.pack('>HHI', 60, 80, 1)),
    'start_with_endless_table': frame(1, 0, struct.pack('>HHBBI', 10, 10, 0, 9, 0xffffffff)),
    'start_with_deep_table': frame(
        1, 0, struct.pack('>HHBB', 10, 10, 0, 9) + nested(2000) +
        struct.pack('>I', 5) + b'PLAIN' + struct.pack('>I', 0)),
    'start_without_plain': method(0, pika.spec.Connection.Start(
        0, 9, {}, 'EXTERNAL', 'en_US')),
    'close_with_strange_text': method(0, pika.spec.Connection.Close(
        320, 'bye\r\n2026-01-01 FATAL: %s%n \x1b[31m\u20ac', 0, 0)),
    'close_with_broken_text': frame(1, 0, struct.pack('>HHHB', 10, 50, 320, 200) + b'\xff\xfe'),
    'close_of_unknown_code': method(0, pika.spec.Connection.Close(999, 'why', 0, 0)),
    'channel_close_of_unknown_code': method(1, pika.spec.Channel.Close(999, 'why', 0, 0)),
    'blocked_for_ever': method(0, pika.spec.Connection.Blocked('low on memory')),
    'heartbeats': pika.frame.Heartbeat().marshal() * 1000,
    'heartbeat_with_payload': frame(8, 0, b'x'),
}
# What is said before something else that is due.
HARMLESS = {'heartbeats'}


class Broker:
    def __init__(self):
        self.lock = threading.Lock()
        self.behaviour = {}
        self.messages = []
        self.clear()
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=128)
        print(self.listener.getsockname()[1], flush=True)

    def clear(self):
        self.connections = self.ready = self.met = 0

    def behave(self, behaviour):
        with self.lock:
            if behaviour.pop('forget', False):
                self.messages = []
            self.behaviour = behaviour
            self.clear()

    def report(self):
        with self.lock:
            return {
                'connections': self.connections, 'ready': self.ready, 'met': self.met,
                'messages': [dict(m) for m in self.messages]}

    def serve(self):
        while True:
            Connection(self, self.listener.accept()[0]).start()


class Connection(threading.Thread):
    def __init__(self, broker, sock):
        super().__init__(daemon=True)
        self.broker, self.sock = broker, sock
        self.tag = self.arrivals = 0
        self.waiting = []       # (tag, message) that are not confirmed yet
        self.incoming = None    # message whose body is not complete
        self.beat_at = time.monotonic()
        with broker.lock:
            broker.connections += 1

    @property
    def behaviour(self):
        return self.broker.behaviour

    def send(self, data):
        self.sock.sendall(data)

    def run(self):
        try:
            self.converse()
        except (OSError, EOFError):
            pass
        self.sock.close()

    def converse(self):
        data = b''
        self.sock.settimeout(IDLE_SECONDS)
        while len(data) < 8:
            data += self.receive()
        if data[:8] != b'AMQP\x00\x00\x09\x01':
            raise EOFError
        self.step('connect', method(0, pika.spec.Connection.Start(
            0, 9, PRODUCT, MECHANISMS, 'en_US')))
        data = data[8:]
        while True:
            consumed, decoded = pika.frame.decode_frame(data)
            if decoded:
                data = data[consumed:]
                self.take(decoded)
            else:
                data += self.receive()

    def receive(self):
        while True:
            try:
                data = self.sock.recv(65536)
            except socket.timeout:
                self.idle()
                continue
            if not data:
                raise EOFError
            return data

    def idle(self):
        if self.waiting:
            self.confirm(True)
        beat = self.behaviour.get('beat')
        if beat and time.monotonic() > self.beat_at + beat:
            self.send(pika.frame.Heartbeat().marshal())
            self.beat_at = time.monotonic()

    def take(self, decoded):
        spec = pika.spec
        if isinstance(decoded, pika.frame.Header):
            self.incoming['left'] = decoded.body_size
            self.incoming['message_id'] = decoded.properties.message_id
            if decoded.body_size == 0:
                self.complete()
        elif isinstance(decoded, pika.frame.Body):
            self.incoming['left'] -= len(decoded.fragment)
            if self.incoming['left'] == 0:
                self.complete()
        elif isinstance(decoded, pika.frame.Method):
            request = decoded.method
            if isinstance(request, spec.Connection.StartOk):
                self.step('start_ok', method(
                    0, spec.Connection.Tune(*self.behaviour.get('tune', TUNE))))
            elif isinstance(request, spec.Connection.Open):
                self.step('open', method(0, spec.Connection.OpenOk()))
            elif isinstance(request, spec.Channel.Open):
                self.tag, self.waiting = 0, []
                self.step('channel_open', method(1, spec.Channel.OpenOk()))
            elif isinstance(request, spec.Confirm.Select):
                self.step('select', method(1, spec.Confirm.SelectOk()))
                with self.broker.lock:
                    self.broker.ready += 1
            elif isinstance(request, spec.Basic.Publish):
                self.incoming = {
                    'routing_key': request.routing_key, 'exchange': request.exchange,
                    'mandatory': request.mandatory, 'stored': False, 'left': 0}
                if self.behaviour.get('confirm') == 'ack_early':
                    self.send(method(1, spec.Basic.Ack(self.tag + 1)))
                    self.count('met')
                    raise EOFError
            elif isinstance(request, spec.Channel.Close):
                self.send(method(1, spec.Channel.CloseOk()))
            elif isinstance(request, spec.Connection.Close):
                self.send(method(0, spec.Connection.CloseOk()))
                raise EOFError

    def count(self, what):
        with self.broker.lock:
            setattr(self.broker, what, getattr(self.broker, what) + 1)

    def step(self, point, due):
        """Says what is due at a point, or what it is told to say."""
        if self.behaviour.get('at') != point or self.behaviour.get('once') and self.broker.met:
            if due:
                self.send(due)
            return
        self.count('met')
        what = self.behaviour['say']
        if what == 'half':
            self.send(due[:len(due) // 2])
        elif what == 'close_code':
            self.send(self.closing('connection'))
        elif SAY[what]:
            self.send(SAY[what])
        if what in HARMLESS:
            self.send(due)
        elif what in ('close', 'half'):
            raise EOFError
        elif what == 'stall':
            time.sleep(600)
        else:
            while True:         # hears it all, and says no more
                self.receive_rest()

    def receive_rest(self):
        self.sock.settimeout(None)
        if not self.sock.recv(65536):
            raise EOFError

    # ---- Messages

    def complete(self):
        message, self.incoming = self.incoming, None
        self.tag += 1
        with self.broker.lock:
            message.pop('left')
            self.broker.messages.append(message)
        self.waiting.append((self.tag, message))
        self.step('publish', b'')
        self.confirm(False)

    def store(self, *messages):
        with self.broker.lock:
            for message in messages:
                message['stored'] = True

    def confirm(self, idle):
        CONFIRM[self.behaviour.get('confirm', 'each')](self, idle)

    def full(self, idle):
        return idle or len(self.waiting) >= self.behaviour.get('group', 10)

    # A message is stored before that is said: what is said may get lost.
    def ack(self, tag, multiple=False):
        self.store(*(m for t, m in self.waiting if t == tag or multiple and t <= tag))
        self.waiting = [w for w in self.waiting if not w[1]['stored']]
        self.send(method(1, pika.spec.Basic.Ack(tag, multiple)))

    def confirm_each(self, idle):
        for tag, _ in list(self.waiting):
            self.ack(tag)

    def confirm_multiple(self, idle):
        if self.full(idle):
            self.ack(self.waiting[-1][0], True)

    def confirm_reverse(self, idle):
        if self.full(idle):
            for tag, _ in reversed(list(self.waiting)):
                self.ack(tag)

    def confirm_random(self, idle):
        """Singles and multiples in any order, of which none is said twice."""
        while self.full(idle) and self.waiting:
            self.ack(random.choice(self.waiting)[0], random.random() < 0.3)

    def confirm_mixed_nack(self, idle):
        """The last of a group is refused, what is before it accepted."""
        if not self.full(idle):
            return
        if len(self.waiting) > 1:
            self.ack(self.waiting[-2][0], True)
        self.send(method(1, pika.spec.Basic.Nack(self.waiting.pop()[0])))
        self.count('met')

    def confirm_nack_some(self, idle):
        """Each third message is refused."""
        for tag, _ in list(self.waiting):
            self.arrivals += 1
            if self.arrivals % 3:
                self.ack(tag)
            else:
                self.waiting = [w for w in self.waiting if w[0] != tag]
                self.send(method(1, pika.spec.Basic.Nack(tag)))
                self.count('met')

    def confirm_nack_first(self, idle):
        """The second half of a group is refused before the first one is accepted."""
        if not self.full(idle):
            return
        half = (len(self.waiting) + 1) // 2
        refused, self.waiting = self.waiting[half:], self.waiting[:half]
        for tag, _ in refused:
            self.send(method(1, pika.spec.Basic.Nack(tag)))
        time.sleep(IDLE_SECONDS)
        self.ack(self.waiting[-1][0], True)
        self.count('met')

    def confirm_nack_all(self, idle):
        if self.full(idle):
            self.send(method(1, pika.spec.Basic.Nack(self.waiting[-1][0], True)))
            self.waiting = []
            self.count('met')

    def confirm_return(self, idle):
        """Poison is handed back, and acknowledged as it must be."""
        tag, message = self.waiting[-1]
        if message['routing_key'] == POISON:
            self.hand_back(message['message_id'])
            self.waiting.pop()
            self.send(method(1, pika.spec.Basic.Ack(tag)))
        else:
            self.ack(tag)

    def hand_back(self, message_id):
        properties = pika.spec.BasicProperties(message_id=message_id)
        self.send(
            method(1, pika.spec.Basic.Return(312, 'NO_ROUTE', 'x', POISON)) +
            pika.frame.Header(1, 3, properties).marshal() +
            pika.frame.Body(1, b'xyz').marshal())
        self.count('met')

    def confirm_return_unknown(self, idle):
        """Something is handed back that was never sent."""
        self.hand_back('00000000-0000-0000-0000-000000000000')
        self.confirm_each(idle)

    def nonsense(self, *acks):
        """Confirms that mean nothing: no message is stored."""
        for tag, multiple in acks:
            self.send(method(1, pika.spec.Basic.Ack(tag, multiple)))
        self.waiting = []
        self.count('met')

    def confirm_future(self, idle):
        self.nonsense((self.tag + 1000, False))

    def confirm_future_multiple(self, idle):
        self.nonsense((self.tag + 1000, True))

    def confirm_zero(self, idle):
        self.nonsense((0, False))

    def confirm_largest(self, idle):
        self.nonsense((2 ** 64 - 1, False))

    def confirm_nack_future(self, idle):
        self.send(method(1, pika.spec.Basic.Nack(self.tag + 1000)))
        self.waiting = []
        self.count('met')

    def confirm_twice(self, idle):
        for tag, _ in list(self.waiting):
            self.ack(tag)
            self.send(method(1, pika.spec.Basic.Ack(tag)))
        self.count('met')

    def confirm_none(self, idle):
        pass

    def closing(self, what):
        code = self.behaviour['code']
        text = f'the text of {code}'
        if what == 'channel':
            return method(1, pika.spec.Channel.Close(code, text, 60, 40))
        return method(0, pika.spec.Connection.Close(code, text, 60, 40))

    def confirm_close(self, idle):
        """Closes the channel or the connection, whatever arrives."""
        if self.waiting:
            self.waiting = []
            self.count('met')
            self.send(self.closing(self.behaviour['where']))

    def confirm_close_channel(self, idle):
        """Closes the channel, with everything on it, because of poison."""
        tag, message = self.waiting[-1]
        if message['routing_key'] != POISON:
            return self.confirm_multiple(idle)
        self.waiting = []
        self.count('met')
        self.send(method(1, pika.spec.Channel.Close(404, 'NOT_FOUND - no exchange', 60, 40)))


CONFIRM = {
    name[len('confirm_'):]: function for name, function in vars(Connection).items()
    if name.startswith('confirm_')}
CONFIRM['ack_early'] = CONFIRM['each']


def main():
    broker = Broker()
    threading.Thread(target=broker.serve, daemon=True).start()
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        if what == 'end':
            return
        print(json.dumps(getattr(broker, what)(*arguments)), flush=True)


main()
