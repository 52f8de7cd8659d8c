# What is published arrives in RabbitMQ byte for byte, with the properties that
# it was given; what cannot arrive harms nobody else.

use strict;
use warnings;

use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use RabbitServer;

my $FRAME_MAX = 131_072;		# of RabbitMQ, and what is around a body in it:
my $FRAME_OVERHEAD = 8;
my $MAX_MESSAGE = 2_000_000;

my $rabbit = RabbitServer->new;
my $client = $rabbit->client;
my $node = new_cluster('rabbitmq', "dispatch.retry_delay = '100ms'",
	extra => [ '--no-sync', '--encoding=UTF8' ]);
my $json = JSON::PP->new->utf8->canonical->allow_nonref;

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
my $session = session($node);
$session->{pg_enable_utf8} = 0;		# bytes in, bytes out

sub publish
{
	my ($backend, %args) = @_;

	return $session->selectrow_array(
		'SELECT dispatch.publish(?, ?, ?, backend => ?, key => ?, subject => ?, options => ?)',
		undef, $args{type} // 'x', $args{source} // 's', $args{data} // '1', $backend,
		@args{qw(key subject)}, $args{options} && $json->encode($args{options}));
}

sub flush
{
	ok($session->selectrow_array("SELECT dispatch.flush('60s')"), "flush: $_[0]");
}

sub status_of
{
	my @row = $session->selectrow_array(
		'SELECT status, attempts, last_error FROM dispatch.events WHERE event_id = ?',
		undef, $_[0]);

	return { status => $row[0], attempts => $row[1], error => $row[2] // '' };
}

sub wait_for_status
{
	my ($id, $status) = @_;

	eval { wait_until(sub { status_of($id)->{status} eq $status }, "event $id $status", 60); 1 }
	  or die $@ . $json->encode(status_of($id)) . "\n";
	return;
}

sub ids_of { return map { $_->{properties}{message_id} } @_; }

$client->exchange('events');
$client->queue('all');
$client->bind('all', 'events');

# ---- Nothing is configured but the exchange

$rabbit->create_backend($node, exchange => 'events');
my $id = publish('default', type => 'user.created', source => 'shop', subject => 'users/7',
	data => '{"id": 7, "list": [1, 2.50, null, true, "x"]}');
flush('one event');
my ($message, @more) = $client->drain('all');
is(@more, 0, 'one event makes one message');
is($message->{exchange}, 'events', 'the exchange');
is($message->{routing_key}, 'user.created', 'the routing key is the type of the event');
my ($iso, $seconds) = $session->selectrow_array(
	q(SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00',
		floor(extract(epoch FROM created_at))::bigint FROM dispatch.events));
is($message->{body},
	'{"specversion": "1.0", "type": "user.created", "source": "shop", '
	  . qq("id": "$id", "time": "$iso", "subject": "users/7", )
	  . '"datacontenttype": "application/json", '
	  . '"data": {"id": 7, "list": [1, 2.50, null, true, "x"]}}',
	'the body is the whole CloudEvent');
my $properties = $message->{properties};
like(delete $properties->{content_type}, qr{^application/cloudevents\+json\b}, 'content_type');
is_deeply(
	$properties,
	{ delivery_mode => 2, message_id => $id, type => 'user.created', timestamp => 0 + $seconds },
	'persistent; id, type and time of the event; nothing else');

# ---- Where it goes

$client->exchange($_, 'direct') foreach 'ex gr', 'own';
foreach (
	[ 'ex gr', "k \xC3\xA4.gr" ], [ 'own', 'event.topic' ], [ 'ex gr', 'y' x 255 ], [ 'own', '' ])
{
	my ($exchange, $key) = @$_;

	utf8::decode($key);
	$client->queue("to $exchange $key") if length $key < 100;
	$client->bind(length $key < 100 ? "to $exchange $key" : 'all', $exchange, $key);
}
$rabbit->create_backend($node, name => 'routed', exchange => 'ex {data.user.country}',
	routing_key => '{event_type} {key}.{data.user.country}');
publish('routed', type => 'k', key => "\xC3\xA4", data => '{"user": {"country": "gr"}}');
$session->do(q(SELECT dispatch.define_event_type('typed', backend => 'routed',
	topic => 'event.topic', options => '{"exchange": "own"}')));
publish(undef, type => 'typed');
publish('routed', options => { exchange => 'own', routing_key => '' });
publish('routed', type => 'long', options => { exchange => 'ex gr', routing_key => 'y' x 255 });
publish('routed', type => 'direct', options => { exchange => '', routing_key => 'all' });
flush('templates');
is($client->depth("to ex gr k \x{e4}.gr"), 1, 'exchange and routing key are templates');
is($client->depth('to own event.topic'), 1, 'the topic of an event type is the routing key');
is($client->depth('to own '), 1, 'a routing key may be empty');
is_deeply([ map { $_->{properties}{type} } $client->drain('all') ], [ 'long', 'direct' ],
	'a routing key of 255 bytes; a queue through the empty exchange');
ok(!eval { publish('routed', data => '{}'); 1 },
	'a template that cannot be rendered is an error of publish()');

# ---- Properties

my $moment = 1_700_000_000;
my %property = (
	delivery_mode => 1, priority => 5, content_type => 'text/x-own', content_encoding => 'gzip',
	correlation_id => "corr \x{20ac}", reply_to => 'replies', message_id => 'mine',
	timestamp => $moment, type => 'own.type', user_id => 'guest', app_id => 'a test');
publish('default', options => { %property, expiration => 60, headers => { a => 1 } });
publish('default', options => { expiration => 1.5 });
publish('default', options => { $_ => 'z' x 255 })
  foreach qw(content_type content_encoding correlation_id reply_to message_id type app_id);
flush('properties');
my @messages = $client->drain('all');
is_deeply($messages[0]{properties},
	{ %property, expiration => '60000', headers => { a => [ 'I', 1 ] } },
	'every property is what the option says, an expiration of seconds in milliseconds');
is($messages[1]{properties}{expiration}, '1500', 'a fraction of a second');
is((grep { join('', values %{ $_->{properties} }) =~ /z{255}/ } @messages), 7,
	'texts of 255 bytes');

my ($in_an_hour) = $session->selectrow_array(
	q(SELECT to_jsonb(clock_timestamp() + '1 hour') #>> '{}'));
ok(eval { publish('default', options => { expiration => '1 hour 2 seconds' }); 1 },
	'an expiration can be an interval');
ok(eval { publish('default', options => { expiration => $in_an_hour }); 1 },
	'an expiration can be a timestamp');
flush('expirations of other types');
my ($interval, $left) = map { $_->{properties}{expiration} } $client->drain('all');
is($interval, '3602000', 'an interval, in milliseconds');
ok(defined $left && $left > 3_000_000 && $left <= 3_600_000, 'what is left until the timestamp');

# Of a backend, for its events that say nothing else
$rabbit->create_backend($node, name => 'preset', exchange => 'events',
	delivery_mode => 1, priority => 3, expiration => 9, app_id => 'all', reply_to => 'r');
publish('preset');
publish('preset', options => { delivery_mode => 2, app_id => 'this' });
flush('properties of the backend');
@messages = map { $_->{properties} } $client->drain('all');
is_deeply([ @{ $messages[0] }{qw(delivery_mode priority expiration app_id reply_to)} ],
	[ 1, 3, '9000', 'all', 'r' ], 'properties of the backend');
is_deeply([ @{ $messages[1] }{qw(delivery_mode priority expiration app_id reply_to)} ],
	[ 2, 3, '9000', 'this', 'r' ], 'those of the event prevail');

# ---- Headers

my $headers = '{"int": 7, "minus": -1, "negative": -9223372036854775808, "large": 9223372036854775807,
	"beyond": 9223372036854775808, "double": 2.5, "exponent": 1e3, "yes": true, "no": false,
	"nothing": null, "text": "\u00e9 \ud83d\ude00 \"\\\\\n", "empty": "",
	"time": {"$timestamp": 1700000000}, "bytes": {"$binary": "AP/+"},
	"list": [1, "a", null, [true, {"deep": 1.5}], []], "table": {"a": {"b": {"c": 1}}, "e": {}}}';
publish('default', options => { headers => $json->decode($headers) });
$session->selectrow_array(
	q(SELECT dispatch.publish('x', 's', '1', options => jsonb_build_object('headers', ?::jsonb))),
	undef, $headers);
flush('headers');
my $typed = ($client->drain('all'))[-1]{properties}{headers};
my %expected = (
	int => [ 'I', 7 ],
	minus => [ 'I', -1 ],
	negative => [ 'l', -9223372036854775808 ],
	large => [ 'l', 9223372036854775807 ],
	beyond => [ 'd', '9223372036854775808' ],
	double => [ 'd', 2.5 ],
	exponent => [ 'I', 1000 ],			# jsonb has made it 1000
	yes => [ 't', JSON::PP::true ],
	no => [ 't', JSON::PP::false ],
	nothing => [ 'V', undef ],
	text => [ 'S', "\x{e9} \x{1f600} \"\\\n" ],
	empty => [ 'S', '' ],
	time => [ 'T', 1_700_000_000 ],
	bytes => [ 'x', 'AP/+' ],
	list => [ 'A', [
		[ 'I', 1 ], [ 'S', 'a' ], [ 'V', undef ],
		[ 'A', [ [ 't', JSON::PP::true ], [ 'F', { deep => [ 'd', 1.5 ] } ] ] ], [ 'A', [] ] ] ],
	table => [ 'F', { a => [ 'F', { b => [ 'F', { c => [ 'I', 1 ] } ] } ], e => [ 'F', {} ] } ]);
foreach my $name (sort keys %expected)
{
	is_deeply($typed->{$name}, $expected{$name}, "header $name");
}
is_deeply([ sort keys %$typed ], [ sort keys %expected ], 'and no other header');

# ---- What publish() refuses

my $deep = JSON::PP->new->decode('[' x 200 . ']' x 200);
my $euros = "\x{20ac}" x 86;			# 86 characters, 258 bytes
my @refused = (
	(map { [ { $_ => 'z' x 256 }, "$_ of 256 bytes" ] }
		  qw(exchange routing_key content_type content_encoding correlation_id reply_to
		  message_id type user_id app_id)),
	[ { app_id => $euros }, 'app_id of 86 characters that are 258 bytes' ],
	[ { exchange => '{subject}' }, 'exchange that is rendered to 256 bytes' ],
	[ { routing_key => '{subject}' }, 'routing_key that is rendered to 256 bytes' ],
	[ { priority => 256 }, 'priority 256' ],
	[ { priority => -1 }, 'priority -1' ],
	[ { delivery_mode => 3 }, 'delivery_mode 3' ],
	[ { expiration => -1 }, 'expiration -1' ],
	[ { expiration => 'soon' }, 'expiration that is no time' ],
	[ { timestamp => -1 }, 'timestamp -1' ],
	[ { headers => 'a text' }, 'headers that are no object' ],
	[ { headers => [1] }, 'headers that are an array' ],
	[ { headers => { 'h' x 256 => 1 } }, 'a header with a name of 256 bytes' ],
	[ { headers => { t => { 'h' x 256 => 1 } } }, 'a table with a name of 256 bytes' ],
	[ { headers => { deep => $deep } }, 'headers 200 levels deep' ],
	[ { headers => { t => { '$timestamp' => 'now' } } }, 'a $timestamp that is none' ],
	[ { headers => { t => { '$binary' => '***' } } }, 'a $binary that is no base64' ],
	[ { headers => { h => 'z' x 200_000 } }, 'headers larger than a frame' ],
	[ { headers => { cloudEvents_id => 1 } }, 'a header that is ours' ],
	[ { password => 'x' }, 'an option of the backend' ],
	[ { stream_name => 'x' }, 'an option of another transport' ]);
foreach (@refused)
{
	my ($options, $title) = @$_;
	my $published = eval { publish('default', subject => 'z' x 256, options => $options); 1 };

	is($published ? 'published' : $session->state, '22023', "refused: $title");
}

$client->purge('all');

# ---- Bodies

my $room = $FRAME_MAX - $FRAME_OVERHEAD;
my @sizes = (0, 2, 3, $room - 1, $room, $room + 1, 2 * $room, 2 * $room + 1, 1_000_000);
$rabbit->create_backend($node, name => 'bodies', exchange => 'events', envelope => 'data');
foreach my $size (@sizes)
{
	publish('bodies', type => "size.$size", data => $size && '"' . 'y' x ($size - 2) . '"')
	  if $size;
	$session->do(q(SELECT dispatch.publish('size.0', 's', NULL, backend => 'bodies'))) if !$size;
}
my $text = qq("\xE2\x82\xAC\\u0001\\n\\"\xF0\x9F\x98\x80 %s {x}");
publish('bodies', type => 'text', data => $text);
flush('bodies');
@messages = $client->drain('all');
is_deeply(
	[ map { length $_->{body} } @messages[ 0 .. $#sizes ] ],
	\@sizes, 'bodies of no, one and several frames');
is_deeply(
	[ grep { $_->{body} !~ /\A(?:|"y*")\z/ } @messages[ 0 .. $#sizes ] ],
	[], 'not a byte of them is another');
is($messages[-1]{body}, $text, 'a body in UTF-8');

# ---- Faults of a single event: the others are not held up, and come once

# around(backend, what, of the culprit): an event with others before and after
# it, in one transaction; its id.
my $culprits = 0;

sub around
{
	my ($backend, %culprit) = @_;

	$session->begin_work;
	my @ids = map { publish($backend, type => 'good', key => "k$_") } 1 .. 10;
	my $culprit = publish($backend, type => 'bad', key => 'bad' . ++$culprits, %culprit);
	push @ids, map { publish($backend, type => 'good', key => "k$_") } 11 .. 20;
	$session->commit;
	return ($culprit, @ids);
}

sub good_ok
{
	my ($what, $once, @ids) = @_;
	my @seen;

	wait_until(
		sub {
			push @seen, ids_of($client->drain('all'));
			my %seen = map { $_ => 1 } @seen;
			return !grep { !$seen{$_} } @ids;
		},
		"the others: $what", 60);
	sleep 0.2;
	push @seen, ids_of($client->drain('all'));
	# Those in flight when a channel is closed may or may not have arrived.
	if ($once)
	{
		is_deeply([ sort @seen ], [ sort @ids ], "$what: the others came once");
	}
	else
	{
		my %copies;

		$copies{$_}++ foreach @seen;
		is_deeply([ sort keys %copies ], [ sort @ids ], "$what: the others came, and nothing else");
		is((grep { $_ > 2 } values %copies), 0, "$what: none of them more than twice");
	}
}

# Not routable: RabbitMQ acknowledges it all the same
$client->exchange('narrow', 'direct');
$client->bind('all', 'narrow', 'good');
$rabbit->create_backend($node, name => 'narrow', exchange => 'narrow');
my ($culprit, @ids) = around('narrow');
good_ok('unroutable', 1, @ids);
wait_until(sub { status_of($culprit)->{error} =~ /NO_ROUTE/ }, 'the failure of an unroutable');
isnt(status_of($culprit)->{status}, 'published', 'unroutable: not published');
is((grep { status_of($_)->{status} ne 'published' } @ids), 0, 'unroutable: the others are');
like(status_of($culprit)->{error}, qr/narrow.*bad/, 'unroutable: exchange and key are named');
my %waits = (unroutable => $culprit);

# An alternate exchange takes what is unroutable: for RabbitMQ that is delivered
$client->exchange('with alternate', 'direct', arguments => { 'alternate-exchange' => 'events' });
$id = publish('default', options => { exchange => 'with alternate', routing_key => 'nowhere' });
wait_for_status($id, 'published');
is_deeply([ ids_of($client->drain('all')) ], [$id], 'an alternate exchange has taken it');

# No such exchange
($culprit, @ids) = around('default', options => { exchange => 'not there' });
good_ok('no exchange', 0, @ids);
wait_until(sub { status_of($culprit)->{error} =~ /404|NOT_FOUND/ }, 'the failure: no exchange');
isnt(status_of($culprit)->{status}, 'published', 'no exchange: not published');
$waits{'no exchange'} = $culprit;

# No permission
$rabbit->add_user('writer', 'pencil', write => '^events$');
$client->exchange('secret');
$client->bind('all', 'secret');
$rabbit->create_backend($node, name => 'writer', exchange => 'events', username => 'writer',
	password => 'pencil');
($culprit, @ids) = around('writer', options => { exchange => 'secret' });
good_ok('no permission', 0, @ids);
wait_until(sub { status_of($culprit)->{error} =~ /403|ACCESS_REFUSED/ },
	'the failure: no permission');
isnt(status_of($culprit)->{status}, 'published', 'no permission: not published');
$waits{'no permission'} = $culprit;

# Too large: by RabbitMQ's own limit, of 128 MiB, and by one that was set
$rabbit->create_backend($node, name => 'huge', exchange => 'events', envelope => 'data');
($culprit) = $session->selectrow_array(q(SELECT dispatch.publish('x', 's',
	to_jsonb(repeat('z', 128 << 20)), backend => 'huge')));
wait_for_status($culprit, 'failed');
like(status_of($culprit)->{error}, qr/^406.*\b134217728\b/, '128 MiB: RabbitMQ said why');

$rabbit->set_max_message_size($MAX_MESSAGE);
$rabbit->create_backend($node, name => 'sized', exchange => 'events');
($culprit, @ids) = around('sized', data => '"' . 'z' x $MAX_MESSAGE . '"');
good_ok('too large', 0, @ids);
wait_for_status($culprit, 'failed');
like(status_of($culprit)->{error}, qr/406|size|large/i, 'too large: RabbitMQ said why');
is((grep { status_of($_)->{status} ne 'published' } @ids), 0, 'too large: the others arrived');

# Somebody else's name
($culprit, @ids) = around('default', options => { user_id => 'alice' });
good_ok('user_id', 0, @ids);
wait_for_status($culprit, 'failed');
like(status_of($culprit)->{error}, qr/user_id|406/, 'user_id: RabbitMQ said why');

# CC and BCC, which RabbitMQ sends copies by, must be arrays
$client->queue('copies');
$rabbit->create_backend($node, name => 'copied', exchange => '', routing_key => 'all');
foreach my $header ('CC', 'BCC')
{
	$id = publish('copied', options => { headers => { $header => ['copies'] } });
	wait_for_status($id, 'published');
	is_deeply([ ids_of($client->drain('all'), $client->drain('copies')) ], [ $id, $id ],
		"$header: a copy");
	($culprit, @ids) = around('copied', options => { headers => { $header => 'copies' } });
	good_ok("$header is no array", 0, @ids);
	wait_for_status($culprit, 'failed');
	like(status_of($culprit)->{error}, qr/^406.*\b$header\b/, "$header: RabbitMQ said why");
	is($client->depth('copies'), 0, "$header is no array: no copy");
}

# Several at once, of one key with good ones: their order
$session->begin_work;
my @ordered = map { publish('narrow', type => 'good', key => 'k', data => $_) } 1 .. 50;
my $lost = publish('narrow', type => 'lost', key => 'other');
push @ordered, map { publish('narrow', type => 'good', key => 'k', data => $_) } 51 .. 100;
$session->commit;
wait_until(sub { $client->depth('all') >= 100 }, 'a hundred of a key', 60);
is_deeply([ ids_of($client->drain('all')) ], \@ordered, 'the order of a key, each once');
wait_until(sub { status_of($lost)->{error} ne '' }, 'the unroutable one');

# What was only waiting for an operator
is(status_of($_)->{attempts}, 0, 'it has cost them no attempt') foreach values %waits;
$client->bind('all', 'narrow', 'bad');
$client->exchange('not there');
$client->bind('all', 'not there');
$rabbit->set_permissions('writer', '/');
wait_for_status($_, 'published') foreach values %waits;
my %came = map { $_ => 1 } ids_of($client->drain('all'));
is_deeply(\%came, { map { $_ => 1 } values %waits }, 'they come when they can');

# ---- Many at once

$session->do(q(SELECT dispatch.publish('n', 's', to_jsonb(n), key => 'k' || n % 7,
	backend => 'bodies') FROM generate_series(1, 10000) AS n));
ok($session->selectrow_array("SELECT dispatch.flush('60s', 'bodies')"), 'flush: 10,000 events');
is_deeply([ map { $_->{body} } $client->drain_fast('all') ],
	[ 1 .. 10_000 ], '10,000 events of a transaction, once and in order');

# Warnings there must be.
log_ok($node, qr/(?!)/);
$node->stop;
done_testing();
