# Nothing leaves the machine before it is durable here: what a crash takes from
# those who commit asynchronously has not been delivered.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my $ROUNDS = 5;

my $redis = RedisServer->new(appendonly => 1);
my $node = new_cluster(
	'ghost', q(
synchronous_commit = off
wal_writer_delay = 10s
wal_buffers = 16MB
shared_buffers = 64MB
bgwriter_delay = 10s
autovacuum = off
));

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION dispatch; CREATE TABLE business (n int)');
create_redis_backend($node, $redis);
# So that not everything is in memory only.
sql('CHECKPOINT');

my ($lost, $n) = (0, 0);
foreach my $round (1 .. $ROUNDS)
{
	my $session = session($node);
	my $delivered = $redis->client->xlen('events');

	# Each with a row of its own: the server stops as soon as the first of
	# them has been delivered.
	wait_for_state($node, 'default', 'running');
	foreach (1 .. 20)
	{
		$n++;
		$session->do(
			q(WITH i AS (INSERT INTO business VALUES (?) RETURNING n)
			SELECT dispatch.publish('n', 's', to_jsonb(n), key => 'k') FROM i), undef, $n);
	}
	wait_until(sub { $redis->client->xlen('events') > $delivered }, 'a delivery');
	# Not for the worker's eyes: rows that nothing makes durable
	$session->do('INSERT INTO business VALUES (-?::int)', undef, $round);
	$node->stop('immediate');
	$node->start;

	my %exists =
	  map { $_ => 1 } split /\n/, sql('SELECT n FROM business');
	my @ghosts = grep { !$exists{$_} } stream_data($redis);
	is_deeply(\@ghosts, [], "round $round: no ghost was delivered");
	$lost++ unless $exists{ -$round };
}
cmp_ok($lost, '>', 0, 'a crash did take what was not durable');
is(sql(q(SELECT dispatch.flush('30s'))), 't', 'all is settled');

my %count;
$count{$_}++ foreach stream_data($redis);
is_deeply(
	[ sort { $a <=> $b } keys %count ],
	[ split /\n/, sql('SELECT n FROM business WHERE n > 0 ORDER BY n') ],
	'in the end the stream has exactly what is in the database');

$node->stop;
done_testing();
