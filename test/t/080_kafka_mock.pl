# What the errors of Kafka do to events: each row of the table in
# src/transports/kafka_error.c, as a broker's answer to a record, alone and among
# others.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use KafkaMock;
use PostgreSQL::Test::Utils;

my $PRODUCE = 0;

# These librdkafka deals with by itself, so that no event is concerned.
my %INVISIBLE = map { $_ => 1 } qw(
  _TRANSPORT _RETRY _TIMED_OUT _TIMED_OUT_QUEUE
  LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION BROKER_NOT_AVAILABLE REPLICA_NOT_AVAILABLE
  REQUEST_TIMED_OUT NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND KAFKA_STORAGE_ERROR
  COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR
  UNKNOWN_TOPIC_OR_PART UNKNOWN_PRODUCER_ID DUPLICATE_SEQUENCE_NUMBER);

# Kafka has it already, says this one.
my %IS_WRITTEN = (DUPLICATE_SEQUENCE_NUMBER => 1);

# Not every release of librdkafka knows this one, and later ones deal with these
# as with the above.
my %NEWER = (_INVALID_DIFFERENT_RECORD => 1);
my %INVISIBLE_SINCE = (_SSL => 0x02020000, INVALID_MSG => 0x02040000);

# librdkafka says that of records that it was told to let go of: nobody hears of
# it, unless the connection was quite new.
my %QUIET = (_PURGE_QUEUE => 1);

my $mock = KafkaMock->new;
$INVISIBLE{$_} = 1 foreach grep { $mock->version >= $INVISIBLE_SINCE{$_} } keys %INVISIBLE_SINCE;
my $node = new_cluster('mock', "dispatch.retry_delay = '1 h'");
my $session = session($node);

$session->do('CREATE EXTENSION dispatch');

# A backend on which nothing waits.  It lingers, so that events published together
# are sent together.
sub new_backend
{
	if ($session->selectrow_array('SELECT count(*) FROM dispatch.backends'))
	{
		$session->do(q(SELECT dispatch.drop_backend('default', true)));
		wait_until(
			sub { !$session->selectrow_array('SELECT count(*) FROM dispatch.backends') },
			'the backend is dropped');
	}
	$session->do(
		q(SELECT dispatch.create_backend('default', 'kafka', ?)),
		undef, JSON::PP->new->encode({ bootstrap_servers => $mock->servers, linger => 0.05 }));
	return;
}

new_backend();

# Publishes so many events to a topic in one transaction.
sub publish
{
	my ($topic, $count, %options) = @_;

	return @{
		$session->selectcol_arrayref(
			q(SELECT dispatch.publish('t', 's', to_jsonb(i), options => ?)
			FROM generate_series(1, ?::int) i),
			undef,
			JSON::PP->new->encode(
				{ topic => $topic, partition => 0, envelope => 'data', %options }),
			$count) };
}

sub statuses
{
	return join ' ', map {
		join '/', $session->selectrow_array(
			'SELECT status, attempts FROM dispatch.events WHERE event_id = ?', undef, $_)
	} @_;
}

sub last_error
{
	return $session->selectrow_array('SELECT last_error FROM dispatch.backend_status') // '';
}

# How many events go on that were in a batch that Kafka has refused, and what is
# left of a back-off that needs an operator: none.
sub settles_ok
{
	my ($expected, $what, @ids) = @_;

	eval {
		wait_until(
			sub {
				$session->do(q(SELECT dispatch.resume_backend('default')))
				  if backend_state($node, 'default') eq 'configuration error';
				return statuses(@ids) eq $expected;
			},
			$what, 30);
	};
	is(statuses(@ids), $expected, "$what: $expected");
	return;
}

# ---- Each row of the table

my ($source) = slurp_file('src/transports/kafka_error.c') =~ /error_rows\[\] =\s*\{(.*?)^\};/ms;
my @rows = $source =~ /^\t\{"(\w+)", OF_(ALL|ONE)\((\w+)\)\}/mg;

cmp_ok(@rows / 3, '>', 50, 'the table is found');
is(@rows / 3, scalar(() = $source =~ /^\t\{"/mg), 'all of it');

my %FATE = (
	DESTINATION => 'retrying/0',
	EVENT_FAILED => 'retrying/1',
	EVENT_REJECTED => 'failed/1');

while (my ($name, $scope, $class) = splice @rows, 0, 3)
{
	my $fate = $INVISIBLE{$name} ? 'published/0' : $FATE{$class} // 'published/0';
	my $before = last_error();

	$mock->tell("topic alone.$name 1");
	next if $NEWER{$name} && !eval { $mock->tell("errors $PRODUCE $name"); 1 };
	$mock->tell("errors $PRODUCE $name") unless $NEWER{$name};
	settles_ok($fate, "$name, alone", publish("alone.$name", 1));
	if ($INVISIBLE{$name})
	{
		is(last_error(), $before, "$name: nobody hears of it");
	}
	elsif (!$FATE{$class})
	{
		like(last_error(), qr/\($name\)/, "$name: the backend says so") unless $QUIET{$name};
		is_deeply([ map { $_->{payload} } $mock->records("alone.$name") ], ['1'], "$name: one record");
	}

	# While it recovers, it does not send three at once.
	wait_for_state($node, 'default', 'running');
	$fate = 'published/0' if $scope eq 'ONE';
	$mock->tell("topic among.$name 1");
	$mock->tell("errors $PRODUCE $name");
	settles_ok("$fate $fate $fate", "$name, among others", publish("among.$name", 3));
	is_deeply(
		[ map { $_->{payload} } $mock->records("among.$name") ],
		$fate eq 'published/0' && !$IS_WRITTEN{$name} ? [ 1 .. 3 ] : [],
		"$name: each event once, in order");
	# Those that wait would be sent again, and meet an error of another row.
	new_backend() if $class eq 'DESTINATION';
}

# An event that has asked for no partition is not to blame that there is none.
$mock->tell('topic gone 1');
$mock->tell("errors $PRODUCE _UNKNOWN_PARTITION");
settles_ok('retrying/0', 'no partition, but none asked for',
	publish('gone', 1, partition => undef));
new_backend();

# ---- A producer that Kafka has not met
#
# Kafka takes the first record of a producer that it does not know whatever its
# number, as the mock takes any: so a second batch may be written although the
# first one was refused, and librdkafka takes both for written then.

# Publishes two events to a partition that is new to the producer, the second
# while Kafka is about to refuse the first.
sub publish_two
{
	my ($topic, $error, $key) = @_;
	my $send = sub {
		my ($n, $partition) = @_;

		return $session->selectrow_array(
			q(SELECT dispatch.publish('t', 's', ?, key => ?, options =>
				jsonb_build_object('topic', ?::text, 'partition', ?::int, 'envelope', 'data'))),
			undef, $n, $key, $topic, $partition);
	};
	my @ids;

	new_backend();
	$session->do(q(SELECT dispatch.alter_backend('default', '{"linger": 0}')));
	$mock->tell("topic $topic 2");
	settles_ok('published/0', "$topic: the topic is known", $send->(0, 0));
	$mock->tell('rtt 1 500');
	$mock->tell("errors $PRODUCE $error");
	foreach my $n (1, 2)
	{
		push @ids, $send->($n, 1);
		wait_until(
			sub {
				$n == $session->selectrow_array('SELECT in_flight FROM dispatch.backend_status');
			},
			"$topic: $n in flight");
		sleep 0.1;				# on its way, and before the answer to the first
	}
	$mock->tell('rtt 1 0');
	return @ids;
}

sub payloads
{
	my ($topic) = @_;

	return map { $_->{payload} } grep { $_->{partition} == 1 } $mock->records($topic);
}

settles_ok('published/0 published/0', 'no leader yet, no keys',
	publish_two('unordered', 'NOT_LEADER_FOR_PARTITION', undef));
is_deeply([ sort(payloads('unordered')) ],
	[ 1, 2 ], 'what a broker has refused is not taken for written');

settles_ok('published/0 published/0', 'no leader yet, one key',
	publish_two('ordered', 'NOT_LEADER_FOR_PARTITION', 'k'));
is_deeply([ payloads('ordered') ], [ 1, 2 ], 'nor is it overtaken by the next of its key');

settles_ok('retrying/1 parked/0', 'refused, one key',
	publish_two('refused', 'POLICY_VIOLATION', 'k'));
is_deeply([ payloads('refused') ], [], 'nor is what Kafka does not want');
new_backend();

# ---- A session that publishes is not exposed to librdkafka

my $publisher = session($node);
$mock->tell('topic well 1');
$publisher->do(q(SELECT dispatch.publish('t', 's', '1', options => '{"topic": "well"}')));
ok($publisher->selectrow_array("SELECT dispatch.flush('30 s')"), 'the event is delivered');
my @processes = ($publisher->{pg_pid}, backend_pid($node, 'default'));
is_deeply(
	[ map { slurp_file("/proc/$_/maps") =~ /librdkafka/ ? 1 : 0 } @processes ],
	[ 0, 1 ], 'the worker has it loaded, the publisher has not');

# ---- Topics that take nothing delay nobody else

$session->do(q(SELECT dispatch.alter_backend('default', ?)),
	undef, '{"message_timeout": 4, "linger": 0}');
my @bad = qw(missing silent);
$mock->tell("topic $_ 1") foreach @bad;
$mock->tell('topic-error missing UNKNOWN_TOPIC_OR_PART');
$mock->tell('leader silent 0 -1');

# Every half a second one to each topic, so that none of them is alone.
sub publish_until
{
	my ($condition, $what) = @_;
	my %ids;
	my $next = 0;

	wait_until(
		sub {
			if (time > $next)
			{
				push @{ $ids{$_} }, publish($_, 1) foreach 'well', @bad;
				$next = time + 0.5;
			}
			return $condition->(\%ids);
		},
		$what, 60);
	return %ids;
}

sub all_are
{
	my ($status, @ids) = @_;

	return statuses(@ids) eq join ' ', ($status) x @ids;
}

my %ids = publish_until(
	sub {
		my ($ids) = @_;

		return @{ $ids->{well} } > 3 && !grep { !all_are('retrying/0', @{ $ids->{$_} }) } @bad;
	},
	'events for topics that take none wait, and no attempt is counted');
wait_until(sub { all_are('published/0', @{ $ids{well} }) }, 'the others are delivered', 30);
pass('events for other topics are delivered');

my %said = map {
	$_ => $session->selectrow_array('SELECT last_error FROM dispatch.events WHERE event_id = ?',
		undef, $ids{$_}[0])
} @bad;
like($said{missing}, qr/UNKNOWN_TOPIC/, 'which topic is missing is said');
like($said{silent}, qr/did not confirm/, 'and which one does not answer');
is(backend_state($node, 'default'), 'running', 'the backend is well');

$mock->tell('topic-error missing NO_ERROR');
$mock->tell('leader silent 0 1');
foreach my $topic ('well', @bad)
{
	my @ids = @{ $ids{$topic} };

	wait_until(sub { all_are('published/0', @ids) }, "topic $topic is well: all is delivered", 60);
	is(scalar $mock->records($topic), @ids + ($topic eq 'well'), "each event once in topic $topic");
}

# The same with nothing else going on: at first that looks like an outage, which
# then must not be one for the other topics.
$mock->tell('topic alone 1');
$mock->tell('leader alone 0 -1');
my @alone = publish('alone', 5);
wait_until(sub { last_error() =~ /no record was confirmed/ }, 'no record is confirmed', 60);
settles_ok('published/0', 'another topic gets its turn', publish('well', 1));
$mock->tell('leader alone 0 1');
wait_until(sub { all_are('published/0', @alone) }, 'all is delivered', 60);
is(join(' ', sort map { $_->{payload} } $mock->records('alone')), '1 2 3 4 5', 'each event once');

$node->stop;
log_ok($node, qr/ERROR:/);
done_testing();
