# Kafka behind a proxy: connections break at many places of what is said, clients
# of a ledger publish through every kind of trouble, and what the worker takes
# is the same after hundreds of lost connections.
#
# DISPATCH_STRESS_SEED: the seed of places and transactions, printed in every run.
# DISPATCH_FAULT_RECONNECTS: how many connections are lost in the end (200).

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use KafkaBackend;
use KafkaBench;
use Ledger;
use PostgreSQL::Test::Utils;

my $RECONNECTS = $ENV{DISPATCH_FAULT_RECONNECTS} // 200;
my $CUTS = 60;					# to each side
my $STORM_SECONDS = 5;
my $MOST_DESCRIPTORS = 6;		# more than after a quarter of them
my $MOST_KB = 2 * 1024;			# the same
my @PATIENT = (message_timeout => 120, connect_timeout => 60);
my @QUICK = (message_timeout => 4, connect_timeout => 3);
my $BATCH_SIZE = 20;			# of storms: copies are bounded by it
my $GIVEN_UP = 3;				# a storm is as long as that many message_timeouts, at the most

my $bench = KafkaBench->new('kafka', proxied => 1);
my $proxy = $bench->proxy;

diag("seed $bench->{seed}");
srand($bench->{seed});

# ---- Cuts: of a request, Kafka has nothing or all of it; of a reply, we do not
# know. The producer knows how to tell, so nothing comes twice.

$bench->new_backend('cut', via_proxy => 1, @PATIENT);
$bench->publish('cut', 10);
$bench->settle('cut', 'before');
my $faults = 0;
foreach my $side (qw(server client))
{
	my $most = $side eq 'server' ? 4000 : 200;		# bytes that are said, or so

	foreach (1 .. $CUTS)
	{
		$proxy->set('cut', side => $side, after => 1 + int rand $most, once => 1);
		$bench->publish('cut', 1 + int rand 20);
		$bench->settle('cut', "cut towards the $side");
		$faults += $proxy->stats->{faults};
	}
}
$proxy->set('pass');
cmp_ok($faults, '>', $CUTS, "connections were cut: $faults");
$bench->all_there_ok('cut', 'cuts', 1);

# ---- Storms: [what the proxy does, its arguments, may events come twice?]

foreach my $storm (
	[ 'reset', {}, 0 ],
	[ 'refuse', {}, 0 ],
	[ 'slice', {}, 0 ],
	[ 'delay', { seconds => 0.3 }, 0 ],
	[ 'swallow', {}, 1 ],
	[ 'drop_reply', {}, 1 ])
{
	my ($mode, $args, $twice) = @$storm;
	my $run = $bench->start_run(
		$mode, via_proxy => 1, batch_size => $BATCH_SIZE, $twice ? @QUICK : @PATIENT);

	sleep 1;
	$proxy->set($mode, %$args);
	sleep $STORM_SECONDS;
	$proxy->set('pass');
	sleep 1;
	my $report = $bench->finish_run($run);

	diag("$mode: $report->{events} events, $report->{duplicates} duplicates");
	is($report->{duplicates}, 0, "$mode: nothing came twice") if !$twice;
	copies_ok($report, $mode, $GIVEN_UP, $BATCH_SIZE) if $twice;
}

# ---- What it takes

sub descriptors
{
	my ($pid) = @_;
	my @open = glob "/proc/$pid/fd/*";

	return scalar @open;
}

sub threads { my @tasks = glob "/proc/$_[0]/task/*"; return scalar @tasks; }

sub memory
{
	return slurp_file("/proc/$_[0]/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : die "no RssAnon\n";
}

# Each fourth time the producer is another one, too.
$bench->new_backend('often', via_proxy => 1, @PATIENT);
$bench->publish('often', 100);
$bench->settle('often', 'before');
my $pid = $bench->status('often', 'pid');
my %before;

foreach my $round (1 .. $RECONNECTS)
{
	$proxy->set('reset');
	$bench->publish('often', 50);
	$bench->sql(
		q(SELECT dispatch.alter_backend('often', jsonb_build_object('linger', ?::int * 0.0001))),
		$round) if $round % 4 == 0;
	$proxy->set('pass');
	$bench->settle('often', "round $round");
	%before = (
		descriptors => descriptors($pid), threads => threads($pid), memory => memory($pid))
	  if $round == int($RECONNECTS / 4);
}
diag("at first: $before{descriptors} descriptors, $before{threads} threads, $before{memory} kB; "
	  . 'at last: ' . join ', ', descriptors($pid), threads($pid), memory($pid) . ' kB');
is($bench->status('often', 'pid'), $pid, "one worker has gone through $RECONNECTS lost connections");
cmp_ok(descriptors($pid), '<=', $before{descriptors} + $MOST_DESCRIPTORS, 'descriptors');
cmp_ok(threads($pid), '<=', $before{threads} + 2, 'threads');
cmp_ok(memory($pid), '<=', $before{memory} + $MOST_KB, 'memory');
$bench->all_there_ok('often', 'lost connections');

$bench->finish;
done_testing();
