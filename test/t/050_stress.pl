#
# Eight clients publish for half a minute, and a ledger says what must come of
# it: every committed event, nothing else, unaltered, in order.  First in peace,
# where nothing may come twice either; then while workers are ended, Redis and
# the server are restarted.
#
# DISPATCH_STRESS_SECONDS: how long with faults (30); half of it without.
# DISPATCH_STRESS_SEED: the seed of the transactions, printed in every run.
#
use strict;
use warnings;

use DispatchTest;
use Ledger;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $SECONDS = $ENV{DISPATCH_STRESS_SECONDS} // 30;
my $SEED = $ENV{DISPATCH_STRESS_SEED} // time % 100_000;
my $FAULTS = 12;
my $FREEZE_SECONDS = 0.2;
my $BATCH_SIZE = 20;			# of the stormy run: copies are bounded by it
my $DRAIN_SECONDS = 60;
my $END_WORKERS =
  q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dispatch worker');

my $redis = RedisServer->new(appendonly => 1);
# What loses an attempt is a dead letter.
my $node = new_cluster(
	'stress', "max_prepared_transactions = 100\nlog_statement = none\ndispatch.max_retries = 0",
	extra => [ '--no-sync', '--encoding=UTF8' ]);

sub new_run
{
	my ($name) = @_;
	my ($host, $port) = ($redis->host, $redis->port);

	$node->safe_psql(
		'postgres', qq(SELECT dispatch.create_backend('$name', 'redis',
			'{"host": "$host", "port": $port, "stream_name": "$name"}')));
	return Ledger->new(
		name => $name, backend => $name, seed => $SEED,
		dsn => $node->connstr('postgres'), dir => PostgreSQL::Test::Utils::tempdir());
}

sub finish_run
{
	my ($run) = @_;
	my $report;

	$run->stop;
	ok($run->drain($DRAIN_SECONDS), "$run->{name}: flush() says that all is settled");
	$report = $run->report([ map { $_->{fields} } $redis->xrange_all($run->{name}) ]);
	report_ok($report, $run->{name});
	is($node->safe_psql('postgres', 'SELECT count(*) FROM dispatch.dead_letters'),
		0, "$run->{name}: no dead letters");
	return $report;
}

# A frozen Redis has been sent what it has not acted upon.
sub freeze_redis
{
	$redis->sigstop;
	sleep $FREEZE_SECONDS;
	return;
}

sub end_workers
{
	wait_until(sub { $node->safe_psql('postgres', $END_WORKERS) =~ /t/ }, 'a worker to end');
	return;
}

# What is done to them, by turns; the server comes in between.  What comes last
# must not be cured by a new process.
my %fault = (
	worker => sub { end_workers() },
	'worker, events in flight' => sub { freeze_redis(); end_workers(); $redis->sigcont },
	redis => sub { $redis->restart },
	'redis killed, events in flight' => sub { freeze_redis(); $redis->kill9; $redis->start },
	server => sub { $node->restart('fast') });
my @turns =
  ('worker', 'worker, events in flight', 'redis', 'redis killed, events in flight');
my %done = map { $_ => 0 } keys %fault;

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');

my $calm = new_run('calm');
$calm->start;
sleep $SECONDS / 2;
my $report = finish_run($calm);
is($report->{duplicates}, 0, 'calm: nothing came twice');
is($report->{sessions_lost}, 0, 'calm: no client lost its session');

my $stormy = new_run('stormy');
$node->safe_psql('postgres',
	"UPDATE dispatch.backends SET batch_size = $BATCH_SIZE WHERE name = 'stormy'");
$stormy->start;
foreach my $turn (0 .. $FAULTS - 1)
{
	my $what = $turn == $FAULTS / 2 ? 'server' : $turns[ $turn % @turns ];

	sleep $SECONDS / $FAULTS;
	$fault{$what}->();
	$done{$what}++;
}
$report = finish_run($stormy);
cmp_ok($done{$_}, '>', 0, "stormy: fault happened: $_") foreach sort keys %done;
cmp_ok($report->{sessions_lost}, '>', 0, 'stormy: clients lost their sessions');
# A worker that ends in good order, and a server, wait for what is in flight.
copies_ok($report, 'stormy', $FAULTS - $done{worker} - $done{server}, $BATCH_SIZE);

is_deeply([ log_complaints(slurp_file($node->logfile)) ], [], 'the server log has no complaint');

$node->stop;
done_testing();
