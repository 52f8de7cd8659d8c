# RabbitMQ at its worst, for longer than test/t/094_rabbitmq_stress.pl, in any
# order; and the memory of a worker that sends many events.
#
# DISPATCH_STRESS_SECONDS: how long the stress lasts (120).
# DISPATCH_FAULT_SEED: the seed of all of it, printed in every run.

use strict;
use warnings;

use DispatchTest;
use Ledger;
use List::Util qw(sum);
use PostgreSQL::Test::Utils;
use RabbitLedger;
use Test::More;
use Time::HiRes qw(sleep time);

my $SECONDS = $ENV{DISPATCH_STRESS_SECONDS} // 120;
my $SEED = $ENV{DISPATCH_FAULT_SEED} // time % 100_000;
my $EVENTS = 300_000;
my $GROWTH_KB = 8192;
my $BATCH_SIZE = 20;			# of the stress: copies are bounded by it
my $MOST_HARMED = 3;			# connections that a fault meets
my $END_WORKERS =
  q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dispatch worker');

diag("rabbitmq: seed $SEED");
srand($SEED);
my $stress = RabbitLedger->new(name => 'rabbitlong', seed => $SEED);
my ($rabbit, $proxy, $node) = ($stress->rabbit, $stress->proxy, $stress->node);
my %fault = (
	'killed' => sub { $rabbit->kill9; $rabbit->start },
	'restarted' => sub { $rabbit->restart },
	'stopped within its process' => sub { $rabbit->restart_app },
	'frozen' => sub { $rabbit->sigstop; sleep rand(4); $rabbit->sigcont },
	'frozen and killed' => sub { $rabbit->sigstop; sleep 0.3; $rabbit->kill9; $rabbit->start },
	'connections closed' => sub { $rabbit->close_connections('enough') },
	'connections cut' => sub {
		$proxy->set('cut', side => rand() < 0.5 ? 'client' : 'server', after => int rand(5000));
		sleep 2;
		$proxy->set('pass');
	},
	'replies lost' => sub { $proxy->set('drop_reply'); sleep 1; $proxy->set('refuse') },
	'late' => sub { $proxy->set('delay', seconds => 0.5); sleep 2 },
	'alarm' => sub { $rabbit->raise_alarm(rand() < 0.5 ? 'disk' : 'memory'); sleep 1;
		$rabbit->clear_alarms },
	'a worker ends' => sub { $node->safe_psql('postgres', $END_WORKERS) });
my $run = $stress->start_run('long', 'proxy', 0.05, batch_size => $BATCH_SIZE);
my $end = time + $SECONDS;
my %done = map { $_ => 0 } keys %fault;

while (time < $end || grep { $_ == 0 } values %done)
{
	my @least = sort { $done{$a} <=> $done{$b} || $a cmp $b } keys %done;
	my $what = $least[ rand 4 ];

	sleep 1 + rand(2);
	note("long: $what");
	$fault{$what}->();
	$proxy->set('pass');
	$done{$what}++;
}
my $report = $stress->finish_run($run);
copies_ok($report, 'long', $MOST_HARMED * sum(values %done), $BATCH_SIZE);
diag("long: $report->{events} events, $report->{duplicates} duplicates, "
	  . join(', ', map { "$_: $done{$_}" } sort keys %done));

# ---- Memory of the worker while it sends many events

sub private_kb
{
	my $pid = backend_pid($node, 'many');
	my $kb = 0;

	$kb += $_ foreach slurp_file("/proc/$pid/smaps_rollup") =~ /^Private_\w+: +(\d+) kB/mg;
	return $kb;
}

my $session = session($node);

# Dropped by RabbitMQ once they are more than a few: they are only counted.
$rabbit->client->queue('many', arguments => { 'x-max-length' => 1000 });
$rabbit->create_backend($node, name => 'many', exchange => '', routing_key => 'many');

sub send_many
{
	$session->do(
		q(SELECT count(dispatch.publish('n', 's', to_jsonb(repeat('x', 300)), backend => 'many'))
		  FROM generate_series(1, ?)), undef, $EVENTS / 3);
	ok($session->selectrow_array(q(SELECT dispatch.flush('300s', 'many'))), 'many events');
	return private_kb();
}

my ($first, @more) = map { send_many() } 1 .. 3;
diag("private memory of the worker, kB: $first @more");
cmp_ok($more[-1], '<', $first + $GROWTH_KB, 'the memory of the worker does not grow');

is_deeply([ log_complaints(slurp_file($node->logfile)) ], [], 'the server log has no complaint');
$node->stop;
done_testing();
