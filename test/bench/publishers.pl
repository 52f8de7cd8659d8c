# Many publishers at once, with the worker delivering all the while, against as
# many that INSERT; and how long the rest takes when they stop.

use strict;
use warnings;

use Bench;
use Bench::Load;
use Bench::Server;
use DispatchTest;
use Time::HiRes qw(time);

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;
my %load = (seconds => sized(1, 2, 10));

create_redis_backend($node, $redis);
create_plain_table($session);

foreach my $clients (sized([4], [ 1, 4, 16, 64 ], [ 1, 4, 16, 64 ])->@*)
{
	my @rest;
	my %tps = in_turns(
		sized(1, 3, 5),
		ours => sub {
			my $tps = pgbench_tps($node, publish_script(), %load, clients => $clients);
			my $stopped = time;

			sql($session, q(SELECT dispatch.flush('5 min')));
			push @rest, time - $stopped;
			$redis->client->flushall;
			return $tps;
		},
		theirs => sub { pgbench_tps($node, insert_script(), %load, clients => $clients) });

	record(
		case => "$clients publishers, worker on", unit => 'transactions/s', ours => $tps{ours},
		counterpart => 'plain INSERT', theirs => $tps{theirs}, target => 'ratio >= 0.9');
	record(case => "$clients publishers stop: until all is delivered", unit => 's',
		ours => \@rest);
}
