# Whatever is published arrives as it was, in Redis, with LISTEN and in a function:
# random events by every call, in every envelope, compared with what a parser that
# is not ours makes of what arrived.  Kafka and RabbitMQ: 067_property_brokers.pl.
#
# The seed is printed; DISPATCH_PROPERTY_SEED=<seed> repeats a run.

use strict;
use warnings;
no warnings qw(nonchar);

use Test::More;

use DispatchTest;
use RandomEvents;
use RandomJson;
use SqlSink;

my $EVENTS = 300;
my $HUGE = 1_000_000;
my $DEEP = 200;
# What a notification can hold, and what a stream entry is of.
my $NOTIFICATION_MAX = 7999;
my %BODY_FIELD = (cloudevents => 'cloud_event', dispytch => 'payload', data => 'data',
	cloudevents_binary => 'data');
my %DESTINATION = (stream => 'stream_name', pubsub => 'stream_name', notify => 'channel');

my $seed = $ENV{DISPATCH_PROPERTY_SEED} // time % 1_000_000;
diag("seed $seed");

srand $seed;
my @events = (
	(map { json_event($_) } [ 's', '' ], [ 'a', [] ], [ 'o', [] ], [ 'l', 'null' ],
		nested_value($DEEP), nested_value($DEEP),
		[ 's', 'x' x $HUGE ], [ 'o', [ [ '', [ 's', "\x{1f600}\"\n" x ($HUGE / 6) ] ] ] ]),
	(map { { %{ json_event([ 's', 'x' x $_ ]) }, envelope => 'data' } }
		$NOTIFICATION_MAX - 2, $NOTIFICATION_MAX - 1));
push @events, random_event() while @events < $EVENTS;
@events = number_events(@events);

# ---- Publishing

my $redis = RedisServer->new;
my $node = new_cluster('property', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);
my $listener = session($node);
$_->{pg_enable_utf8} = 0 foreach $session, $listener;	# bytes in, bytes out

$session->do('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis, name => 'stream');
create_redis_backend($node, $redis, name => 'pubsub', mode => 'pubsub');
$session->do(q(SELECT dispatch.create_backend('notify', 'notify')));
create_sink($session, q(
		CREATE TABLE sink.events (
			event_id uuid, event_type text, source text, subject text, key text, body text)),
	sql => q(
		INSERT INTO sink.events
		SELECT event_id, event_type, source, subject, key, body FROM unnest(events);
		SELECT NULL::uuid, NULL::text, NULL::boolean WHERE false));
create_sink_backend($session, 'sql', envelope => undef);

my (%heard, %notified);
my $subscriber = $redis->client;
$subscriber->psubscribe('e*', sub { $heard{ $_[1] } = $_[0] });
$listener->do(join ';', map { "LISTEN e$_->{n}" } @events);

sub publish
{
	my ($event, $backend) = @_;
	my $option = $DESTINATION{$backend};

	return publish_event($session, $event, $backend,
		$option ? ($option => [ 's', "e$event->{n}" ]) : ());
}

my @backends = ('stream', 'pubsub', 'notify', 'sql');
my %id;
foreach my $backend (@backends)
{
	$id{$backend} = [ map { publish($_, $backend) } @events ];
	ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '60 s', $backend),
		"$backend: all is settled");
}

fetch_spelling($session, @events);

# ---- What should have arrived

my $stored = stored_events($session);

# The fields of a stream entry without the body.
sub expected_fields
{
	my ($event, $id) = @_;
	my %attributes = expected_attributes($event, $id, $stored->{$id});
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
	my @expected = map { $_ && $_->[1] } @attributes{qw(type source subject)};

	push @expected, expected_key($event);
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

foreach my $backend (@backends)
{
	my @carried = grep { !is_refused($_, $backend) } @events;
	my @wrapped = grep { is_wrapped($_) } @carried;
	my (%count, @fates);

	foreach my $event (@events)
	{
		my $fate = $stored->{ $id{$backend}[ $event->{n} ] }{status};

		push @fates, "$event->{n}: $fate"
		  if $fate ne (is_refused($event, $backend) ? 'failed' : 'published');
	}
	is("@fates", '', "$backend: what it can carry is published, and nothing else");

	$count{ $_->{call} }++ foreach @wrapped;
	spelled_ok(
		$backend,
		map {
			my $id = $id{$backend}[ $_->{n} ];
			[ $_, $arrived{$backend}[ $_->{n} ], $id, $stored->{$id} ]
		} @wrapped);

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
