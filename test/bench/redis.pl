# Draining a backlog to Redis, against redis-benchmark with the same XADD.
#
# redis-benchmark repeats an entry that we have sent; it does so with 50
# connections of 1000 commands in flight each, and with one connection.

use strict;
use warnings;

use Bench;
use Bench::Drain;
use Bench::Server;
use Bench::Toll;
use DispatchTest;

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;

create_redis_backend($node, $redis);

# Measures one shape of the backlog; the rates of both go to the record.
sub compare
{
	my ($case, %options) = @_;
	my $count = delete $options{count};
	my $turns = delete $options{turns};
	my $target = delete $options{target} // 'ratio >= 0.8';
	my @connections = @{ delete $options{connections} // [50] };
	my $client = $redis->client;
	my $toll = Bench::Toll->new(broker => $redis->pid);

	$session->do('UPDATE dispatch.backends SET batch_size = ?',
		undef, delete $options{batch_size});
	$client->flushall;
	publish_many($session, 1, %options);
	drain($session, 'default');
	$client->rename('events', 'model');

	my %rates = in_turns(
		$turns,
		ours => sub {
			publish_many($session, $count, %options);
			drain($session, 'default', $count, $toll);
			my $rate = stream_rate($redis, 'events', $count);

			$client->del('events');
			return $rate;
		},
		map {
			my $connections = $_;

			$connections => sub {
				my $run = sub {
					redis_benchmark_rate($redis, 'benchmark', $count,
						options => [ '-P', 1000, '-c', $connections ]);
				};
				my $rate =
				  $connections == $connections[0] ? $toll->of_theirs($count, $run) : $run->();

				$client->del('benchmark');
				return $rate;
			}
		} @connections);

	foreach my $connections (@connections)
	{
		record(
			case => $case, unit => 'events/s', ours => $rates{ours},
			counterpart => "redis-benchmark -P 1000 -c $connections",
			theirs => $rates{$connections}, target => $connections == 50 ? $target : '');
	}
	$toll->record($case, "redis-benchmark -P 1000 -c $connections[0]");
	return;
}

my $count = sized(1000, 200_000, 400_000);
my %base = (
	payload => 100, keys => 'none', batch_size => 1000,
	count => $count, turns => sized(1, 7, 9));

pause($session, 'default');
compare('100 bytes, no key, batches of 1000', %base,
	connections => [ 50, 1 ]);
compare('100 bytes, unique keys', %base, keys => 'many');
compare('100 bytes, one key', %base, keys => 'one', target => '');
compare('1000 bytes', %base, payload => 1000, count => $count / 2);
compare('10000 bytes', %base, payload => 10_000, count => $count / 10);
compare('batches of 100', %base, batch_size => 100);
compare('batches of 10000', %base, batch_size => 10_000);
