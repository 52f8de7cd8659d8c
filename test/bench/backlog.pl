# Draining a large backlog, against a small one: what has piled up must not
# make it slower.  SIZE=full has one of ten million.  Redis holds as many entries
# in the end: what that costs it, redis-benchmark shows, which adds them alone.

use strict;
use warnings;

use Bench;
use Bench::Drain;
use Bench::Server;
use DispatchTest;

my $SMALL = sized(1000, 100_000, 100_000);

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;

create_redis_backend($node, $redis);
pause($session, 'default');

sub rate
{
	my ($count) = @_;
	my $rate;

	publish_many($session, $count);
	drain($session, 'default');
	$rate = stream_rate($redis, 'events', $count);
	$redis->client->del('events');
	return $rate;
}

sub bare_rate
{
	my ($count) = @_;
	my $rate = redis_benchmark_rate($redis, 'bare', $count);

	$redis->client->del('bare');
	return $rate;
}

# An entry as we send it.
publish_many($session, 1);
drain($session, 'default');
$redis->client->rename('events', 'model');

foreach my $count (sized([2000], [1_000_000], [ 1_000_000, 10_000_000 ])->@*)
{
	my %rates = in_turns(
		sized(1, 3, 3),
		theirs => sub { rate($SMALL) },
		ours => sub { rate($count) },
		bare => sub { bare_rate($count) },
		bare_small => sub { bare_rate($SMALL) });

	record(
		case => "backlog of $count", unit => 'events/s', ours => $rates{ours},
		counterpart => "backlog of $SMALL", theirs => $rates{theirs},
		target => 'ratio >= 0.95');
	record(
		case => "redis-benchmark, $count entries", unit => 'events/s', ours => $rates{bare},
		counterpart => "redis-benchmark, $SMALL entries", theirs => $rates{bare_small});
}
