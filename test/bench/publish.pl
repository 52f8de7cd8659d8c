# publish() in a transaction of its own, against the plain INSERT of a row of
# the same shape into a table with the same indexes: what the application pays.
#
# With the worker on, it and Redis want a share of the same processors.  What that
# alone costs is shown by an INSERT beside two processes that take the same shares.

use strict;
use warnings;

use Bench;
use Bench::Load;
use Bench::Process;
use Bench::Server;
use DispatchTest;
use Time::HiRes qw(time);

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;
my %load = (seconds => sized(1, 2, 10));
my $turns = sized(1, 5, 7);

create_redis_backend($node, $redis);
create_plain_table($session);

sub compare
{
	my ($case, %options) = @_;
	my $keys = delete $options{keys};
	my %tps = in_turns(
		$turns,
		ours => sub { pgbench_tps($node, publish_script($keys), %load, %options) },
		theirs => sub { pgbench_tps($node, insert_script($keys), %load, %options) });

	record(
		case => $case, unit => 'transactions/s', ours => $tps{ours},
		counterpart => 'plain INSERT', theirs => $tps{theirs}, target => 'ratio >= 0.9');
	return;
}

pause($session, 'default');
foreach my $bytes (sized([100], [ 100, 1000, 10_000 ], [ 100, 1000, 10_000 ])->@*)
{
	compare("$bytes bytes, worker off", payload => $bytes);
}
foreach my $keys (sized([], [qw(one many)], [qw(one many)])->@*)
{
	compare("100 bytes, keys: $keys, worker off", payload => 100, keys => $keys);
}
resume($session, 'default');
wait_for_state($node, 'default', 'running');

my @delivering = (backend_pid($node, 'default'), $redis->pid);
my @shares;						# of a processor, that these two take

sub publish_and_deliver
{
	my $began = time;
	my @before = map { cpu_seconds($_) } @delivering;
	my $tps = pgbench_tps($node, publish_script(), %load);

	@shares = map { (cpu_seconds($_) - shift @before) / (time - $began) } @delivering;
	return $tps;
}

my %tps = in_turns(
	$turns,
	ours => \&publish_and_deliver,
	theirs => sub { pgbench_tps($node, insert_script(), %load) },
	beside => sub {
		return beside_work(sub { pgbench_tps($node, insert_script(), %load) }, @shares);
	});
record(
	case => '100 bytes, worker on', unit => 'transactions/s', ours => $tps{ours},
	counterpart => 'plain INSERT', theirs => $tps{theirs}, target => 'ratio >= 0.9');
record(
	case => '100 bytes, worker on; INSERT beside such work', unit => 'transactions/s',
	ours => $tps{ours}, counterpart => 'INSERT beside work', theirs => $tps{beside});
