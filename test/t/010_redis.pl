# What is published arrives in Redis byte for byte.

use strict;
use warnings;

use JSON::PP ();
use Test::More;

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('redis', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
my $session = session($node);
$session->{pg_enable_utf8} = 0;		# bytes in, bytes out

sub publish
{
	my ($backend, %args) = @_;

	return $session->selectrow_array(
		'SELECT dispatch.publish(?, ?, ?, backend => ?, key => ?, subject => ?, options => ?)',
		undef, @args{qw(type source data)}, $backend, @args{qw(key subject options)});
}

sub flush
{
	ok($session->selectrow_array("SELECT dispatch.flush('60s')"), "flush: $_[0]");
}

# The default envelope
create_redis_backend($node, $redis);
my $id = publish('default', type => 'user.created', source => 'shop',
	data => '{"id": 7, "list": [1, 2.50, null, true, "x"]}', subject => 'users/7');
flush('one event');
my ($entry, @more) = $redis->xrange_all('events');
is(@more, 0, 'one event makes one entry');
is_deeply(
	$entry->{names}, [qw(event_id event_type source timestamp cloud_event)],
	'an entry has the fields of Django Dispatch, in their order');
is($entry->{fields}{event_id}, $id, 'event_id is what publish() returned');
is($entry->{fields}{event_type}, 'user.created', 'event_type');
is($entry->{fields}{source}, 'shop', 'source');
my ($iso) = $session->selectrow_array(
	q(SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00'
	FROM dispatch.outbox));
is($entry->{fields}{timestamp}, $iso, 'timestamp is when it was published');
is( $entry->{fields}{cloud_event},
	'{"specversion": "1.0", "type": "user.created", "source": "shop", '
	  . qq("id": "$id", "time": "$iso", "subject": "users/7", )
	  . '"datacontenttype": "application/json", '
	  . '"data": {"id": 7, "list": [1, 2.50, null, true, "x"]}}',
	'cloud_event is the whole CloudEvent, as text');

# Data: none, null, and what is hard to carry
my @values = (
	undef, 'null', '""', '[]', '0', '-1.50e3', '12345678901234567890.123456789',
	qq("\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80"),		# 2, 3 and 4 bytes a character
	'"\\u0001\\u001f\\r\\n\\t\\b\\f\\"\\\\/"', '"*3\\r\\n$3\\r\\nDEL\\r\\n"',
	qq({"\xC3\xA9\\n": "%s %d {event_type}"}), '"' . 'y' x 1_000_000 . '"');
$redis->client->del('events');
publish('default', type => "t\xC3\xA4", source => "s\r\n", data => $_) foreach @values;
flush('values');
my @entries = $redis->xrange_all('events');
is(@entries, @values, 'every value arrived');
foreach my $i (0 .. $#values)
{
	# The server's own rendering of what was stored is what must arrive.
	my $expected = defined $values[$i]
	  ? ', "datacontenttype": "application/json", "data": '
	  . $session->selectrow_array('SELECT ?::jsonb::text', undef, $values[$i]) . '}'
	  : '"}';
	my $event = $entries[$i]{fields}{cloud_event};
	my $title = substr $values[$i] // 'none', 0, 24;

	$title =~ s/[^ -~]/./g;
	ok(substr($event, -length $expected) eq $expected, "data: $title");
}
is($entries[0]{fields}{event_type}, "t\xC3\xA4", 'a type in UTF-8');
is($entries[0]{fields}{source}, "s\r\n", 'a source with line ends');
unlike($entries[0]{fields}{cloud_event}, qr/"data/, 'no data, no member "data"');

# Other envelopes
create_redis_backend(
	$node, $redis, name => $_, envelope => $_, stream_name => $_)
  foreach qw(cloudevents_binary dispytch data);
my %id = map {
	$_ => publish($_, type => 'a.b', source => 'src', subject => 'sub', data => '{"k": 1}')
} qw(cloudevents_binary dispytch data);
flush('envelopes');
($entry) = $redis->xrange_all('cloudevents_binary');
is_deeply(
	{ map { $_ => $entry->{fields}{"ce_$_"} } qw(specversion id source type subject) },
	{
		specversion => '1.0', id => $id{cloudevents_binary}, source => 'src',
		type => 'a.b', subject => 'sub'
	},
	'cloudevents_binary: attributes are fields');
is($entry->{fields}{data}, '{"k": 1}', 'cloudevents_binary: data');
($entry) = $redis->xrange_all('dispytch');
my ($dispytch) = grep { /"body"/ } values %{ $entry->{fields} };
is_deeply(
	[ @{ JSON::PP::decode_json($dispytch) }{qw(id type body)} ],
	[ $id{dispytch}, 'a.b', { k => 1 } ],
	'dispytch: id, type and body');
like($dispytch, qr/"timestamp": \d{13}}$/, 'dispytch: timestamp in milliseconds');
($entry) = $redis->xrange_all('data');
ok((grep { $_ eq '{"k": 1}' } values %{ $entry->{fields} }), 'data: the data alone');

# Options of a backend and of an event
create_redis_backend(
	$node, $redis, name => 'routed', stream_name => 'to:{data.user.country}:{event_type}',
	max_len => 3, max_len_exact => JSON::PP::true);
publish('routed', type => 'x', source => 's', data => qq({"n": $_, "user": {"country": "gr"}}))
  foreach 1 .. 5;
publish('routed', type => 'x', source => 's', data => '{"n": 6}',
	options => '{"stream_name": "own {source}", "fields": {"trace": "abc", "n": 1}}');
flush('options');
is_deeply([ map { $_->{n} } stream_data($redis, 'to:gr:x') ],
	[ 3, 4, 5 ], 'stream_name is a template, max_len_exact trims');
($entry) = $redis->xrange_all('own s');
is_deeply([ @{ $entry->{fields} }{qw(trace n)} ], [ 'abc', 1 ], 'an event has its own');
ok(!eval { publish('routed', type => 'x', source => 's', data => '{"n": 7}'); 1 },
	'a template that cannot be rendered is an error of publish()');

# Another database, a login
$redis->cli('ACL', 'SETUSER', 'alice', 'on', '>' . canary() . ' pass', '~*', '+@all');
create_redis_backend(
	$node, $redis, name => 'login', username => 'alice', password => canary() . ' pass', db => 3);
publish('login', type => 'x', source => 's', data => '1');
flush('login');
is($redis->cli('-n', 3, 'XLEN', 'events'), 1, 'username, password and db');

# Publish/subscribe
my @heard;
my $subscriber = $redis->client;
$subscriber->subscribe('news', sub { push @heard, $_[0] });
create_redis_backend(
	$node, $redis, name => 'pubsub', mode => 'pubsub', stream_name => 'news', envelope => 'data');
publish('pubsub', type => 'x', source => 's', data => qq("\xE2\x82\xAC$_")) foreach 1 .. 3;
flush('pubsub');
wait_until(sub { $subscriber->wait_for_messages(0.1); @heard == 3 }, 'three messages');
is_deeply(\@heard, [ map { qq("\xE2\x82\xAC$_") } 1 .. 3 ], 'a subscriber hears the bodies');

# Many at once: exactly once and in order, whatever batches they come in
$redis->client->del('events');
$session->do(q(SELECT dispatch.publish('n', 's', to_jsonb(n), key => 'k' || n % 7)
	FROM generate_series(1, 10000) AS n));
flush('10,000 events');
is_deeply([ stream_data($redis) ], [ 1 .. 10_000 ], '10,000 events of a transaction, in order');

log_ok($node);
$node->stop;
done_testing();
