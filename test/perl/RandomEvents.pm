#
# RandomEvents: random events by every call, in every envelope, and what of them
# has to arrive.
#
# An event is {n, envelope, call, key, attributes => {name => value}} and its
# data: value (JSON, see RandomJson.pm), text or bytes.  What is expected is
# made of it, of its id, and of what the server has stored: {time, milliseconds}.
#
#     my @events = number_events(map { random_event() } 1 .. 200);
#     my $id = publish_event($session, $events[0], 'backend');
#     fetch_spelling($session, @events);
#     is((spellings($body))[0], expected_spelling($events[0], $id, $stored));
#
# The session takes and returns bytes: $session->{pg_enable_utf8} = 0.
#
package RandomEvents;

use strict;
use warnings;

use Exporter qw(import);
use IPC::Run;
use MIME::Base64 qw(encode_base64);
use RandomJson;
use Test::More ();

our @EXPORT = qw(random_event json_event number_events publish_event fetch_spelling stored_events
  expected_attributes expected_key expected_spelling expected_data is_given is_wrapped bytes
  spellings spelled_ok);

my @ENVELOPES = qw(cloudevents cloudevents_binary data dispytch);
my @OWN = qw(type source subject datacontenttype);

# ---- Events

sub _one_or_none { return chance(0.5) ? $_[0] : undef; }

sub _random_bytes
{
	my ($length) = @_;
	my $bytes = random_text($length);

	utf8::encode($bytes);
	return ($bytes, 1) if chance(0.4);
	substr($bytes, rand length $bytes, 0) = pick("\0", "\xff", "\xc0\x80", pack 'C*', 0 .. 255);
	return ($bytes, 0);
}

sub _random_extensions
{
	my %value = (
		tenant => [ 's', random_text(20) ], empty => [ 's', '' ],
		count => [ 'n', pick(0, -5, 2147483647, -2147483648) ],
		flag => [ 'l', pick('true', 'false') ], partitionkey => [ 's', random_text(8) ],
		('x' x 40) => [ 's', '"\\/{key}' ]);

	return map { chance(0.3) ? ($_ => $value{$_}) : () } sort keys %value;
}

sub _random_time
{
	return sprintf '%04d-%02d-%02d%s%02d:%02d:%02d%s%s', rand 10000, 1 + rand 12, 1 + rand 28,
	  pick('T', 't'), rand 24, rand 60, rand 61,
	  chance(0.5) ? '' : '.' . (1 + int rand 10**9), pick('Z', 'z', '+00:00', '-00:00', '+05:45');
}

# Attributes as publish() takes them.
sub _loose_event
{
	my ($call) = @_;
	my $some = sub { random_string(10) . random_text(10) };
	my $event = {
		call => $call, key => _one_or_none($some->()),
		attributes => { _random_extensions(), map { $_ => [ 's', $some->() ] } qw(type source) } };

	$event->{attributes}{subject} = [ 's', $some->() ] if chance(0.5);
	return $event;
}

# One with the data of publish().
sub json_event
{
	my ($value) = @_;
	my $event = _loose_event('publish');

	$event->{value} = $value;
	$event->{attributes}{datacontenttype} = [ 's', 'application/json' ] if $value;
	return $event;
}

sub _binary_event
{
	my $event = _loose_event('publish_binary');

	@$event{qw(bytes is_text)} = _random_bytes(chance(0.05) ? 20_000 : 200);
	$event->{attributes}{datacontenttype} = [ 's', pick('application/x-protobuf', 'a/b; c="d e"') ];
	return $event;
}

sub _random_cloudevent
{
	my $event = { call => 'publish_cloudevent', key => _one_or_none(random_text(10)) };
	my %attributes = (
		id => random_text(40), type => random_text(30),
		source => pick('/shop', 'https://a.org:80/a%20b?c=d#e', 'urn:x:y', '?', 'mailto:a@b.org'),
		subject => _one_or_none(random_text(30)), time => _one_or_none(_random_time()),
		dataschema => _one_or_none(pick('urn:x', 'https://example.org/s.json#v1')));
	my $media_type = _one_or_none(pick('application/json', 'text/JSON; a=b', 'application/x+json'));

	$event->{attributes} = { _random_extensions(),
		map { $_ => [ 's', $attributes{$_} ] } grep { defined $attributes{$_} } keys %attributes };
	if (chance(0.6)) { $event->{value} = random_value(4); }
	elsif (chance(0.4))
	{
		$event->{text} = random_string(200);
		$media_type = 'text/plain; charset=utf-8';
	}
	elsif (chance(0.7)) { @$event{qw(bytes is_text)} = _random_bytes(200); }
	$event->{attributes}{datacontenttype} = [ 's', $media_type ] if defined $media_type;
	return $event;
}

sub random_event
{
	my $kind = rand;

	return _random_cloudevent() if $kind < 0.25;
	return _binary_event() if $kind < 0.4;
	return json_event() if $kind < 0.45;
	# Around the limit of a notification
	return json_event([ 's', 'x' x (7500 + rand 600) ]) if $kind < 0.5;
	return json_event(random_value(5));
}

# Gives each its number, and those that have none an envelope.
sub number_events
{
	my (@events) = @_;

	foreach my $i (0 .. $#events)
	{
		my @possible = grep { $_ ne 'dispytch' || !defined $events[$i]{bytes} } @ENVELOPES;

		$events[$i]{n} = $i;
		$events[$i]{envelope} //= pick(@possible);
	}
	return @events;
}

# ---- Publishing

# A parameter: bytes.
sub bytes
{
	my ($text) = @_;

	utf8::encode($text) if defined $text;
	return $text;
}

sub _object
{
	my %members = @_;

	return [ 'o', [ map { [ $_, $members{$_} ] } sort keys %members ] ];
}

# Calls a function with arguments by name.
sub _call
{
	my ($session, $function, %arguments) = @_;
	my @names = sort grep { defined $arguments{$_} } keys %arguments;

	return $session->selectrow_array(
		"SELECT dispatch.$function(" . join(', ', map { "$_ => ?" } @names) . ')',
		undef, @arguments{@names});
}

# publish_event(session, event, backend, options of the event => values)
sub publish_event
{
	my ($session, $event, $backend, %options) = @_;
	my %attributes = %{ $event->{attributes} };
	my %arguments = (backend => $backend, key => bytes($event->{key}));

	$options{envelope} = [ 's', $event->{envelope} ];
	if ($event->{call} eq 'publish_cloudevent')
	{
		$attributes{data} = $event->{value} if $event->{value};
		$attributes{data} = [ 's', $event->{text} ] if defined $event->{text};
		$attributes{data_base64} = [ 's', encode_base64($event->{bytes}, '') ]
		  if defined $event->{bytes};
		$attributes{specversion} = [ 's', '1.0' ];
		$arguments{event} = bytes(write_json(_object(%attributes)));
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
		$options{extensions} = _object(%attributes) if %attributes;
	}
	$arguments{options} = bytes(write_json(_object(%options)));
	return _call($session, $event->{call}, %arguments);
}

# What the server itself spells the data as.
sub fetch_spelling
{
	my ($session, @events) = @_;

	foreach my $event (grep { $_->{value} } @events)
	{
		($event->{jsonb}) = $session->selectrow_array(
			'SELECT ?::jsonb::text', undef, bytes(write_json($event->{value})));
	}
	return;
}

# What the server has stored, by id.
sub stored_events
{
	my ($session) = @_;

	return $session->selectall_hashref(
		q(SELECT event_id, status,
			to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00') AS time,
			floor(extract(epoch FROM created_at) * 1000)::bigint AS milliseconds
		FROM dispatch.events),
		'event_id');
}

# ---- What should have arrived

sub is_given { return $_[0]{call} eq 'publish_cloudevent'; }
sub is_wrapped { return $_[0]{envelope} =~ /^(?:cloudevents|dispytch)$/; }

sub expected_attributes
{
	my ($event, $id, $stored) = @_;

	return (
		specversion => [ 's', '1.0' ],
		is_given($event) ? () : (id => [ 's', $id ], time => [ 's', $stored->{time} ]),
		%{ $event->{attributes} });
}

# The key, as text.
sub expected_key
{
	my ($event) = @_;
	my $given = is_given($event) && $event->{attributes}{partitionkey};

	return $event->{key} // ($given ? $given->[1] : undef);
}

# The spelling of a body that is an envelope.
sub expected_spelling
{
	my ($event, $id, $stored) = @_;
	my $data = $event->{value} // (defined $event->{text} && [ 's', $event->{text} ]);

	if ($event->{envelope} eq 'dispytch')
	{
		$data = [ 'o', [] ] if !$data || ref $data && $data->[1] eq 'null' && $data->[0] eq 'l';
		return spell_value(_object(
			id => [ 's', $id ], type => $event->{attributes}{type}, body => $data,
			timestamp => [ 'n', $stored->{milliseconds} ]));
	}
	return spell_value(_object(
		expected_attributes($event, $id, $stored), $data ? (data => $data) : (),
		defined $event->{bytes}
		? (data_base64 => [ 's', encode_base64($event->{bytes}, '') ]) : ()));
}

# The data alone.
sub expected_data { return $_[0]{jsonb} // bytes($_[0]{text}) // $_[0]{bytes}; }

# ---- What has arrived, as a parser that is not ours reads it

sub spellings
{
	my ($out, $err) = ('', '');
	my $in = join '', map { encode_base64($_, '') . "\n" } @_;

	IPC::Run::run(
		[ '/usr/bin/python3', 'test/python/spell_json.py' ], '<', \$in, '>', \$out, '2>', \$err)
	  or die "spell_json.py: $err\n";
	return split /\n/, $out;
}

# spelled_ok(what, [event, body, id, stored]...): bodies that are envelopes.
sub spelled_ok
{
	my ($what, @arrived) = @_;
	my @spellings = spellings(map { $_->[1] // '' } @arrived);
	my @wrong;

	foreach my $i (0 .. $#arrived)
	{
		my ($event, $body, $id, $stored) = @{ $arrived[$i] };
		my $expected = expected_spelling($event, $id, $stored);
		# The text of the data is that of the server, but for a body {} that
		# stands for null.
		my $jsonb = $event->{jsonb} // 'null';

		next if $spellings[$i] eq $expected
		  && ($jsonb eq 'null' || index($body // '', $jsonb) >= 0);
		push @wrong, $event->{n};
		Test::More::diag("event $event->{n}, $event->{envelope}: "
			  . substr($spellings[$i], 0, 300) . "\nexpected: " . substr($expected, 0, 300))
		  if @wrong < 3;
	}
	return Test::More::is("@wrong", '',
		"$what: each envelope, as another parser reads it, is what was published");
}

1;
