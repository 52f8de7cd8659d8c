# A backend whose broker is dead, beside one that lives: what the live one
# loses.  One refuses connections, another accepts them and never answers.

use strict;
use warnings;

use Bench;
use Bench::Drain;
use Bench::Server;
use DispatchTest;

my $COUNT = sized(1000, 200_000, 500_000);

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;
my $refusing = RedisServer->new;
my $silent = silent_listener();
my @dead = qw(refusing silent);

create_redis_backend($node, $redis);
create_redis_backend($node, $refusing, name => 'refusing');
$session->do(q(SELECT dispatch.create_backend('silent', 'redis', ?)), undef,
	sprintf '{"host": "127.0.0.1", "port": %d}', $silent->sockport);
$refusing->stop;
pause($session, $_) foreach 'default', @dead;

sub rate
{
	my $rate;

	publish_many($session, $COUNT);
	drain($session, 'default');
	$rate = stream_rate($redis, 'events', $COUNT);
	$redis->client->flushall;
	return $rate;
}

# The dead ones have a backlog too, and try all the time.
sub rate_beside_the_dead
{
	my $rate;

	resume($session, $_) foreach @dead;
	wait_for_state($node, 'refusing', 'outage');
	publish_many($session, 1000, backend => $_) foreach @dead;
	$rate = rate();
	pause($session, $_) foreach @dead;
	return $rate;
}

rate();
my %rates = in_turns(
	sized(1, 5, 5),
	ours => \&rate_beside_the_dead,
	theirs => \&rate);

record(
	case => 'a live backend beside two dead ones', unit => 'events/s', ours => $rates{ours},
	counterpart => 'the same alone', theirs => $rates{theirs}, target => 'ratio >= 0.95');
