# Kafka is away, dies, hangs, is cut off, or is slow; a topic is deleted, or gets
# more partitions. Events wait, none of them loses an attempt, and all arrive
# when all is well again; nothing comes twice unless Kafka, or we, had to give
# up on a reply. The server stops within seconds whatever Kafka does.
#
# DISPATCH_STRESS_SECONDS: how long clients publish while faults happen (20).
# DISPATCH_STRESS_SEED: the seed of their transactions, printed in every run.

use strict;
use warnings;

use List::Util qw(sum);
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use KafkaBackend;
use KafkaBench;
use Ledger;

my $SECONDS = $ENV{DISPATCH_STRESS_SECONDS} // 20;
my $STOP_LIMIT = 5;
my $BATCH_SIZE = 20;			# of the stormy run: copies are bounded by it
my @QUICK = (message_timeout => 4, connect_timeout => 3);

# A quota is kept over two seconds, not over ten.
my $bench = KafkaBench->new('faults', proxied => 1, conf => { 'quota.window.num' => 3 });
my ($kafka, $node, $proxy) = ($bench->kafka, $bench->node, $bench->proxy);

sub stops_in_time
{
	my ($what) = @_;
	my $started = time;

	$node->stop('fast', timeout => 60);
	cmp_ok(time - $started, '<', $STOP_LIMIT, "stop -m fast: $what");
	return;
}

# ---- Calm: nothing comes twice

my $calm = $bench->start_run('calm');
sleep $SECONDS / 2;
my $report = $bench->finish_run($calm);
is($report->{duplicates}, 0, 'calm: nothing came twice');

# ---- Away

$bench->new_backend('away', @QUICK);
$bench->publish('away', 10);
$bench->all_there_ok('away', 'before', 1);
my $position = log_position($node);
$kafka->stop;
$bench->publish('away', 50);
wait_for_state($node, 'away', 'outage');
sleep 1;						# some attempts to connect
is($bench->status('away', 'pending'), 50, 'stopped: events wait');
isnt($bench->status('away', 'last_error'), undef, 'stopped: the view says why');
is(scalar(log_lines($node, qr/WARNING:.*"away"/, $position)), 1, 'stopped: a single warning');
stops_in_time('Kafka is stopped');
$node->start;
$bench->publish('away', 50);
$kafka->start;
$bench->all_there_ok('away', 'started again', 1);

# Killed, with events in flight
$kafka->sigstop;
$bench->publish('away', 500);
$bench->in_flight('away');
$kafka->kill9;
stops_in_time('Kafka was killed with events in flight');
$node->start;
$kafka->start;
$bench->all_there_ok('away', 'killed');

# Frozen, for less than message_timeout: nobody notices
$bench->new_backend('patient', message_timeout => 60);
$bench->publish('patient', 10);
$bench->settle('patient', 'before the frost');
$kafka->sigstop;
$bench->publish('patient', 500);
$bench->in_flight('patient');
sleep 2;
$kafka->sigcont;
$bench->all_there_ok('patient', 'frozen for a moment', 1);

# Frozen, for longer
$bench->publish('away', 10);
$bench->settle('away', 'before the frost');
$kafka->sigstop;
$bench->publish('away', 500);
wait_for_state($node, 'away', 'outage');
is($bench->status('away', 'pending'), 500, 'frozen: events wait');
$kafka->sigcont;
$bench->all_there_ok('away', 'frozen');

# Frozen, with events in flight, and the server is stopped
$kafka->sigstop;
$bench->publish('away', 500);
$bench->in_flight('away');
stops_in_time('Kafka is frozen with events in flight');
$kafka->sigcont;
$node->start;
$bench->all_there_ok('away', 'stopped while frozen');

# ---- Cut off

$bench->new_backend('proxied', via_proxy => 1, @QUICK);
$bench->publish('proxied', 10);
$bench->all_there_ok('proxied', 'by the proxy', 1);
$proxy->set('swallow');
$bench->publish('proxied', 500);
$bench->in_flight('proxied');
stops_in_time('a black hole');
$proxy->set('pass');
$node->start;
$bench->all_there_ok('proxied', 'after a black hole');
$proxy->set('swallow');
$bench->publish('proxied', 100);
wait_for_state($node, 'proxied', 'outage');
stops_in_time('a black hole, connecting');
$proxy->set('refuse');
$node->start;
wait_for_state($node, 'proxied', 'outage');
$proxy->set('pass');
$bench->all_there_ok('proxied', 'refused');

# Connections break in the middle of requests and of replies. The producer sends
# again what was not confirmed, and Kafka knows it: nothing comes twice.
$bench->new_backend('cut', via_proxy => 1, message_timeout => 60, connect_timeout => 30);
$bench->publish('cut', 10);
$bench->settle('cut', 'before the cuts');
my $cuts = 0;
foreach my $cut (
	(map { [ server => $_ ] } 1, 60, 500, 3000, 9000),
	(map { [ client => $_ ] } 1, 5, 30, 80))
{
	my ($side, $after) = @$cut;

	$proxy->set('cut', side => $side, after => $after, once => 1);
	$bench->publish('cut', 100);
	$bench->settle('cut', "cut after $after bytes to the $side");
	$cuts += $proxy->stats->{faults};
}
cmp_ok($cuts, '>=', 5, 'connections were cut');
$proxy->set('pass');
$bench->all_there_ok('cut', 'cut in the middle', 1);
$proxy->set('slice');
$bench->publish('cut', 20);
$bench->all_there_ok('cut', 'segments of one byte', 1);
$proxy->set('delay', seconds => 0.5);
$bench->publish('cut', 200);
$bench->all_there_ok('cut', 'half a second of delay', 1);
$proxy->set('pass');

# ---- A topic that is gone, and another one

$bench->new_backend('gone', partitions => 4, @QUICK);
$bench->publish('gone', 10);
$bench->settle('gone', 'before');
$kafka->ask('delete_topic', topic => 'gone');
$bench->publish('gone', 10);
wait_until(sub { defined $bench->status('gone', 'last_error') }, 'the reason', 60);
$kafka->create_topic('gone', partitions => 2);
$bench->settle('gone', 'deleted and made again');
is_deeply(
	[ sort { $a <=> $b } topic_data($kafka, 'gone') ],
	[ 11 .. 20 ], 'a topic that was deleted: its events arrive when it is there again');

# More partitions: a key may move to another one, nothing is lost
$bench->new_backend(
	'more', partitions => 2, config => { 'topic.metadata.refresh.interval.ms' => 1000 });
$bench->publish('more', 50);
$bench->settle('more', 'two partitions');
$kafka->ask('add_partitions', topic => 'more', count => 8);
foreach (1 .. 20)
{
	$bench->publish('more', 50);
	sleep 0.15;
}
$bench->settle('more', 'eight partitions');
my @more = $kafka->records('more');
is_deeply(
	[ sort { $a <=> $b } topic_data($kafka, 'more') ],
	[ 1 .. $bench->published('more') ], 'more partitions: each event once');
my $placement = $kafka->ask('placement', keys => [ map { "k$_" } 0 .. 4 ], partitions => 8);
my %by_number = map { ($_->{value} =~ /"data": (\d+)}$/)[0] => $_ } @more;
my $newest = $bench->published('more');
is($by_number{$newest}{partition},
	$placement->[ $newest % 5 ], 'more partitions: keys go by the new number of them');

# ---- A quota: Kafka answers late, and that is all

$bench->new_backend('slow', message_timeout => 60);
$kafka->run_tool(
	'kafka.admin.ConfigCommand', '--alter', '--add-config', 'producer_byte_rate=20000',
	'--entity-type', 'clients', '--entity-default');
my $started = time;
foreach (1 .. 4)
{
	$bench->publish('slow', 200);
	$bench->settle('slow', 'a quota');
}
cmp_ok(time - $started, '>', 1, 'a quota: it slows us down');
$bench->all_there_ok('slow', 'a quota', 1);
is($bench->status('slow', 'state'), 'running', 'a quota: no outage');
$kafka->run_tool(
	'kafka.admin.ConfigCommand', '--alter', '--delete-config', 'producer_byte_rate',
	'--entity-type', 'clients', '--entity-default');

# ---- Stormy

sub end_workers
{
	wait_until(
		sub {
			$bench->sql(q(SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
				WHERE backend_type = 'dispatch worker'));
		},
		'a worker to end');
	return;
}

my %fault = (
	worker => sub { end_workers() },
	'worker, events in flight' =>
	  sub { $kafka->sigstop; sleep 0.3; end_workers(); $kafka->sigcont },
	kafka => sub { $kafka->restart },
	'kafka killed, events in flight' =>
	  sub { $kafka->sigstop; sleep 0.3; $kafka->kill9; $kafka->start },
	'kafka frozen' => sub { $kafka->sigstop; sleep 6; $kafka->sigcont },
	server => sub { $node->restart('fast') });
my @turns = sort keys %fault;
my %done = map { $_ => 0 } @turns;
my $stormy = $bench->start_run('stormy', @QUICK, batch_size => $BATCH_SIZE);
my $deadline = time + $SECONDS;
for (my $turn = 0; time < $deadline || $turn < @turns; $turn++)
{
	my $what = $turns[ $turn % @turns ];

	sleep 1;
	$fault{$what}->();
	$done{$what}++;
}
$report = $bench->finish_run($stormy);
copies_ok($report, 'stormy', sum(values %done), $BATCH_SIZE);
cmp_ok($done{$_}, '>', 0, "stormy: fault happened: $_") foreach @turns;

$bench->finish;
done_testing();
