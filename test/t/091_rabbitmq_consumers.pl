# What a consumer of RabbitMQ sees of each envelope; an example consumer of the
# documentation; a program that wants the envelope dispytch whole.

use strict;
use warnings;

use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

use DispatchTest;
use RabbitServer;

my $rabbit = RabbitServer->new;
my $client = $rabbit->client;
my $node = new_cluster('rabbitconsumers', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);
my $json = JSON::PP->new->utf8->allow_nonref;

my $DATA = qq({"n": 1, "text": "\x{e9} \x{1f600} \\"", "list": [1.50, null]});
my $DATA_BYTES = $DATA;

utf8::encode($DATA_BYTES);
$session->do('CREATE EXTENSION dispatch');

# events(envelope, options of the backend): three events, with all that there
# is, without data and subject, with JSON null; what comes of each: [id,
# milliseconds, message, time as text].
sub events
{
	my ($name, %options) = @_;
	my @ids;

	$client->queue($name);
	$rabbit->create_backend($node, name => $name, exchange => '', routing_key => $name, %options);
	foreach ([ $DATA, 'orders/1' ], [ undef, undef ], [ 'null', undef ])
	{
		push @ids, $session->selectrow_array(
			q(SELECT dispatch.publish('order.created', 'shop', ?, backend => ?, subject => ?,
				key => 'k')), undef, $_->[0], $name, $_->[1]);
	}
	ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '30s', $name),
		"$name: all is delivered");
	my @messages = $client->drain($name);
	is(@messages, 3, "$name: three messages");
	return map {
		my ($ms, $time) = $session->selectrow_array(
			q(SELECT floor(extract(epoch FROM created_at) * 1000)::bigint,
				to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00')
			  FROM dispatch.events WHERE event_id = ?), undef, $ids[$_]);
		[ $ids[$_], $ms, $messages[$_], $time ]
	} 0 .. 2;
}

# The properties that all envelopes have, and these.
sub properties_ok
{
	my ($what, $event, %more) = @_;
	my ($id, $ms, $message) = @$event;

	is_deeply(
		$message->{properties},
		{
			message_id => $id, type => 'order.created', timestamp => int($ms / 1000),
			delivery_mode => 2, %more
		},
		"$what: properties");
}

# ---- cloudevents

my @events = events('structured');
my @expected = map {
	{ specversion => '1.0', type => 'order.created', source => 'shop', id => $_->[0],
		time => $_->[3] }
} @events;
$expected[0]{subject} = 'orders/1';
$expected[0]{data} = $json->decode($DATA_BYTES);
$expected[2]{data} = undef;
$expected[$_]{datacontenttype} = 'application/json' foreach 0, 2;
foreach my $i (0 .. 2)
{
	properties_ok("cloudevents $i", $events[$i],
		content_type => 'application/cloudevents+json; charset=UTF-8');
	is_deeply($json->decode($events[$i][2]{body}), $expected[$i], "cloudevents $i: the event");
}

# ---- cloudevents_binary

foreach my $prefix ('cloudEvents_', 'cloudEvents:', 'ce-')
{
	my $name = "binary $prefix";

	@events = events($name, envelope => 'cloudevents_binary',
		$prefix eq 'cloudEvents_' ? () : (cloudevents_prefix => $prefix));
	foreach my $i (0 .. 2)
	{
		my %attribute = map { $_ => $expected[$i]{$_} } qw(specversion type source);

		@attribute{qw(id time)} = @{ $events[$i] }[ 0, 3 ];
		$attribute{subject} = 'orders/1' if $i == 0;
		properties_ok("$name $i", $events[$i],
			$i == 1 ? () : (content_type => 'application/json'),
			headers => { map { ("$prefix$_" => [ 'S', $attribute{$_} ]) } keys %attribute });
	}
	is_deeply($json->decode($events[0][2]{body}), $expected[0]{data}, "$name: the body is the data");
	is($events[1][2]{body}, '', "$name: no data, no body");
	is($events[2][2]{body}, 'null', "$name: null is data");
}

# Extensions, and headers of one's own beside them
my $cloud_event = '{"specversion": "1.0", "id": "A-1", "type": "t", "source": "/s", '
  . '"traceparent": "00-ab", "sequence": 7, "datacontenttype": "text/plain", "data": "abc"}';
$session->do(q(SELECT dispatch.publish_cloudevent(?, backend => 'binary ce-', key => 'k',
	options => '{"headers": {"own": 1}}')), undef, $cloud_event);
ok($session->selectrow_array('SELECT dispatch.flush()'), 'an event with extensions');
my ($message) = $client->drain('binary ce-');
my %header = %{ $message->{properties}{headers} };
is_deeply([ @header{qw(ce-id ce-type ce-source ce-traceparent ce-sequence own)} ],
	[ [ S => 'A-1' ], [ S => 't' ], [ S => '/s' ], [ S => '00-ab' ], [ S => '7' ], [ I => 1 ] ],
	'extensions are headers, too, beside those of the event');
like($message->{properties}{content_type}, qr{\Atext/plain}, 'the content type of the data');
is($message->{body}, 'abc', 'which is no JSON');

# Binary data
$session->do(q(SELECT dispatch.publish_binary('b', 's', '\x00ff0a'::bytea,
	content_type => 'application/x-own', backend => 'binary ce-', key => 'k')));
ok($session->selectrow_array('SELECT dispatch.flush()'), 'an event with bytes');
($message) = $client->drain('binary ce-');
is($message->{body}, "\x00\xff\x0a", 'bytes arrive as they are');
is($message->{properties}{content_type}, 'application/x-own', 'with their content type');

# ---- dispytch

@events = events('dispytch', envelope => 'dispytch');
foreach my $i (0 .. 2)
{
	properties_ok("dispytch $i", $events[$i], content_type => 'application/json');
}
is_deeply(
	$json->decode($events[0][2]{body}),
	{
		id => $events[0][0], type => 'order.created', timestamp => $events[0][1],
		body => $expected[0]{data}
	},
	'dispytch: its four fields');

# A program that refuses what lacks a field.  It is ours, none of Dispytch.
events('listener', envelope => 'dispytch');
$session->do(q(SELECT dispatch.publish('order.created', 'shop',
	CASE WHEN n > 1 THEN jsonb_build_object('n', n) END,
	backend => 'listener', key => 'k') FROM generate_series(1, 20) AS n));
ok($session->selectrow_array('SELECT dispatch.flush()'), 'events for the listener');
my ($out, $err) = ('', '');
ok( IPC::Run::run(
		[ '/usr/bin/python3', 'test/python/dispytch_listener.py', $rabbit->port, 'listener', 20 ],
		'<', \undef, '>', \$out, '2>', \$err),
	'dispytch: it refuses no message') or diag($err);
is_deeply([ map { $json->decode($_)->{body}{n} } split /\n/, $out ], [ undef, 2 .. 20 ],
	'dispytch: it has read all of them, in order, also one without data');

# ---- data

@events = events('data', envelope => 'data');
properties_ok('data', $events[0], content_type => 'application/json');
properties_ok('data: none', $events[1]);
is_deeply($json->decode($events[0][2]{body}), $expected[0]{data}, 'data: the body is the data');
is($events[1][2]{body}, '', 'data: no data, no body');
is($events[2][2]{body}, 'null', 'data: null is data');

# ---- The example of the documentation

$client->queue('billing');
$rabbit->create_backend($node, name => 'billing', exchange => '', routing_key => 'billing');
$session->do(q(SELECT dispatch.publish('order.created', 'shop', jsonb_build_object('order', n),
	backend => 'billing', key => 'k') FROM generate_series(1, 30) AS n));
ok($session->selectrow_array('SELECT dispatch.flush()'), 'events for the example');

# Its reader has to remember what he has seen; this one ends with the last event.
my $prelude = join "\n", 'import sys', 'known = set()',
  'def seen(message_id):',
  "\treturn message_id in known or known.add(message_id)",
  'def handle(event_type, data):',
  "\tprint(event_type, data['order'], flush=True)",
  "\tif data['order'] == 30: sys.exit()", '';
my ($example) = slurp_file('docs/rabbitmq.md') =~ /```python\n(.*?)```/s;
my $file = PostgreSQL::Test::Utils::tempdir() . '/example.py';
my $port = $rabbit->port;

$example =~ s/ConnectionParameters\('localhost'\)/ConnectionParameters('127.0.0.1', $port)/;
append_to_file($file, $prelude . $example);
($out, $err) = ('', '');
ok(IPC::Run::run([ 'timeout', 60, '/usr/bin/python3', $file ],
		'<', \undef, '>', \$out, '2>', \$err), 'the example runs') or diag($err);
is($out, join('', map { "order.created $_\n" } 1 .. 30), 'and handles all events, in order');

log_ok($node);
$node->stop;
done_testing();
