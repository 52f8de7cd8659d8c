# publish() in a transaction of its own, against the plain INSERT of a row of
# the same shape into a table with the same indexes: what the application pays.
#
# With the worker on, it and Redis want a share of the same processors.

use strict;
use warnings;

use Bench;
use Bench::Load;
use Bench::Server;
use DispatchTest;

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;
my %load = (seconds => sized(1, 2, 10));

create_redis_backend($node, $redis);
create_plain_table($session);

sub compare
{
	my ($case, %options) = @_;
	my $keys = delete $options{keys};
	my %tps = in_turns(
		sized(1, 3, 7),
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
compare('100 bytes, worker on', payload => 100);
