# Private memory of a worker while it drains a large backlog, and how long
# backend_status takes while the backlog is there.

use strict;
use warnings;

use Bench;
use Bench::Process;
use Bench::Server;
use DispatchTest;
use Time::HiRes qw(sleep time);

my $COUNT = sized(2000, 1_000_000, 1_000_000);
my $WINDOW_MB = 16;				# dispatch.batch_bytes

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;

create_redis_backend($node, $redis);
pause($session, 'default');
publish_many($session, $COUNT, payload => 1000);

sub milliseconds
{
	my ($query) = @_;
	my $start = time;

	$session->selectall_arrayref($query);
	return (time - $start) * 1000;
}

my %taken = in_turns(
	sized(2, 15, 50),
	ours => sub { milliseconds('SELECT * FROM dispatch.backend_status') },
	theirs => sub { milliseconds('SELECT count(*) FROM dispatch.outbox') });
record(
	case => "backend_status, backlog of $COUNT", unit => 'ms', ours => $taken{ours},
	counterpart => 'count(*) of the outbox', theirs => $taken{theirs}, target => '< 5');

my ($most, $pid) = (0);

resume($session, 'default');
wait_until(sub { $pid = backend_pid($node, 'default') }, 'the worker');
while ($redis->client->xlen('events') < $COUNT)
{
	my $now = private_megabytes($pid);

	$most = $now if $now > $most;
	sleep 0.05;
}
record(
	case => "private memory of the worker, $COUNT events of 1000 bytes", unit => 'MB',
	ours => $most, target => '<= ' . (64 + $WINDOW_MB));
