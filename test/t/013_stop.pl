# The server stops as fast as one without workers, whatever they are doing, and
# what it did not deliver is delivered after the next start.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use PostgreSQL::Test::Utils;

my $LIMIT = 5;

my $redis = RedisServer->new(appendonly => 1);
my $node = new_cluster('stop');
my %listener = (silent => [ silent_listener() ], full => [ full_listener() ]);
my $n = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis, socket_timeout => 60);

sub publish
{
	my ($backend, $count) = @_;

	sql(qq(SELECT dispatch.publish('n', 's', to_jsonb($n + i), key => 'k', backend => '$backend')
		FROM generate_series(1, $count) AS i));
	$n += $count if $backend eq 'default';
}

sub stops_in_time
{
	my ($what) = @_;
	my $started = time;

	$node->stop('fast', timeout => 60);
	cmp_ok(time - $started, '<', $LIMIT, "stop -m fast: $what");
}

sub all_delivered
{
	my ($what) = @_;
	my %seen;

	is(sql(q(SELECT dispatch.flush('30s', 'default'))),
		't', "$what: all is settled after the start");
	is_deeply([ grep { !$seen{$_}++ } stream_data($redis) ],
		[ 1 .. $n ], "$what: nothing is lost, and the order is kept");
}

publish('default', 10);
all_delivered('at first');
stops_in_time('idle worker');
$node->start;
publish('default', 10);
all_delivered('idle');

# Events in flight to a Redis that does not answer
$redis->sigstop;
publish('default', 2000);
wait_until(
	sub { sql('SELECT in_flight > 0 FROM dispatch.backend_status') eq 't' },
	'events in flight');
stops_in_time('frozen Redis with events in flight');
$redis->sigcont;
$node->start;
all_delivered('frozen');

# A broker that accepts the connection, and then says nothing; one that does not
# even accept it
foreach my $name (sort keys %listener)
{
	create_redis_backend(
		$node, $redis, name => $name, port => $listener{$name}[0]->sockport,
		connect_timeout => 60, socket_timeout => 60);
	publish($name, 1);
	wait_for_state($node, $name, 'connecting');
	stops_in_time("connecting to a broker whose socket is $name");
	$node->start;
	sql("SELECT dispatch.pause_backend('$name')");
}

# A function that does not end
sql(q(
	CREATE ROLE plain;
	GRANT USAGE ON SCHEMA dispatch TO plain;
	CREATE FUNCTION public.loop(dispatch.event[]) RETURNS SETOF dispatch.failure
	LANGUAGE plpgsql AS 'BEGIN LOOP NULL; END LOOP; END';
	INSERT INTO dispatch.backends (name, transport, options, owner)
	VALUES ('sql', 'sql', '{"function": "public.loop(dispatch.event[])"}', 'plain')));
my $looping = q(SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'dispatch worker' AND xact_start < now() - interval '1 s');
publish('sql', 1);
wait_until(sub { sql($looping) eq '1' }, 'a function that loops');
stops_in_time('a function that loops');
$node->start;
sql(q(SELECT dispatch.pause_backend('sql')));

# At once, with and without events on their way
publish('default', 5000);
$node->stop('immediate');
$node->start;
all_delivered('immediate');

# The postmaster is killed: its children go, too
$redis->sigstop;
publish('default', 100);
my @ours = map { process_ids($node, $_) } qw(launcher manager worker);
cmp_ok(scalar @ours, '>=', 3, 'our processes are there');
$node->kill9;
my $started = time;
wait_until(sub { !grep { -d "/proc/$_" } @ours }, 'the end of our processes', 10);
cmp_ok(time - $started, '<', 2, 'they notice the end of the postmaster');
$redis->sigcont;
$node->start;
all_delivered('kill -9');

log_ok($node, qr/PANIC/);
$node->stop;
done_testing();
