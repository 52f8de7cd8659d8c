# A cluster of three nodes, which loses nodes and moves leaders all the time:
# nothing is lost, nothing is invented, keys keep their order. Without enough
# replicas in sync nothing counts as delivered, and events wait.
#
# DISPATCH_STRESS_SECONDS: how long clients publish meanwhile (16).
# DISPATCH_STRESS_SEED: the seed of their transactions, printed in every run.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use KafkaBackend;
use KafkaBench;

my $SECONDS = $ENV{DISPATCH_STRESS_SECONDS} // 16;
my $PARTITIONS = 6;
my $STUCK_EVENTS = 50;				# more than a batch
my @TOPIC =
  (partitions => $PARTITIONS, replication => 3, topic_config => { 'min.insync.replicas' => 2 });

my $bench = KafkaBench->new('cluster', nodes => 3);
my ($kafka, $node) = ($bench->kafka, $bench->node);

sub replicas_in_sync
{
	my ($topic) = @_;
	my ($fewest) = sort { $a <=> $b } map { scalar @{ $_->{isrs} } } $kafka->partitions($topic);

	return $fewest;
}

sub wait_for_replicas
{
	my ($topic, $condition) = @_;

	wait_until(sub { $condition->(replicas_in_sync($topic)) }, "replicas of $topic", 60);
	return;
}

# ---- Not enough replicas: nothing is delivered that one node alone has

$bench->new_backend('safe', @TOPIC, message_timeout => 4);
$kafka->create_topic('lonely', assignment => { 0 => [1] });
$kafka->create_topic('short', replication => 3, config => { 'min.insync.replicas' => 3 });
create_kafka_backend(
	$node, $kafka, name => 'mixed', topic => '{subject}', message_timeout => 4, envelope => 'data');
$bench->sql(q(UPDATE dispatch.backends SET batch_size = 20 WHERE name = 'mixed'));
$bench->publish('safe', 100);
$bench->all_there_ok('safe', 'three nodes', 1);

# One is gone: two are enough
$kafka->kill9(3);
$bench->publish('safe', 100);
$bench->all_there_ok('safe', 'two nodes');
$kafka->start(3);
wait_for_replicas('safe', sub { $_[0] == 3 });

# A topic that asks for all three
$kafka->ask('alter_topic', topic => 'safe', config => { 'min.insync.replicas' => '3' });
$kafka->kill9(3);
wait_for_replicas('safe', sub { $_[0] < 3 });
$bench->publish('safe', 100);
wait_until(sub { ($bench->status('safe', 'last_error') // '') ne '' }, 'the reason', 60);
is($bench->status('safe', 'pending'), 100, 'too few replicas: events wait');
is($bench->dead_letters, 0, 'too few replicas: no dead letter');

# Topics that are well go on in the same backend, also when it was in trouble
# before, and when partitions of another topic have no leader
sub publish_to
{
	my ($topic, $partition) = @_;

	$bench->sql(
		q(SELECT dispatch.publish('t', 's', '1', backend => 'mixed', subject => $1,
			options => jsonb_build_object('partition', $2::int))), $topic, $partition);
	return;
}

publish_to('short', 0);
wait_until(sub { defined $bench->status('mixed', 'last_error') }, 'the reason', 60);
publish_to('lonely', 0);
wait_until(sub { 1 == $kafka->records('lonely') }, 'a topic that has enough replicas', 60);
pass('too few replicas: another topic of the same backend is written to');
$kafka->start(3);
wait_for_replicas('safe', sub { $_[0] == 3 });
$bench->all_there_ok('safe', 'enough replicas again');
$bench->settle('mixed', 'enough replicas again');
is(scalar $kafka->records('short'), 1, 'enough replicas again: in the other topic, too');

$kafka->create_topic('split', assignment => { 0 => [1], 1 => [2] });
$kafka->kill9(2);
wait_until(sub { ($kafka->partitions('split', 1))[1]{leader} < 1 }, 'no leader', 60);
publish_to('split', 1) foreach 1 .. $STUCK_EVENTS;
foreach (1 .. 10)
{
	publish_to('split', 0);
	publish_to('lonely', 0);
	sleep 0.3;
}
wait_until(sub { 11 == $kafka->records('lonely') }, 'a topic that is well', 60);
pass('no leader of a partition: another topic of the same backend is written to');
is($bench->dead_letters, 0, 'no leader of a partition: no dead letter');
$kafka->start(2);
$bench->settle('mixed', 'all is well again');
is(scalar $kafka->records('split'), $STUCK_EVENTS + 10, 'a leader again: all has come');

# ---- Clients publish, nodes die, leaders move

# Leaders go round: each partition to the next node.
sub move_leaders
{
	my ($topic, $turn) = @_;
	my %replicas;

	foreach my $partition (0 .. $PARTITIONS - 1)
	{
		$replicas{$partition} = [ map { 1 + ($partition + $turn + $_) % 3 } 0 .. 2 ];
	}
	$kafka->ask('move_leaders', topic => $topic, replicas => \%replicas);
	return;
}

# Leaders move.  librdkafka may count anew then, for all partitions at once, and
# what others had in flight is written again: that is rare, and all that happens.
my $moving = $bench->start_run('moving', @TOPIC);
my $moves = 0;
for (my $deadline = time + $SECONDS / 2; time < $deadline; $moves++)
{
	sleep 1;
	move_leaders('moving', $moves);
}
my $report = $bench->finish_run($moving);
cmp_ok($moves, '>', 1, "leaders moved $moves times");
cmp_ok($report->{duplicates}, '<', $report->{events} / 2, 'moving: most events came once');

# Nodes are killed, one after the other, with what they had in flight.
my $dying = $bench->start_run('dying', @TOPIC);
my $kills = 0;
for (my $deadline = time + $SECONDS; time < $deadline || $kills < 3; $kills++)
{
	my $victim = 1 + $kills % 3;

	sleep 1;
	$kafka->kill9($victim);
	sleep 1;
	$kafka->start($victim);
	wait_for_replicas('dying', sub { $_[0] == 3 });
}
$report = $bench->finish_run($dying);
cmp_ok($kills, '>=', 3, "nodes were killed $kills times");

$bench->finish;
done_testing();
