# With synchronous replication nothing leaves before the standby has it: a
# failover takes back nothing that consumers have seen.

use strict;
use warnings;

use DBD::Pg ();
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $STOP_SECONDS = 5;
my $BEFORE_FAILOVER = 300;		# events

my $redis = RedisServer->new(appendonly => 1);
my $primary = new_cluster('primary', "log_statement = none\n", allows_streaming => 1);

sub ask { return $primary->safe_psql('postgres', $_[0]); }

sub publish_sql
{
	my ($n, $key) = @_;

	return "SELECT dispatch.publish('n', 's', to_jsonb($n), key => '$key')";
}

# Somebody of that kind waits for the standby.
sub wait_for_waiter
{
	my ($type) = @_;

	wait_until(
		sub {
			return ask(qq(SELECT count(*) FROM pg_stat_activity
				WHERE wait_event = 'SyncRep' AND backend_type = '$type'));
		},
		"a $type that waits for the standby");
	return;
}

# Publishes while there is no standby: a session that waits.
sub publish_and_wait
{
	my ($n) = @_;
	my $session = session($primary);

	$session->do(publish_sql($n, 'waits'), { pg_async => DBD::Pg::PG_ASYNC() });
	wait_for_waiter('client backend');
	return $session;
}

ask('CREATE EXTENSION dispatch');
create_redis_backend($primary, $redis);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
ask(q(ALTER SYSTEM SET synchronous_standby_names = '*'));
ask('SELECT pg_reload_conf()');
wait_until(
	sub { ask('SELECT sync_state FROM pg_stat_replication') eq 'sync' }, 'a synchronous standby');

ask(publish_sql(1, 'a'));
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'with a standby: it delivers');

# ---- The standby is away

$standby->stop;
my $waiting = publish_and_wait(2);

# One that does not wait for the standby shows that the worker looks for events.
ask(q(SET synchronous_commit = local; ) . publish_sql(3, 'b'));
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'no standby: what does not wait for it goes');
is_deeply([ stream_data($redis) ], [ 1, 3 ], 'no standby: what waits for it does not');
is(ask('SELECT count(*) FROM dispatch.events'), 2, 'no standby: nor do others see it');
$standby->start;
$waiting->pg_result;
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'the standby is back');
is_deeply([ stream_data($redis) ], [ 1, 3, 2 ], 'what waited goes');

# ---- It is away while the primary starts: what nobody has acknowledged can be
# seen then, but the worker waits for the standby before it begins.

$standby->stop;
$waiting = publish_and_wait(4);
$primary->stop('immediate');
$primary->start;
is(ask('SELECT count(*) FROM dispatch.events'), 4, 'after a crash: others see it');
wait_for_waiter('dispatch worker');
is_deeply([ stream_data($redis) ], [ 1, 3, 2 ], 'after a crash: it does not leave');
my $started = time;
$primary->stop('fast');
cmp_ok(time - $started, '<', $STOP_SECONDS, 'a worker that waits for the standby can be stopped');
$primary->start;
wait_for_waiter('dispatch worker');
$standby->start;
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'after a crash: the standby is back');
is_deeply([ stream_data($redis) ], [ 1, 3, 2, 4 ], 'after a crash: it goes');

# ---- Failover: whatever has been seen by consumers is on the standby

my $pid = fork // die "fork: $!\n";
if ($pid == 0)
{
	# Until the server goes.
	eval {
		my $session = session($primary);

		$session->do(publish_sql(100 + $_, 'k')) foreach 1 .. 100_000;
	};
	POSIX::_exit(0);
}
wait_until(sub { $redis->client->xlen('events') > $BEFORE_FAILOVER }, 'events');
$primary->stop('immediate');
waitpid $pid, 0;
my @seen = stream_data($redis);
$standby->promote;
my %kept = map { $_ => 1 }
  split /\n/, $standby->safe_psql('postgres', 'SELECT data FROM dispatch.events');
is_deeply([ grep { !$kept{$_} } @seen ], [], 'failover: the standby has all that was delivered');
is($standby->safe_psql('postgres', q(SELECT dispatch.flush('60s'))), 't', 'failover: it goes on');
my %came = map { $_ => 1 } stream_data($redis);
is_deeply([ sort keys %came ], [ sort keys %kept ], 'failover: all that the standby has comes');

log_ok($standby);
$standby->stop;
done_testing();
