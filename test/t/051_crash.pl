#
# kill -9 of a worker, of a publisher's server process and of the postmaster, by
# turns, while clients publish: after every recovery the delivery goes on by
# itself, and in the end the ledger agrees.  What a crash took from those that
# commit asynchronously must not have been delivered.
#
# DISPATCH_CRASH_ROUNDS: how often each of the three is killed (5).
# DISPATCH_STRESS_SEED: the seed of the transactions, printed in every run.
#
use strict;
use warnings;

use DispatchTest;
use Ledger;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $ROUNDS = $ENV{DISPATCH_CRASH_ROUNDS} // 5;
my $SEED = $ENV{DISPATCH_STRESS_SEED} // time % 100_000;
my $DRAIN_SECONDS = 60;
my $ORPHAN_SECONDS = 15;
my $HOLD_SECONDS = 0.2;

my $redis = RedisServer->new(appendonly => 1);
# Room for WAL that is not written: the usual test server has next to none.  What
# loses an attempt is a dead letter.
my $node = new_cluster(
	'crash', q(
max_prepared_transactions = 100
log_statement = none
restart_after_crash = on
dispatch.max_retries = 0
shared_buffers = 64MB
wal_buffers = 4MB
), extra => [ '--no-sync', '--encoding=UTF8' ]);

my %victim = (
	worker => q(backend_type = 'dispatch worker'),
	publisher => q(application_name LIKE 'ledger-%-main'));
my %killed = (worker => 0, publisher => 0, postmaster => 0);

# One of the processes that a condition on pg_stat_activity selects; waits for
# one.
sub pick_pid
{
	my ($condition) = @_;
	my $query = "SELECT pid FROM pg_stat_activity WHERE $condition ORDER BY random() LIMIT 1";
	my $pid;

	wait_until(sub { $pid = $node->safe_psql('postgres', $query) }, $condition);
	return $pid;
}

# Kills a process in a moment when commits have been seen by others, maybe
# delivered, that are not in the WAL yet: most commits of this run are
# asynchronous, and the process that writes them is held for a while.
sub kill_unwritten
{
	my ($pid) = @_;
	my $writer = pick_pid("backend_type = 'walwriter'");
	my $done;

	kill 'STOP', $writer;
	sleep $HOLD_SECONDS;
	$done = kill 'KILL', $pid;
	kill 'KILL', $writer;
	return $done;
}

# The postmaster learns of it, ends all sessions and recovers.
sub kill_process
{
	my ($what) = @_;
	my $pid = pick_pid($victim{$what});
	my $query = "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid";

	kill_unwritten($pid) or return 0;
	wait_until(
		sub { $node->safe_psql('postgres', $query) eq '0' },
		"recovery after the end of a $what");
	return 1;
}

# A new postmaster does not start before the old one is reaped and its last
# orphan is gone: workers must notice, too.
sub kill_postmaster
{
	my ($pid) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my $done = kill_unwritten($pid);

	# The cluster object has to know.
	$node->kill9;
	wait_until(sub { !kill 0, $pid }, 'the end of the postmaster');
	wait_until(sub { $node->start(fail_ok => 1) }, 'the end of the orphans', $ORPHAN_SECONDS);
	return $done;
}

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
my ($host, $port) = ($redis->host, $redis->port);
$node->safe_psql(
	'postgres', qq(SELECT dispatch.create_backend('crash', 'redis',
		'{"host": "$host", "port": $port, "stream_name": "crash"}')));

my $run = Ledger->new(
	name => 'crash', backend => 'crash', seed => $SEED, async => 1,
	dsn => $node->connstr('postgres'), dir => PostgreSQL::Test::Utils::tempdir());
srand($SEED);
$run->start;
foreach my $round (1 .. $ROUNDS)
{
	foreach my $what (sort keys %killed)
	{
		sleep 0.5 + rand(1.5);
		$killed{$what}++ if $what eq 'postmaster' ? kill_postmaster() : kill_process($what);
	}
}
# So that every kind of transaction has had its time in peace.
sleep 3;
$run->stop;
ok($run->drain($DRAIN_SECONDS), 'flush() says that all is settled');

my $report = $run->report([ map { $_->{fields} } $redis->xrange_all('crash') ], crashes => 1);
report_ok($report, 'crash');
is($killed{$_}, $ROUNDS, "$_: killed in every round") foreach sort keys %killed;
cmp_ok($report->{sessions_lost}, '>', $ROUNDS, 'clients lost their sessions');
is($node->safe_psql('postgres', 'SELECT count(*) FROM dispatch.dead_letters'),
	0, 'no dead letters');
is_deeply([ log_complaints(slurp_file($node->logfile), kill9 => 1) ],
	[], 'the server log has no complaint');

$node->stop;
done_testing();
