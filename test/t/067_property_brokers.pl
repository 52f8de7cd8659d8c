# Whatever is published arrives as it was, in Kafka and in RabbitMQ: random events
# by every call, in every envelope, as clients read them that have no code in
# common with the transports.  Bodies, keys, properties and headers.
#
# The seed is printed; DISPATCH_PROPERTY_SEED=<seed> repeats a run.

use strict;
use warnings;
no warnings qw(nonchar);

use JSON::PP ();
use Test::More;

use DispatchTest;
use KafkaBackend;
use RabbitServer;
use RandomEvents;
use RandomJson;

my $EVENTS = 250;
# Kafka takes a megabyte by default.
my $HUGE = 300_000;
my $DEEP = 200;
my $STRUCTURED = 'application/cloudevents+json; charset=UTF-8';
# What the longest short string of AMQP holds.
my $SHORT_MAX = 255;

my $seed = $ENV{DISPATCH_PROPERTY_SEED} // time % 1_000_000;
diag("seed $seed");

srand $seed;
my @events = map { json_event($_) } (
	[ 's', '' ], [ 'a', [] ], [ 'o', [] ], [ 'l', 'null' ], nested_value($DEEP),
	[ 's', 'x' x $HUGE ], [ 'o', [ [ '', [ 's', "\x{1f600}\"\n" x ($HUGE / 6) ] ] ] ]);
push @events, random_event() while @events < $EVENTS;
@events = number_events(@events);

my $rabbit = RabbitServer->new;
my $kafka = KafkaServer->new;
my $node = new_cluster('property', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);
$session->{pg_enable_utf8} = 0;	# bytes in, bytes out

$session->do('CREATE EXTENSION dispatch');
$kafka->create_topic('property', partitions => 3);
create_kafka_backend($node, $kafka, name => 'kafka', topic => 'property');
$rabbit->client->queue('property');
$rabbit->create_backend(
	$node, name => 'rabbitmq', exchange => '', routing_key => 'property');

# A header of each says which it is: the identity of one that was given is not
# ours, and an envelope may have none.
my %id;
foreach my $backend ('kafka', 'rabbitmq')
{
	$id{$backend} = [
		map {
			publish_event($session, $_, $backend,
				headers => [ 'o', [ [ 'number', [ 'n', $_->{n} ] ] ] ])
		} @events ];
	ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '60 s', $backend),
		"$backend: all is settled");
}
fetch_spelling($session, @events);
my $stored = stored_events($session);
is(join(' ', grep { $stored->{$_}{status} ne 'published' } map { @$_ } values %id), '',
	'all of it is published');

# ---- What should have arrived beside the body: as one text, to be compared

# The content type, by the envelope.
sub expected_type
{
	my ($event) = @_;
	my $type = $event->{attributes}{datacontenttype};

	return $STRUCTURED if $event->{envelope} eq 'cloudevents';
	return 'application/json' if $event->{envelope} eq 'dispytch';
	return undef if !defined expected_data($event);
	return $type ? $type->[1] : 'application/json';
}

# The attributes that are headers with this prefix.
sub expected_headers
{
	my ($event, $id, $prefix) = @_;
	my %attributes = expected_attributes($event, $id, $stored->{$id});

	return () if $event->{envelope} ne 'cloudevents_binary';
	delete $attributes{datacontenttype};
	return map { ("$prefix$_" => bytes($attributes{$_}[1])) } keys %attributes;
}

sub text_of
{
	my %value = @_;

	return join "\n", map { "$_=" . ($value{$_} // '(none)') } sort keys %value;
}

# arrived_ok(backend, {n => {body, meta => {name => text}}}, what is expected
# beside the body): all events are there once, each as it was.
sub arrived_ok
{
	my ($backend, $arrived, $expect) = @_;
	my (@envelopes, @data, @meta, %count);

	foreach my $event (@events)
	{
		my $id = $id{$backend}[ $event->{n} ];
		my @got = @{ $arrived->{ $event->{n} } // [] };
		my ($meta, $expected) = map { text_of(%$_) } $got[0]{meta} // {}, $expect->($event, $id);
		my $none = $backend eq 'kafka' ? '(null)' : '';

		$count{"$event->{call}() as $event->{envelope}"}++;
		if (@got != 1 || $meta ne $expected)
		{
			push @meta, $event->{n};
			diag("event $event->{n}: " . @got . " times\n$meta\nexpected:\n$expected")
			  if @meta < 3;
		}
		if (is_wrapped($event)) { push @envelopes, [ $event, $got[0]{body}, $id, $stored->{$id} ]; }
		elsif (($got[0]{body} // '(null)') ne (expected_data($event) // $none))
		{
			push @data, $event->{n};
		}
	}
	is("@meta", '', "$backend: each has come once, with its key, properties and headers");
	is("@data", '', "$backend: the data alone is what was published");
	spelled_ok($backend, @envelopes);
	cmp_ok(scalar keys %count, '==', 11, "$backend: every call in every envelope");
	return;
}

# ---- Kafka: key, headers, timestamp, value

my %read;
foreach my $record ($kafka->records('property'))
{
	my %header = map { @$_ } @{ $record->{headers} };
	my $n = delete $header{number};

	push @{ $read{$n} }, {
		body => $record->{value},
		meta => { %header, key => $record->{key}, timestamp => $record->{timestamp} } };
}
arrived_ok(
	'kafka',
	\%read,
	sub {
		my ($event, $id) = @_;
		my $type = expected_type($event);

		return {
			expected_headers($event, $id, 'ce_'), defined $type ? ('content-type' => $type) : (),
			key => bytes(expected_key($event)), timestamp => $stored->{$id}{milliseconds} };
	});

# ---- RabbitMQ: properties, headers, body

%read = ();
foreach my $message ($rabbit->client->drain('property'))
{
	my %property = %{ $message->{properties} };
	my %header = %{ delete $property{headers} };
	my $n = (delete $header{number})->[1];

	# Of the properties Perl has characters, the body is bytes.
	push @{ $read{$n} }, {
		body => $message->{body},
		meta => {
			(map { $_ => bytes($property{$_}) } keys %property),
			map { ("$_ $header{$_}[0]" => bytes($header{$_}[1])) } keys %header } };
}
arrived_ok(
	'rabbitmq',
	\%read,
	sub {
		my ($event, $id) = @_;
		my %headers = expected_headers($event, $id, 'cloudEvents_');
		my $content_type = expected_type($event);
		my $type = bytes($event->{attributes}{type}[1]);

		return {
			(map { ("$_ S" => $headers{$_}) } keys %headers),
			defined $content_type ? (content_type => $content_type) : (),
			length $type <= $SHORT_MAX ? (type => $type) : (),
			message_id => $id, delivery_mode => 2,
			timestamp => int($stored->{$id}{milliseconds} / 1000) };
	});

log_ok($node);
$node->stop;
done_testing();
