# The broker is away while publishers go on; then, how long until the events
# that waited are delivered, in order.
#
# Ten seconds; OUTAGE=900 is a quarter of an hour.

use strict;
use warnings;

use Bench;
use Bench::Load;
use Bench::Server;
use DispatchTest;
use Time::HiRes qw(sleep time);

my $RATE = sized(200, 1000, 1000);
my $outage = parameter('OUTAGE', sized(1, 10, 60));
my $after = sized(2, 5, 10);

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;

create_redis_backend($node, $redis);
wait_for_state($node, 'default', 'running');
$redis->stop;
my $load = pgbench_start($node, numbered_script(),
	clients => 4, rate => $RATE, seconds => $outage + $after);
sleep $outage;

# What waits when the broker is back, and until nothing does but the newest.
$redis->start;
my $back = time;
my $waiting = sql($session, 'SELECT pending FROM dispatch.backend_status');
my $client = $redis->client;

wait_until(sub { $client->xlen('events') > 0 }, 'the first event', 120);
my $first = time;
wait_until(
	sub { sql($session, 'SELECT pending FROM dispatch.backend_status') < $RATE / 20 },
	'the end of the backlog', 600);
my $caught_up = time;
my (undef, $count) = pgbench_end($load);

sql($session, q(SELECT dispatch.flush('5 min'))) or die "not all was delivered\n";

# Each client has numbered its events.
my (%last, $disordered, $repeated);
($disordered, $repeated) = (0, 0);
foreach my $entry ($redis->xrange_all('events'))
{
	my $event = $entry->{fields}{cloud_event};
	my ($n, $client_id) = $event =~ /"n": (\d+), "client": (\d+)/ or die "unknown: $event\n";
	my $expected = ($last{$client_id} // 0) + 1;

	$repeated++ if $n < $expected;
	$disordered++ if $n > $expected;
	$last{$client_id} = $n if $n >= $expected;
}
my $delivered = 0;
$delivered += $_ foreach values %last;

record(case => "waiting after $outage s at $RATE events/s", unit => 'events', ours => $waiting);
record(case => 'from broker back to first event', unit => 's', ours => $first - $back);
record(case => 'from first event to caught up', unit => 's', ours => $caught_up - $first);
record(case => 'lost', unit => 'events', ours => $count - $delivered, target => '<= 0');
record(case => 'out of order', unit => 'events', ours => $disordered, target => '<= 0');
record(case => 'repeated', unit => 'events', ours => $repeated);
