# What comes again after a crash is what was delivered shortly before it: a
# position is stored 0.1 s after it moved, and is in the WAL 0.6 s later.

use strict;
use warnings;

use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

# What docs/guarantees.md says; and what a machine that is busy may take.
my $SAVE_SECONDS = 0.1;
my $WAL_SECONDS = 0.6;
my $MORE_SECONDS = 0.3;
my $BOUND = $SAVE_SECONDS + $WAL_SECONDS + $MORE_SECONDS;

my $CRASHES = 3;
my $FLOW_SECONDS = 2 * $BOUND;
my $PAUSE_SECONDS = 0.002;

my $redis = RedisServer->new(appendonly => 1);
# The only WAL that is written for the sake of a position is what walwriter does.
my $node = new_cluster('copies', "log_statement = none\nsynchronous_commit = off\n"
	  . "wal_writer_delay = '200 ms'\nautovacuum = off\n");
my $n = 0;

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);

# Publishes one event after another in a process of its own, until it is ended.
sub start_publishing
{
	my ($round) = @_;
	my $pid = fork // die "fork: $!\n";

	return $pid if $pid;
	eval {
		my $session = session($node);

		for (my $i = 1;; $i++)
		{
			$session->do(q(SELECT dispatch.publish('n', 's', to_jsonb(?::text), key => 'k')),
				undef, "$round.$i");
			sleep $PAUSE_SECONDS;
		}
	};
	POSIX::_exit(0);
}

# Until the position has been stored and others have seen as much.
sub flush
{
	wait_until(
		sub { session($node)->selectrow_array(q(SELECT dispatch.flush('30s'))) }, 'delivery');
	return;
}

# By event: when its first copy came (in seconds, by the clock of Redis, which is
# ours), and how many there are.
sub copies
{
	my (%first, %count);

	foreach my $entry ($redis->xrange_all('events'))
	{
		my $id = $entry->{fields}{event_id};

		$first{$id} //= ($entry->{id} =~ /^(\d+)/)[0] / 1000;
		$count{$id}++;
	}
	return (\%first, \%count);
}

# ---- While events flow

my $copies = 0;
foreach my $round (1 .. $CRASHES)
{
	my $pid = start_publishing($round);

	sleep $FLOW_SECONDS;
	my $crash = time;
	$node->stop('immediate');
	kill 'TERM', $pid;
	waitpid $pid, 0;
	$node->start;
	flush();

	my ($first, $count) = copies();
	my @again = grep { $count->{$_} > 1 } keys %$count;
	my @old = grep { $first->{$_} < $crash - $BOUND } @again;
	my $before = grep { $_ < $crash - $BOUND } values %$first;

	cmp_ok($before, '>', 0, "crash $round: $before events had been delivered long before");
	is(scalar @old, 0, "crash $round: none of them comes again");
	$copies += @again;
	note("crash $round: " . @again . ' of ' . keys(%$count) . ' came again');
	$redis->client->del('events');
}
cmp_ok($copies, '>', 0, 'something came again');

# ---- After a while without any

foreach my $round (1 .. $CRASHES)
{
	my $session = session($node);

	$session->do(q(SELECT count(dispatch.publish('n', 's', to_jsonb(i), key => 'k'))
		FROM generate_series(1, 1000) AS i));
	flush();
	sleep $BOUND;
	$node->stop('immediate');
	$node->start;
	$node->safe_psql('postgres', q(SELECT dispatch.publish('last', 's', '0', key => 'k')));
	flush();

	my (undef, $count) = copies();

	is(scalar keys %$count, 1001, "quiet crash $round: all have come");
	is(scalar(grep { $_ > 1 } values %$count), 0, "quiet crash $round: once");
	$redis->client->del('events');
}

log_ok($node);
$node->stop;
done_testing();
