# Whatever is published arrives, on every transport, as it was: random events
# by every call, in every envelope, compared with what a parser that is not ours
# makes of what arrived.
#
# The seed is printed; DISPATCH_PROPERTY_SEED=<seed> repeats a run.

use strict;
use warnings;
no warnings qw(nonchar);

use MIME::Base64 qw(encode_base64);
use Test::More;

use DispatchTest;
use RandomJson;

my $EVENTS = 300;
my $HUGE = 1_000_000;
my $DEEP = 200;
# What a notification can hold, and what a stream entry is of.
my $NOTIFICATION_MAX = 7999;
my %BODY_FIELD = (cloudevents => 'cloud_event', dispytch => 'payload', data => 'data',
	cloudevents_binary => 'data');
my @ENVELOPES = sort keys %BODY_FIELD;
my %DESTINATION = (stream => 'stream_name', pubsub => 'stream_name', notify => 'channel');

my $seed = $ENV{DISPATCH_PROPERTY_SEED} // time % 1_000_000;
diag("seed $seed");

# ---- Events: {envelope, call, key, attributes => {name => value}, and the
# data: value (JSON), text or bytes}

sub one_or_none { return chance(0.5) ? $_[0] : undef; }

sub random_bytes
{
	my ($length) = @_;
	my $bytes = random_text($length);

	utf8::encode($bytes);
	return ($bytes, 1) if chance(0.4);
	substr($bytes, rand length $bytes, 0) = pick("\0", "\xff", "\xc0\x80", pack 'C*', 0 .. 255);
	return ($bytes, 0);
}

sub random_extensions
{
	my %value = (
		tenant => [ 's', random_text(20) ], empty => [ 's', '' ],
		count => [ 'n', pick(0, -5, 2147483647, -2147483648) ],
		flag => [ 'l', pick('true', 'false') ], partitionkey => [ 's', random_text(8) ],
		('x' x 40) => [ 's', '"\\/{key}' ]);

	return map { chance(0.3) ? ($_ => $value{$_}) : () } sort keys %value;
}

sub random_time
{
	return sprintf '%04d-%02d-%02d%s%02d:%02d:%02d%s%s', rand 10000, 1 + rand 12, 1 + rand 28,
	  pick('T', 't'), rand 24, rand 60, rand 61,
	  chance(0.5) ? '' : '.' . (1 + int rand 10**9), pick('Z', 'z', '+00:00', '-00:00', '+05:45');
}

# Attributes as publish() takes them.
sub loose_event
{
	my ($call) = @_;
	my $some = sub { random_string(10) . random_text(10) };
	my $event = {
		call => $call, key => one_or_none($some->()),
		attributes => { random_extensions(), map { $_ => [ 's', $some->() ] } qw(type source) } };

	$event->{attributes}{subject} = [ 's', $some->() ] if chance(0.5);
	return $event;
}

# One with the data of publish().
sub json_event
{
	my ($value) = @_;
	my $event = loose_event('publish');

	$event->{value} = $value;
	$event->{attributes}{datacontenttype} = [ 's', 'application/json' ] if $value;
	return $event;
}

sub binary_event
{
	my $event = loose_event('publish_binary');

	@$event{qw(bytes is_text)} = random_bytes(chance(0.05) ? 20_000 : 200);
	$event->{attributes}{datacontenttype} = [ 's', pick('application/x-protobuf', 'a/b; c="d e"') ];
	return $event;
}

sub random_cloudevent
{
	my $event = { call => 'publish_cloudevent', key => one_or_none(random_text(10)) };
	my %attributes = (
		id => random_text(40), type => random_text(30),
		source => pick('/shop', 'https://a.org:80/a%20b?c=d#e', 'urn:x:y', '?', 'mailto:a@b.org'),
		subject => one_or_none(random_text(30)), time => one_or_none(random_time()),
		dataschema => one_or_none(pick('urn:x', 'https://example.org/s.json#v1')));
	my $media_type = one_or_none(pick('application/json', 'text/JSON; a=b', 'application/x+json'));

	$event->{attributes} = { random_extensions(),
		map { $_ => [ 's', $attributes{$_} ] } grep { defined $attributes{$_} } keys %attributes };
	if (chance(0.6)) { $event->{value} = random_value(4); }
	elsif (chance(0.4))
	{
		$event->{text} = random_string(200);
		$media_type = 'text/plain; charset=utf-8';
	}
	elsif (chance(0.7)) { @$event{qw(bytes is_text)} = random_bytes(200); }
	$event->{attributes}{datacontenttype} = [ 's', $media_type ] if defined $media_type;
	return $event;
}

sub random_event
{
	my $kind = rand;

	return random_cloudevent() if $kind < 0.25;
	return binary_event() if $kind < 0.4;
	return json_event() if $kind < 0.45;
	# Around the limit of a notification
	return json_event([ 's', 'x' x (7500 + rand 600) ]) if $kind < 0.5;
	return json_event(random_value(5));
}

srand $seed;
my @events = (
	(map { json_event($_) } [ 's', '' ], [ 'a', [] ], [ 'o', [] ], [ 'l', 'null' ],
		nested_value($DEEP), nested_value($DEEP),
		[ 's', 'x' x $HUGE ], [ 'o', [ [ '', [ 's', "\x{1f600}\"\n" x ($HUGE / 6) ] ] ] ]),
	(map { { %{ json_event([ 's', 'x' x $_ ]) }, envelope => 'data' } }
		$NOTIFICATION_MAX - 2, $NOTIFICATION_MAX - 1));
push @events, random_event() while @events < $EVENTS;
foreach my $i (0 .. $#events)
{
	my @possible = grep { $_ ne 'dispytch' || !defined $events[$i]{bytes} } @ENVELOPES;

	$events[$i]{n} = $i;
	$events[$i]{envelope} //= pick(@possible);
}

# ---- Publishing

my $redis = RedisServer->new;
my $node = new_cluster('property', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);
my $listener = session($node);
$_->{pg_enable_utf8} = 0 foreach $session, $listener;	# bytes in, bytes out

$session->do('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis, name => 'stream');
create_redis_backend($node, $redis, name => 'pubsub', mode => 'pubsub');
$session->do(q(
	SELECT dispatch.create_backend('notify', 'notify');
	CREATE ROLE sink;
	GRANT USAGE ON SCHEMA dispatch TO sink;
	GRANT USAGE ON TYPE dispatch.event, dispatch.failure TO sink;
	CREATE SCHEMA sink AUTHORIZATION sink;
	SET ROLE sink;
	CREATE TABLE sink.events (
		event_id uuid, event_type text, source text, subject text, key text, body text);
	CREATE FUNCTION sink.take(events dispatch.event[]) RETURNS SETOF dispatch.failure
	LANGUAGE sql AS $$
		INSERT INTO sink.events
		SELECT event_id, event_type, source, subject, key, body FROM unnest(events);
		SELECT NULL::uuid, NULL::text, NULL::boolean WHERE false $$;
	RESET ROLE;
	INSERT INTO dispatch.backends (name, transport, options, owner)
	VALUES ('sql', 'sql', '{"function": "sink.take(dispatch.event[])"}', 'sink')));

my (%heard, %notified);
my $subscriber = $redis->client;
$subscriber->psubscribe('e*', sub { $heard{ $_[1] } = $_[0] });
$listener->do(join ';', map { "LISTEN e$_->{n}" } @events);

# A parameter: bytes.
sub bytes
{
	my ($text) = @_;

	utf8::encode($text) if defined $text;
	return $text;
}

sub object
{
	my %members = @_;

	return [ 'o', [ map { [ $_, $members{$_} ] } sort keys %members ] ];
}

# Calls a function with arguments by name.
sub call
{
	my ($function, %arguments) = @_;
	my @names = sort grep { defined $arguments{$_} } keys %arguments;

	return $session->selectrow_array(
		"SELECT dispatch.$function(" . join(', ', map { "$_ => ?" } @names) . ')',
		undef, @arguments{@names});
}

my @OWN = qw(type source subject datacontenttype);

sub publish
{
	my ($event, $backend) = @_;
	my %attributes = %{ $event->{attributes} };
	my %options = (envelope => [ 's', $event->{envelope} ]);
	my %arguments = (backend => $backend, key => bytes($event->{key}));

	$options{ $DESTINATION{$backend} } = [ 's', "e$event->{n}" ] if $DESTINATION{$backend};
	if ($event->{call} eq 'publish_cloudevent')
	{
		$attributes{data} = $event->{value} if $event->{value};
		$attributes{data} = [ 's', $event->{text} ] if defined $event->{text};
		$attributes{data_base64} = [ 's', encode_base64($event->{bytes}, '') ]
		  if defined $event->{bytes};
		$attributes{specversion} = [ 's', '1.0' ];
		$arguments{event} = bytes(write_json(object(%attributes)));
	}
	else
	{
		my ($type, $source, $subject) = map { $_ && bytes($_->[1]) } delete @attributes{@OWN};

		@arguments{qw(event_type source subject)} = ($type, $source, $subject);
		$arguments{data} = bytes(write_json($event->{value})) if $event->{value};
		if (defined $event->{bytes})
		{
			$arguments{content} = '\\x' . unpack 'H*', $event->{bytes};
			$arguments{content_type} = $event->{attributes}{datacontenttype}[1];
		}
		$options{extensions} = object(%attributes) if %attributes;
	}
	$arguments{options} = bytes(write_json(object(%options)));
	return call($event->{call}, %arguments);
}

my @backends = ('stream', 'pubsub', 'notify', 'sql');
my %id;
foreach my $backend (@backends)
{
	$id{$backend} = [ map { publish($_, $backend) } @events ];
	ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '60 s', $backend),
		"$backend: all is settled");
}

# What the server itself spells the data as.
foreach my $event (grep { $_->{value} } @events)
{
	($event->{jsonb}) = $session->selectrow_array(
		'SELECT ?::jsonb::text', undef, bytes(write_json($event->{value})));
}

# ---- What should have arrived

my $stored = $session->selectall_hashref(
	q(SELECT event_id, status,
		to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00') AS time,
		floor(extract(epoch FROM created_at) * 1000)::bigint AS milliseconds
	FROM dispatch.events),
	'event_id');

sub is_given { return $_[0]{call} eq 'publish_cloudevent'; }

sub expected_attributes
{
	my ($event, $id) = @_;

	return (
		specversion => [ 's', '1.0' ],
		is_given($event) ? () : (id => [ 's', $id ], time => [ 's', $stored->{$id}{time} ]),
		%{ $event->{attributes} });
}

# The spelling of a body that is an envelope.
sub expected_spelling
{
	my ($event, $id) = @_;
	my $data = $event->{value} // (defined $event->{text} && [ 's', $event->{text} ]);

	if ($event->{envelope} eq 'dispytch')
	{
		$data = [ 'o', [] ] if !$data || ref $data && $data->[1] eq 'null' && $data->[0] eq 'l';
		return spell_value(object(
			id => [ 's', $id ], type => $event->{attributes}{type}, body => $data,
			timestamp => [ 'n', $stored->{$id}{milliseconds} ]));
	}
	return spell_value(object(
		expected_attributes($event, $id), $data ? (data => $data) : (),
		defined $event->{bytes}
		? (data_base64 => [ 's', encode_base64($event->{bytes}, '') ]) : ()));
}

# The data alone.
sub expected_data { return $_[0]{jsonb} // bytes($_[0]{text}) // $_[0]{bytes}; }

sub is_wrapped { return $_[0]{envelope} =~ /^(?:cloudevents|dispytch)$/; }

# The fields of a stream entry without the body.
sub expected_fields
{
	my ($event, $id) = @_;
	my %attributes = expected_attributes($event, $id);
	my $type = delete $attributes{datacontenttype};

	return {
		event_id => $id, event_type => bytes($attributes{type}[1]),
		source => bytes($attributes{source}[1]), timestamp => $stored->{$id}{time}
	} if $event->{envelope} eq 'cloudevents';
	return {} if $event->{envelope} ne 'cloudevents_binary';
	my %fields = map { ("ce_$_" => bytes($attributes{$_}[1])) } keys %attributes;
	$fields{'content-type'} = $type ? $type->[1] : 'application/json'
	  if defined expected_data($event);
	return \%fields;
}

# ---- What has arrived

my (%arrived, @wrong);

# An entry of each stream; its other fields are compared at once.
my $client = $redis->client;
foreach my $event (@events)
{
	my ($entry, @more) = $client->xrange("e$event->{n}", '-', '+');
	my %fields = @{ $entry->[1] };
	my $body = delete $fields{ $BODY_FIELD{ $event->{envelope} } };
	my $expected = expected_fields($event, $id{stream}[ $event->{n} ]);

	push @wrong, $event->{n}
	  if @more || join("\0", map { ($_, $fields{$_}) } sort keys %fields) ne
	  join("\0", map { ($_, $expected->{$_}) } sort keys %$expected);
	$arrived{stream}[ $event->{n} ] = $body;
}
is("@wrong", '', 'stream: an entry for each, with the fields of its envelope');

wait_until(sub { $subscriber->wait_for_messages(0.1); keys %heard == @events }, 'all messages');
my %body = map { $_->[0] => $_->[1] } @{
	$session->selectall_arrayref('SELECT event_id, body FROM sink.events') };
$listener->do('SELECT 1');
while (my $notification = $listener->pg_notifies)
{
	$notified{ $notification->[0] } = $notification->[2];
}
foreach my $n (0 .. $#events)
{
	$arrived{pubsub}[$n] = $heard{"e$n"};
	$arrived{notify}[$n] = $notified{"e$n"};
	$arrived{sql}[$n] = $body{ $id{sql}[$n] };
}

# The columns of what a function gets
@wrong = ();
my $rows = $session->selectall_hashref(
	'SELECT event_id, event_type, source, subject, key FROM sink.events', 'event_id');
foreach my $event (@events)
{
	my $row = $rows->{ $id{sql}[ $event->{n} ] } // next;
	my %attributes = %{ $event->{attributes} };
	my @expected = map { $_ && $_->[1] } @attributes{qw(type source subject partitionkey)};

	$expected[3] = undef if !is_given($event);
	$expected[3] = $event->{key} if defined $event->{key};
	push @wrong, $event->{n}
	  if join("\0", map { bytes($_) // '(null)' } @expected) ne
	  join("\0", map { $_ // '(null)' } @$row{qw(event_type source subject key)});
}
is("@wrong", '', 'sql: type, source, subject and key of each event');
cmp_ok(scalar keys %$rows, '>', 0.8 * @events, 'sql: there are enough of them');

# Whether a transport can carry a body at all.
sub is_refused
{
	my ($event, $backend) = @_;

	return 1 if $backend =~ /notify|sql/ && defined $event->{bytes} && !$event->{is_text}
	  && !is_wrapped($event);
	return $backend eq 'notify'
	  && length($arrived{stream}[ $event->{n} ] // '') > $NOTIFICATION_MAX;
}

sub spellings
{
	my ($out, $err) = ('', '');
	my $in = join '', map { encode_base64($_, '') . "\n" } @_;

	IPC::Run::run(
		[ '/usr/bin/python3', 'test/python/spell_json.py' ], '<', \$in, '>', \$out, '2>', \$err)
	  or die "spell_json.py: $err\n";
	return split /\n/, $out;
}

foreach my $backend (@backends)
{
	my @carried = grep { !is_refused($_, $backend) } @events;
	my @wrapped = grep { is_wrapped($_) } @carried;
	my @spellings = spellings(map { $arrived{$backend}[ $_->{n} ] // '' } @wrapped);
	my (%count, @fates);

	foreach my $event (@events)
	{
		my $fate = $stored->{ $id{$backend}[ $event->{n} ] }{status};

		push @fates, "$event->{n}: $fate"
		  if $fate ne (is_refused($event, $backend) ? 'failed' : 'published');
	}
	is("@fates", '', "$backend: what it can carry is published, and nothing else");

	@wrong = ();
	foreach my $i (0 .. $#wrapped)
	{
		my ($event, $id) = ($wrapped[$i], $id{$backend}[ $wrapped[$i]{n} ]);
		my $body = $arrived{$backend}[ $event->{n} ] // '';
		my $expected = expected_spelling($event, $id);

		$count{ $event->{call} }++;
		# The text of the data is that of the server, but for a body {} that
		# stands for null.
		my $jsonb = $event->{jsonb} // 'null';
		next if $spellings[$i] eq $expected && ($jsonb eq 'null' || index($body, $jsonb) >= 0);
		push @wrong, $event->{n};
		diag("event $event->{n}, $event->{envelope}: " . substr($spellings[$i], 0, 300)
			  . "\nexpected: " . substr($expected, 0, 300)) if @wrong < 3;
	}
	is("@wrong", '', "$backend: each envelope, as another parser reads it, is what was published");

	@wrong = ();
	foreach my $event (grep { !is_wrapped($_) } @carried)
	{
		my $body = $arrived{$backend}[ $event->{n} ];
		my $data = expected_data($event);

		$count{ $event->{call} }++;
		# What is not there is an empty text, where nothing can be.
		push @wrong, $event->{n}
		  if ($body // '') ne ($data // '') || defined $data && !defined $body;
	}
	is("@wrong", '', "$backend: the data alone is what was published");
	cmp_ok($count{$_}, '>', 5, "$backend: $count{$_} of $_()")
	  foreach qw(publish publish_binary publish_cloudevent);
}

log_ok($node, qr/ERROR/);
$node->stop;
done_testing();
