# What is published arrives in Kafka: in the topic, the partition, under the key
# and with the headers that were asked for. What cannot arrive fails alone.

use strict;
use warnings;
use utf8;

use Encode qw(encode_utf8);
use JSON::PP ();
use POSIX ();
use Test::More;

use DispatchTest;
use KafkaBackend;
use PostgreSQL::Test::Utils;

my $PARTITIONS = 12;

# It would make any topic that is asked for, if it were asked to.
my $kafka = KafkaServer->new(conf => { 'auto.create.topics.enable' => 'true' });
my $node = new_cluster(
	'kafka', "dispatch.max_retries = 1\ndispatch.retry_delay = '100 ms'",
	extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);
my $json = JSON::PP->new->allow_nonref->canonical;

$session->do('CREATE EXTENSION dispatch');

sub sql { return value_of($session, @_); }

# publish(type => ..., data => ..., options => {...}, ...)
sub publish
{
	my (%args) = (type => 't', source => 's', @_);

	return sql(
		'SELECT dispatch.publish(?, ?, ?, backend => ?, key => ?, subject => ?, options => ?)',
		@args{qw(type source data backend key subject)},
		$args{options} && $json->encode($args{options}));
}

# All is settled, also what had to be tried again.
sub settle
{
	my ($what) = @_;

	wait_until(
		sub {
			sql(q(SELECT dispatch.flush('10 s')))
			  && sql('SELECT sum(pending) = 0 FROM dispatch.backend_status');
		},
		"all is settled: $what", 60);
	return;
}

sub refused_ok
{
	my ($pattern, $what, %args) = @_;

	ok(!eval { publish(%args); 1 }, "an error of publish(): $what");
	like($@, $pattern, "which says so: $what");
	return;
}

# The only record of a topic
sub record_of
{
	my ($topic) = @_;
	my @records = $kafka->records($topic);

	is(scalar @records, 1, "one record in topic $topic");
	return $records[0];
}

sub partitions_used
{
	my %used = map { $_->{partition} => 1 } @_;

	return scalar keys %used;
}

# Of pairs of key and number: those with a number that is not above all before
# it that have the same key
sub out_of_order
{
	my %last;

	return grep {
		my $before = $last{ $_->[0] } // 0;

		$last{ $_->[0] } = $_->[1];
		$before >= $_->[1]
	} @_;
}

# dead_letter_ok(event_id, attempts, pattern, what)
sub dead_letter_ok
{
	my ($id, $attempts, $pattern, $what) = @_;
	my ($tries, $error) = $session->selectrow_array(
		'SELECT attempts, last_error FROM dispatch.dead_letters WHERE event_id = ?', undef, $id);

	is($tries, $attempts, "$what: a dead letter after $attempts attempt(s)");
	like($error // '', $pattern, "$what: with the reason");
	return;
}

# ---- An event

$kafka->create_topic('events');
create_kafka_backend($node, $kafka);
my $id = publish(
	type => 'user.created', source => 'shop', data => '{"id": 7, "list": [1, 2.50, null, "ü"]}',
	subject => 'users/7', key => 'users/7');
settle('one event');
my $record = record_of('events');
my ($time, $milliseconds) = $session->selectrow_array(
	q(SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00',
		floor(extract(epoch FROM created_at) * 1000)::bigint FROM dispatch.outbox));
is($record->{value},
	encode_utf8('{"specversion": "1.0", "type": "user.created", "source": "shop", '
		  . qq("id": "$id", "time": "$time", "subject": "users/7", )
		  . '"datacontenttype": "application/json", '
		  . '"data": {"id": 7, "list": [1, 2.50, null, "ü"]}}'),
	'the value is the CloudEvent');
is($record->{key}, 'users/7', 'the key is that of the event');
is_deeply([ @$record{qw(timestamp timestamp_type)} ],
	[ $milliseconds, 0 ], 'the timestamp is when it was published');

# ---- Topics

foreach my $topic ('orders.se', 'own', 'n' x 249, 'typed')
{
	$kafka->create_topic($topic);
}
create_kafka_backend(
	$node, $kafka, name => 'routed', topic => 'orders.{data.country}', envelope => 'data');
sql(q(SELECT dispatch.define_event_type('typed', topic => '{event_type}', partition_by => 'k')));
publish(backend => 'routed', data => '{"country": "se"}');
publish(backend => 'routed', data => '1', options => { topic => 'own' });
publish(backend => 'routed', data => '2', options => { topic => 'n' x 249 });
publish(backend => 'routed', data => '{"k": "by path"}', type => 'typed');
settle('topics');
is(record_of('orders.se')->{value}, '{"country": "se"}', 'a topic of a template');
is(record_of('own')->{value}, '1', 'a topic of the event');
is(record_of('n' x 249)->{value}, '2', 'the longest name of a topic');
is(record_of('typed')->{key}, 'by path', 'topic and key of the event type');
refused_ok(qr/country/, 'a template that cannot be rendered', backend => 'routed', data => '{}');
refused_ok(
	qr/topic/, 'a topic with a longer name',
	backend => 'routed', data => '1', options => { topic => 'n' x 250 });

# ---- Keys, and where they go

$kafka->create_topic('keys', partitions => $PARTITIONS);
create_kafka_backend(
	$node, $kafka, name => 'keys', topic => 'keys', envelope => 'data',
	partition_key => 'order {data.n}');
publish(backend => 'keys', data => '{"n": 1}', key => 'not this');
publish(
	backend => 'keys', data => '{"n": 2}', key => 'not this',
	options => { partition_key => '{subject}' }, subject => 'of the event');
settle('partition keys');
is_deeply(
	{ map { $_->{value} => $_->{key} } $kafka->records('keys') },
	{ '{"n": 1}' => 'order 1', '{"n": 2}' => 'of the event' },
	'partition_key comes before the key, that of the event before that of the backend');

# From Kafka's own tests: keys and their murmur2, as a signed integer
my %murmur2 = (
	'21' => -973932308,
	'foobar' => -790332482,
	'a-little-bit-long-string' => -985981536,
	'a-little-bit-longer-string' => -1486304829,
	'lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8' => -58897971,
	'abc' => 479470107);
my @keys = (
	(sort keys %murmur2), (map { "key $_" } 1 .. 150), (map { 'x' x $_ } 1 .. 40),
	'ünïcode', "\x{4e2d}\x{6587}", "\x{1f600}", "a\nb", '{data}', 'k' x 40_000);
is_deeply(
	[ map { $_ & 0xffffffff } @{ $kafka->ask('hashes', keys => [ sort keys %murmur2 ]) } ],
	[ map { $murmur2{$_} & 0xffffffff } sort keys %murmur2 ],
	'the Python client has the murmur2 of Java');
$kafka->create_topic('placed', partitions => $PARTITIONS);
create_kafka_backend($node, $kafka, name => 'placed', topic => 'placed', envelope => 'data');
$session->do(
	q(SELECT dispatch.publish('t', 's', to_jsonb(n), backend => 'placed', key => key)
	FROM unnest(?::text[]) WITH ORDINALITY AS k (key, n)), undef, \@keys);
settle('keys');
my $placement = $kafka->ask('placement', keys => \@keys, partitions => $PARTITIONS);
my @records = $kafka->records('placed');
is_deeply(
	{ map { $_->{value} => $_->{key} } @records },
	{ map { $_ + 1 => encode_utf8($keys[$_]) } 0 .. $#keys },
	'keys arrive byte for byte');
is_deeply(
	{ map { $_->{value} => $_->{partition} } @records },
	{ map { $_ + 1 => $placement->[$_] } 0 .. $#keys },
	'and are where a producer in Java puts them');
is(partitions_used(@records), $PARTITIONS, 'in every partition');

# Without a key: no key, and not always the same partition
$kafka->create_topic('keyless', partitions => $PARTITIONS);
create_kafka_backend($node, $kafka, name => 'keyless', topic => 'keyless', envelope => 'data');
foreach my $n (1 .. 10)
{
	publish(backend => 'keyless', data => $n);
	sql(q(SELECT dispatch.flush('60 s', 'keyless')));
}
@records = $kafka->records('keyless');
is_deeply([ sort { $a <=> $b } map { $_->{value} } @records ], [ 1 .. 10 ], 'events without a key');
is(scalar(grep { defined $_->{key} } @records), 0, 'have none');
cmp_ok(partitions_used(@records), '>', 1, 'and are spread');

# ---- Partition, time, headers

$kafka->create_topic('options', partitions => 4);
create_kafka_backend($node, $kafka, name => 'options', topic => 'options', envelope => 'data');
my %headers = (
	text => "ü \x{1f600}", empty => '', integer => 42, fraction => 2.5, yes => JSON::PP::true,
	no => JSON::PP::false, nothing => undef, 'with blank' => '{event_type}');
foreach my $partition (0 .. 3)
{
	publish(
		backend => 'options', data => $partition, key => 'same',
		options => { partition => $partition, timestamp_ms => 1_500_000_000_000 + $partition });
}
publish(backend => 'options', data => '4', options => { partition => 0, headers => \%headers });
settle('options');
my %by_value = map { $_->{value} => $_ } $kafka->records('options');
is_deeply(
	[ map { [ @{ $by_value{$_} }{qw(partition key timestamp)} ] } 0 .. 3 ],
	[ map { [ $_, 'same', 1_500_000_000_000 + $_ ] } 0 .. 3 ],
	'partition wins over the key, which is written all the same; so is timestamp_ms');
my %arrived = map { $_->[0] => $_->[1] } @{ $by_value{4}{headers} };
delete $arrived{'content-type'};
is_deeply(
	\%arrived,
	{
		text => encode_utf8("ü \x{1f600}"), empty => '', integer => '42', fraction => '2.5',
		yes => 'true', no => 'false', nothing => undef, 'with blank' => '{event_type}'
	},
	'headers of every scalar, and null');
refused_ok(qr/$_->[1]/, $_->[0], backend => 'options', data => '1', options => $_->[2])
  foreach (
	[ 'a header of ours', 'ce_id', { headers => { ce_id => 'x' } } ],
	[ 'another one', 'content-type', { headers => { 'content-type' => 'x' } } ],
	[ 'a header that is no scalar', 'headers', { headers => { x => [1] } } ],
	[ 'a negative partition', 'partition', { partition => -1 } ],
	[ 'a partition that is a text', 'partition', { partition => 'first' } ],
	[ 'a time before 1970', 'timestamp_ms', { timestamp_ms => -1 } ],
	[ 'an option that there is not', 'colour', { colour => 'blue' } ]);

# A partition that there is not
my @ids = map {
	publish(
		backend => 'options', data => 10 + $_, key => "k$_",
		options => $_ == 3 ? { partition => 99 } : undef)
} 1 .. 5;
settle('no such partition');
is_deeply(
	[ sort { $a <=> $b } grep { $_ > 10 } map { $_->{value} } $kafka->records('options') ],
	[ 11, 12, 14, 15 ], 'no such partition: the others arrive');
dead_letter_ok($ids[2], 2, qr/partition/i, 'no such partition');

# ---- No data

$kafka->create_topic('nothing');
foreach my $envelope (qw(data cloudevents_binary cloudevents))
{
	create_kafka_backend(
		$node, $kafka, name => "no $envelope", topic => 'nothing', envelope => $envelope);
	publish(backend => "no $envelope", key => "$envelope");
	publish(backend => "no $envelope", key => "$envelope null", data => 'null');
	publish(backend => "no $envelope", key => "$envelope empty", data => '""');
}
settle('no data');
my %value = map { $_->{key} => $_->{value} } $kafka->records('nothing');
is($value{$_}, undef, "$_: no data, null value") foreach qw(data cloudevents_binary);
is($value{"$_ null"}, 'null', "$_: JSON null is data") foreach qw(data cloudevents_binary);
is($value{"$_ empty"}, '""', "$_: so is an empty text") foreach qw(data cloudevents_binary);
unlike($value{cloudevents}, qr/"data/, 'cloudevents: no data, no member "data"');
like($value{'cloudevents null'}, qr/, "data": null}$/, 'cloudevents: JSON null');

# ---- What Kafka refuses, or would refuse: alone

$kafka->create_topic('compacted', config => { 'cleanup.policy' => 'compact' });
create_kafka_backend($node, $kafka, name => 'compacted', topic => 'compacted', envelope => 'data');
@ids = map { publish(backend => 'compacted', data => $_, key => $_ == 3 ? undef : 'k') } 1 .. 5;
settle('compacted');
is_deeply([ map { $_->{value} } $kafka->records('compacted') ],
	[ 1, 2, 4, 5 ], 'compacted topic: events with a key arrive, in order');
dead_letter_ok($ids[2], 1, qr/./, 'compacted topic: an event without a key');

create_kafka_backend($node, $kafka, name => 'names', topic => '{subject}', envelope => 'data');
$kafka->create_topic('good');
@ids = map { publish(backend => 'names', data => 1, subject => $_) }
  'good', 'no blanks', "\x{fc}", '..', 'good';
settle('names of topics');
is(scalar $kafka->records('good'), 2, 'a bad name of a topic: the others arrive');
dead_letter_ok($ids[$_], 1, qr/topic/i, "a bad name of a topic: $_") foreach 1 .. 3;
refused_ok(
	qr/topic/, 'a rendered name that is too long', backend => 'names', data => 1,
	subject => 'n' x 250);

# Too large for a message, which librdkafka knows, and for a topic, which only
# Kafka knows and of a batch as a whole
$kafka->create_topic('large');
$kafka->create_topic('small', config => { 'max.message.bytes' => 2000 });
create_kafka_backend($node, $kafka, name => $_, topic => $_, envelope => 'data', linger => 0.2)
  foreach qw(large small);
foreach my $of (
	[ 'large', 2_000_000, 'MSG_SIZE_TOO_LARGE|too large|size' ],
	[ 'small', 5_000, 'too large|size' ])
{
	my ($backend, $size, $pattern) = @$of;

	@ids = @{
		$session->selectcol_arrayref(
			q(SELECT dispatch.publish('t', 's', to_jsonb(lpad(n::text,
				CASE n WHEN 20 THEN ? ELSE 300 END)), backend => ?, key => 'k' || n % 3)
			FROM generate_series(1, 40) AS n), undef, $size, $backend) };
	settle("too large: $backend");
	my @arrived = map { [ $_->{key}, $_->{value} =~ /(\d+)/ ] } $kafka->records($backend);

	is_deeply([ sort { $a <=> $b } map { $_->[1] } @arrived ],
		[ grep { $_ != 20 } 1 .. 40 ], "$backend: too large for it is one, the others arrive, once");
	is_deeply([ out_of_order(@arrived) ], [], "$backend: in the order of their keys");
	dead_letter_ok($ids[19], 1, qr/$pattern/i, "$backend: too large");
}

# ---- A topic that there is not

create_kafka_backend($node, $kafka, name => 'later', topic => '{subject}', envelope => 'data');
publish(backend => 'later', data => $_, subject => $_ % 2 ? 'good' : 'late', key => "k$_")
  foreach 101 .. 140;
wait_until(sub { 22 == $kafka->records('good') }, 'the events of the topic that there is');
my $later = q(SELECT pending, last_error FROM dispatch.backend_status WHERE name = 'later');
wait_until(sub { 20 == sql($later) }, 'its events to wait, and no others');
publish(backend => 'later', data => 141, subject => 'good', key => 'k141');
wait_until(sub { 23 == $kafka->records('good') }, 'an event that comes later');
is(sql(q(SELECT count(*) FROM dispatch.dead_letters WHERE backend = 'later')),
	0, 'no such topic: no event has failed');
like(($session->selectrow_array($later))[1], qr/topic/i, 'no such topic: the view says so');
$kafka->create_topic('late');
settle('the topic is there');
is_deeply([ map { $_->{value} } $kafka->records('late') ],
	[ map { 2 * $_ } 51 .. 70 ], 'its events arrive when it is made, once and in order');

# One that is made by asking for it: only if the backend says so
create_kafka_backend(
	$node, $kafka, name => 'maker', topic => 'made', envelope => 'data',
	config => { 'allow.auto.create.topics' => JSON::PP::true });
publish(backend => 'maker', data => '1');
settle('a topic that Kafka makes');
is(record_of('made')->{value}, '1', 'a topic that Kafka makes');

# ---- Many

$kafka->create_topic('many', partitions => $PARTITIONS);
create_kafka_backend($node, $kafka, name => 'many', topic => 'many');
$session->do(q(SELECT dispatch.publish('n', 's', to_jsonb(n), backend => 'many',
	key => 'k' || n % 50) FROM generate_series(1, 20000) AS n));
settle('20,000 events');
my @data = topic_data($kafka, 'many');
is_deeply([ sort { $a <=> $b } @data ],
	[ 1 .. 20_000 ], '20,000 events of a transaction, each once');
is_deeply([ out_of_order(map { [ $_ % 50, $_ ] } @data) ], [], 'in the order of their keys');

# ---- Records that are deleted while others are on their way

$kafka->create_topic('deleted');
create_kafka_backend($node, $kafka, name => 'deleted', topic => 'deleted', envelope => 'data');
# Small ones: it takes a while.
$session->do(q(UPDATE dispatch.backends SET batch_size = 50 WHERE name = 'deleted'));
$session->do(q(SELECT dispatch.publish('n', 's', to_jsonb(n), backend => 'deleted', key => 'k')
	FROM generate_series(1, 20000) AS n));
my $in_flight = q(SELECT pending FROM dispatch.backend_status WHERE name = 'deleted');
my $deletions = 0;
while (sql($in_flight) > 0)
{
	# All that is there
	$kafka->ask('delete_records', topic => 'deleted', partition => 0, before => -1);
	$deletions++ if sql($in_flight) > 0;
}
cmp_ok($deletions, '>', 0, "records are deleted $deletions times with events in flight");
publish(backend => 'deleted', data => '"last"', key => 'k');
settle('records are deleted');
my @kept = $kafka->records('deleted');
is_deeply([ @{ $kept[-1] }{qw(offset value)} ], [ 20_000, '"last"' ],
	'each event was written once');
is_deeply([ map { $_->{value} } @kept[ 0 .. $#kept - 1 ] ],
	[ map { $_->{offset} + 1 } @kept[ 0 .. $#kept - 1 ] ], 'and what is left is in order');
is(sql(q(SELECT max(attempts) FROM dispatch.events WHERE backend = 'deleted')), 0,
	'no event has lost an attempt');

# ---- The threads of the library: no signal for the worker reaches one of them

my $worker = backend_pid($node, 'deleted');
my %blocked = map {
	my ($mask) = slurp_file("/proc/$worker/task/$_/status") =~ /^SigBlk:\s+([0-9a-f]+)$/m;
	$_ => hex $mask
} map { m{(\d+)$} } glob "/proc/$worker/task/*";
my $mine = delete $blocked{$worker};
foreach my $signal (qw(HUP INT TERM USR1))
{
	my $bit = 1 << (POSIX->can("SIG$signal")->() - 1);

	is($mine & $bit, 0, "SIG$signal: the worker takes it");
	is(scalar(grep { !($_ & $bit) } values %blocked), 0, "SIG$signal: no other thread does");
}
cmp_ok(scalar keys %blocked, '>', 2, 'there are other threads');

# Errors of processes of ours: those of sessions are tested above.
log_ok($node, qr/\[\d+\] ERROR:/);
$node->stop;
done_testing();
