# Consumers as one writes them for the systems that dispatch takes the place of:
# of the default entry of a Redis stream, which has the fields of Django Dispatch,
# and of the envelope dispytch on a channel and in a stream.  They are Python
# programs of the tests, with a client library that is not ours.  Of the systems
# themselves nothing runs: Django Dispatch has no consumer, and the Dispytch of
# the package index wants a newer Python than Debian 12 has.

use strict;
use warnings;

use JSON::PP ();
use Test::More;

use DispatchTest;

my $EVENTS = 40;
my $DIE_AFTER = 17;

my $redis = RedisServer->new;
my $node = new_cluster('consumers', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);
my $client = $redis->client;

$session->do('CREATE EXTENSION dispatch');

sub consumer
{
	my ($what, @arguments) = @_;

	return [ '/usr/bin/python3', 'test/python/consumers.py', $what,
		$redis->host, $redis->port, @arguments ];
}

sub events_of
{
	return map { JSON::PP->new->utf8->decode($_) } split /\n/, $_[0];
}

# consume(arguments of a consumer): its exit code, and what it has processed.
sub consume
{
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run(consumer(@_), '<', \undef, '>', \$out, '2>', \$err);

	is($err, '', "$_[0]: no error");
	return ($ok ? 0 : $? >> 8, events_of($out));
}

# publish(backend): events with data that is an object, of which the last has
# none; their ids, in order.
sub publish
{
	my ($backend) = @_;
	my $ids = $session->selectcol_arrayref(
		q(SELECT dispatch.publish('order.created', 'shop',
			CASE WHEN n < ? THEN jsonb_build_object('n', n, 'text', E'\u00e9 \U0001F600 "') END,
			backend => ?, key => 'k', subject => CASE WHEN n % 2 = 0 THEN 'orders/' || n END)
		FROM generate_series(1, ?) AS n), undef, $EVENTS, $backend, $EVENTS);

	ok($session->selectrow_array(q(SELECT dispatch.flush('60s', ?)), undef, $backend),
		"$backend: all is delivered");
	return @$ids;
}

sub data_of { return $_[0] < $EVENTS ? { n => $_[0], text => "\x{e9} \x{1f600} \"" } : undef; }

# ---- Django Dispatch: nothing is configured but the address

create_redis_backend($node, $redis);
my @ids = publish('default');

# Each third event twice, as after a lost reply.
foreach my $entry ($redis->xrange_all('events'))
{
	my $fields = $entry->{fields};
	my ($n) = $fields->{cloud_event} =~ /"n": (\d+)/;

	$client->xadd('events', '*', map { ($_, $fields->{$_}) } @{ $entry->{names} })
	  if ($n // 0) % 3 == 0;
}
cmp_ok($client->xlen('events'), '>', $EVENTS, 'some events are in the stream twice');

my ($status, @seen) = consume('django', 'events', $DIE_AFTER);
is($status, 1, 'django: the consumer has died');
is(scalar @seen, $DIE_AFTER, 'django: after some events');
cmp_ok(($client->xpending('events', 'mailer'))[0],
	'>', 0, 'django: of which some are not acknowledged');
($status, my @more) = consume('django', 'events');
is($status, 0, 'django: the next one has come to the end');
push @seen, @more;
is_deeply([ map { $_->{fields}{event_id} } @seen ], \@ids,
	'django: each event is processed once, in order');
is(($client->xpending('events', 'mailer'))[0], 0, 'django: all are acknowledged');

my $times = $session->selectcol_arrayref(
	q(SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00')
	FROM dispatch.events ORDER BY event_id));
my @expected = map {
	my ($n, $id, $time) = ($_, $ids[ $_ - 1 ], $times->[ $_ - 1 ]);
	my %event = (
		specversion => '1.0', type => 'order.created', source => 'shop', id => $id, time => $time);

	$event{subject} = "orders/$n" if $n % 2 == 0;
	@event{qw(datacontenttype data)} = ('application/json', data_of($n)) if data_of($n);
	{
		event => \%event,
		fields => {
			event_id => $id, event_type => 'order.created', source => 'shop', timestamp => $time
		}
	}
} 1 .. $EVENTS;
is_deeply(\@seen, \@expected, 'django: the fields, and the event, are what was published');

# ---- Dispytch

# dispytch_ok(events, ids, where)
sub dispytch_ok
{
	my ($events, $published, $where) = @_;
	my $milliseconds = $session->selectcol_arrayref(
		q(SELECT floor(extract(epoch FROM created_at) * 1000)::bigint FROM dispatch.events
		WHERE event_id = ANY (?) ORDER BY event_id), undef, $published);

	is_deeply(
		$events,
		[
			map {
				{
					id => $published->[ $_ - 1 ], type => 'order.created',
					body => data_of($_) // {}, timestamp => $milliseconds->[ $_ - 1 ]
				}
			} 1 .. $EVENTS
		],
		"dispytch: a program reads each event $where, also one without data");
}

create_redis_backend(
	$node, $redis, name => 'dispytch', envelope => 'dispytch', stream_name => 'dispytch');
@ids = publish('dispytch');
($status, @seen) = consume('dispytch-stream', 'dispytch');
is($status, 0, 'dispytch: no message of the stream is refused');
dispytch_ok(\@seen, \@ids, 'of a stream');

create_redis_backend(
	$node, $redis, name => 'channel', envelope => 'dispytch', stream_name => 'orders',
	mode => 'pubsub');
my ($out, $err) = ('', '');
my $listener = IPC::Run::start(
	consumer('dispytch-channel', 'orders', $EVENTS), '<', \undef, '>', \$out, '2>', \$err);
wait_until(sub { ($client->pubsub('NUMSUB', 'orders'))[1] == 1 }, 'the listener');
@ids = publish('channel');
ok($listener->finish, 'dispytch: no message of the channel is refused') or diag($err);
dispytch_ok([ events_of($out) ], \@ids, 'of a channel');

log_ok($node);
$node->stop;
done_testing();
