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
my $DRAIN_SECONDS = 60;

my $redis = RedisServer->new(appendonly => 1);
my $node = new_cluster(
	'stress', "max_prepared_transactions = 100\nlog_statement = none",
	extra => [ '--no-sync', '--encoding=UTF8' ]);
my $end_workers =
  q(SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'dispatch worker');

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

# What is done to them, by turns; the server comes in between.
my %done = (worker => 0, redis => 0, 'redis killed' => 0, server => 0);
my %fault = (
	worker => sub {
		wait_until(sub { $node->safe_psql('postgres', $end_workers) =~ /t/ }, 'a worker to end');
		1;
	},
	redis => sub { $redis->restart; 1 },
	'redis killed' => sub { $redis->kill9; sleep rand(0.5); $redis->start; 1 },
	server => sub { $node->restart('fast'); 1 });
my @turns = ('worker', 'redis', 'worker', 'redis killed');

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');

my $calm = new_run('calm');
$calm->start;
sleep $SECONDS / 2;
my $report = finish_run($calm);
is($report->{duplicates}, 0, 'calm: nothing came twice');
is($report->{sessions_lost}, 0, 'calm: no client lost its session');

srand($SEED);
my $stormy = new_run('stormy');
$stormy->start;
foreach my $turn (1 .. $FAULTS)
{
	my $what = $turn == $FAULTS / 2 ? 'server' : $turns[ $turn % @turns ];

	sleep $SECONDS / $FAULTS;
	$done{$what}++ if $fault{$what}->();
}
$report = finish_run($stormy);
cmp_ok($done{$_}, '>', 0, "stormy: fault happened: $_") foreach sort keys %done;
cmp_ok($report->{sessions_lost}, '>', 0, 'stormy: clients lost their sessions');

is_deeply([ log_complaints(slurp_file($node->logfile)) ], [], 'the server log has no complaint');

$node->stop;
done_testing();
