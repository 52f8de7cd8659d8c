#
# Eight clients publish to a quorum queue, and a ledger says what must come of
# it: every committed event, nothing else, unaltered, in order.  First in peace,
# where nothing may come twice either; then while workers are ended, RabbitMQ is
# restarted, killed and frozen, and connections break.
#
# DISPATCH_STRESS_SECONDS: how long with faults, without the time that RabbitMQ
# needs to start (20); half of it without.
# DISPATCH_STRESS_SEED: the seed of the transactions, printed in every run.
#
use strict;
use warnings;

use DispatchTest;
use Ledger;
use PostgreSQL::Test::Utils;
use RabbitLedger;
use Test::More;
use Time::HiRes qw(sleep time);

my $SECONDS = $ENV{DISPATCH_STRESS_SECONDS} // 20;
my $SEED = $ENV{DISPATCH_STRESS_SEED} // time % 100_000;
my $FREEZE_SECONDS = 0.3;
my $BATCH_SIZE = 20;			# of the stormy run: copies are bounded by it
my $CUTS = 10;
my $END_WORKERS =
  q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dispatch worker');

my $stress = RabbitLedger->new(name => 'rabbitstress', seed => $SEED);
my ($rabbit, $proxy, $node) = ($stress->rabbit, $stress->proxy, $stress->node);

# A frozen RabbitMQ has been sent what it has not acted upon.
sub freeze
{
	$rabbit->sigstop;
	sleep $FREEZE_SECONDS;
	return;
}

sub end_workers
{
	wait_until(sub { $node->safe_psql('postgres', $END_WORKERS) =~ /t/ }, 'a worker to end');
	return;
}

# What is done, in this order.
my @faults = (
	[ 'connections are closed' => sub { $rabbit->close_connections('enough') } ],
	[ 'RabbitMQ is killed, events in flight' =>
		  sub { freeze(); $rabbit->kill9; $rabbit->start } ],
	[ 'a worker ends, events in flight' => sub { freeze(); end_workers(); $rabbit->sigcont } ],
	[ 'connections break' => sub { $proxy->set('refuse'); sleep 0.3; $proxy->set('pass') } ],
	[ 'the broker stops within its process' => sub { $rabbit->restart_app } ],
	[ 'replies are lost' => sub {
		$proxy->set('drop_reply');
		sleep 1;
		$proxy->set('refuse');
		$proxy->set('pass');
	} ],
	[ 'the server is restarted' => sub { $node->restart('fast') } ],
	[ 'an alarm' => sub { $rabbit->raise_alarm('disk'); sleep 1; $rabbit->clear_alarms } ],
	[ 'RabbitMQ is restarted' => sub { $rabbit->restart } ]);

my $calm = $stress->start_run('calm', 'direct', 0.03);
sleep $SECONDS / 2;
my $report = $stress->finish_run($calm);
is($report->{duplicates}, 0, 'calm: nothing came twice');
is($report->{sessions_lost}, 0, 'calm: no client lost its session');

my $stormy = $stress->start_run('stormy', 'proxy', 0.08, batch_size => $BATCH_SIZE);
foreach my $fault (@faults)
{
	my ($what, $do) = @$fault;

	sleep $SECONDS / @faults;
	note("stormy: $what");
	ok(eval { $do->(); 1 }, "stormy: $what") or diag($@);
}
sleep $SECONDS / @faults;
$report = $stress->finish_run($stormy);
cmp_ok($report->{sessions_lost}, '>', 0, 'stormy: clients lost their sessions');
copies_ok($report, 'stormy', scalar @faults, $BATCH_SIZE);

# Strict order: of a key only one event is under way, so not even copies come late.
my $strict = $stress->start_run(
	'strict', 'proxy', 0.08, batch_size => $BATCH_SIZE, ordering => 'strict');
foreach (1 .. $CUTS)
{
	$proxy->set('cut', side => rand() < 0.5 ? 'server' : 'client', after => 2000, once => 1);
	wait_until(sub { $proxy->stats->{faults} }, 'a cut');
}
$report = $stress->finish_run($strict, strict => 1);
copies_ok($report, 'strict', $CUTS, $BATCH_SIZE);

is_deeply([ log_complaints(slurp_file($node->logfile)) ], [], 'the server log has no complaint');

$node->stop;
done_testing();
