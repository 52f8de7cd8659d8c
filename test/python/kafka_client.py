"""A client of Kafka that knows nothing of dispatch nor of librdkafka: what the
tests of the transport administer brokers with, and read topics with.

    kafka_client.py

Takes requests from its standard input, a line of JSON each, {"op": ...,
"servers": "host:port,..."} and what the operation takes, and answers each with
a line: {"ok": value} or {"error": text}.  What "read" returns is a number of
records, which follow, a line each: partition, offset, timestamp, type of the
timestamp, key, value, and names and values of the headers, separated by tabs,
bytes as base64, null as "-".  A client is made for every request: brokers come
and go in between.
"""
import base64
import contextlib
import json
import sys
import time

import kafka
import kafka.admin
from kafka.partitioner.default import murmur2

TIMEOUT_MS = 20000
READ_SECONDS = 120


class Lines(list):
    """What follows an answer, line by line; the answer is their number."""


@contextlib.contextmanager
def admin(servers):
    client = kafka.admin.KafkaAdminClient(
        bootstrap_servers=servers.split(','), request_timeout_ms=TIMEOUT_MS)
    try:
        yield client
    finally:
        client.close()


def text(value):
    """Bytes as base64: never empty, so that null and nothing differ."""
    return '-' if value is None else '=' + base64.b64encode(value).decode()


def create_topic(servers, topic, partitions, replication, config, assignment=None):
    options = {'configs': config}
    if assignment:
        options['assignments'] = {int(p): ids for p, ids in assignment.items()}
    else:
        options.update(num_partitions=partitions, replication_factor=replication)
    with admin(servers) as client:
        client.create_topics({topic: options})


def delete_topic(servers, topic):
    with admin(servers) as client:
        client.delete_topics([topic])


def add_partitions(servers, topic, count):
    with admin(servers) as client:
        client.create_partitions({topic: count})


def alter_topic(servers, topic, config):
    resource = kafka.admin.ConfigResource('TOPIC', topic, configs=config)
    with admin(servers) as client:
        client.alter_configs([resource])


def delete_records(servers, topic, partition, before):
    with admin(servers) as client:
        client.delete_records({kafka.TopicPartition(topic, partition): before})


def add_user(servers, name, password, mechanism):
    change = kafka.admin.UserScramCredentialUpsertion(
        name, kafka.admin.ScramMechanism[mechanism.replace('-', '_')], password, iterations=4096)
    with admin(servers) as client:
        errors = client.alter_user_scram_credentials([change])
    if any(errors.values()):
        raise RuntimeError(errors)


def allow(servers, user, operation, topic, deny=False):
    """An access control entry for a topic; "*" is all of them."""
    permission = kafka.admin.ACLPermissionType.DENY if deny else kafka.admin.ACLPermissionType.ALLOW
    entry = kafka.admin.ACL(
        f'User:{user}', '*', kafka.admin.ACLOperation[operation], permission,
        kafka.admin.ResourcePattern(kafka.admin.ResourceType.TOPIC, topic))
    with admin(servers) as client:
        answer = client.create_acls([entry])
    if answer['failed']:
        raise RuntimeError(answer['failed'])


def move_leaders(servers, topic, replicas):
    """Makes the first of the replicas the leader of each partition."""
    wanted = {kafka.TopicPartition(topic, int(p)): ids for p, ids in replicas.items()}
    with admin(servers) as client:
        client.alter_partition_reassignments(wanted)
        client.elect_leaders(0, {topic: [int(p) for p in replicas]}, raise_errors=False)


def line_of(record):
    headers = [part for name, value in record.headers
               for part in (text(name.encode()), text(value))]
    return '\t'.join([
        str(record.partition), str(record.offset), str(record.timestamp),
        str(record.timestamp_type), text(record.key), text(record.value), *headers])


def partitions_of(consumer, topic):
    """A topic that has just been made is not known to every broker yet."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not (partitions := consumer.partitions_for_topic(topic)):
        if time.monotonic() > deadline:
            raise RuntimeError(f'topic {topic} is not there')
        time.sleep(0.05)
    return [kafka.TopicPartition(topic, p) for p in sorted(partitions)]


def check_complete(partition, offsets, start, end):
    """What the reader has missed, the tests must not take for lost."""
    if offsets[:end - start] != list(range(start, end)):
        raise RuntimeError(f'{partition}: of {start} to {end} the reader got {offsets}')


def read(servers, topic):
    """All records of a topic, those of a partition in their order."""
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=servers.split(','), enable_auto_commit=False,
        auto_offset_reset='earliest', fetch_max_bytes=64 << 20,
        max_partition_fetch_bytes=32 << 20)
    with contextlib.closing(consumer):
        partitions = partitions_of(consumer, topic)
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        starts = consumer.beginning_offsets(partitions)
        ends = consumer.end_offsets(partitions)
        offsets = {p: [] for p in partitions}
        lines = []
        deadline = time.monotonic() + READ_SECONDS
        while any(consumer.position(p) < ends[p] for p in partitions):
            if time.monotonic() > deadline:
                raise RuntimeError(f'topic {topic}: the end does not come')
            for partition, records in consumer.poll(timeout_ms=200, max_records=10000).items():
                offsets[partition] += [record.offset for record in records]
                lines += [line_of(record) for record in records]
    for p in partitions:
        check_complete(p, offsets[p], starts[p], ends[p])
    return Lines(lines)


def placement(keys, partitions):
    """Where Java's default partitioner puts each key."""
    return [(murmur2(key.encode()) & 0x7fffffff) % partitions for key in keys]


def hashes(keys):
    return [murmur2(key.encode()) for key in keys]


OPERATIONS = {operation.__name__: operation for operation in (
    create_topic, delete_topic, add_partitions, alter_topic, delete_records, add_user, allow,
    move_leaders, read, placement, hashes)}

for request in sys.stdin:
    arguments = json.loads(request)
    lines = []
    try:
        value = OPERATIONS[arguments.pop('op')](**arguments)
        if isinstance(value, Lines):
            value, lines = len(value), value
        answer = {'ok': value}
    except Exception as error:  # the test is told, whatever it is
        answer = {'error': f'{type(error).__name__}: {error}'}
    print(json.dumps(answer), *lines, sep='\n', flush=True)
