# Publishers do not wait for workers, nor workers for ever for anybody: locks on
# our tables delay deliveries, and lose nothing.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('locks', 'deadlock_timeout = 100ms');
my $n = 0;

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);
my $session = session($node);
$session->do(q(SET lock_timeout = '1ms'));

# An error here is an error of the test.
sub publish
{
	$session->do(q(SELECT dispatch.publish('n', 's', ?::jsonb, key => 'k')), undef, ++$n)
	  foreach 1 .. $_[0];
}

sub flush
{
	return $session->selectrow_array("SELECT dispatch.flush('30s')");
}

ok(eval { publish(500); 1 }, 'lock_timeout = 1ms: publish() while the worker delivers') or diag $@;
ok(flush(), 'all is delivered');

$redis->stop;
ok(eval { publish(10); 1 }, 'lock_timeout = 1ms: publish() begins an outage') or diag $@;
wait_for_state($node, 'default', 'outage');
ok(eval { publish(100); 1 }, 'lock_timeout = 1ms: publish() in an outage') or diag $@;
$redis->start;
ok(flush(), 'all is delivered after the outage');
# Redis was not told to keep anything.
is_deeply([ stream_data($redis) ], [ 501 .. $n ], 'in order');

# VACUUM and ANALYZE of what is written to
my $vacuum = IPC::Run::start(
	[ 'psql', '-qX', '-d', $node->connstr('postgres'), '-v', 'ON_ERROR_STOP=1',
		'-c', "SET vacuum_cost_delay = '5ms'", '-c', 'SET vacuum_cost_limit = 1',
		'-c', 'VACUUM (FREEZE, ANALYZE) dispatch.outbox_0' ],
	'2>', \my $err);
my $vacuums = 'SELECT count(*) FROM pg_stat_progress_vacuum';
wait_until(sub { $session->selectrow_array($vacuums) > 0 }, 'a slow VACUUM');
ok(eval { publish(50); 1 }, 'lock_timeout = 1ms: publish() during VACUUM') or diag $@;
ok(flush(), 'deliveries go on, too');
is($session->selectrow_array($vacuums), 1, 'while VACUUM is still at it');
$vacuum->kill_kill;

# Somebody takes a table for himself: a worker that wants it must not die
foreach my $table (qw(outbox_0 positions backends exceptions))
{
	my $position = log_position($node);
	my $owner = session($node);
	my $worker = backend_pid($node, 'default');
	my $other = session($node);

	# What is published before cannot be read, or not be stored as settled.
	$owner->begin_work;
	$owner->do("LOCK TABLE dispatch.$table IN ACCESS EXCLUSIVE MODE");
	if ($table eq 'outbox_0')
	{
		ok(!eval { publish(1); 1 }, "$table: publish() has to wait for the lock, and gives up");
		$n--;
		is($session->state, '55P03', "$table: with its own error");
		$session->do('SELECT pg_reload_conf()');	# wakes the worker
	}
	else
	{
		ok(eval { publish(20); 1 }, "$table: publish() does not need it") or diag $@;
	}
	sleep 3.5;					# several attempts, of a second each
	$owner->rollback;
	publish(20);
	ok(flush(), "$table: all is delivered when the lock is gone");
	is_deeply([ (stream_data($redis))[ -20 .. -1 ] ], [ $n - 19 .. $n ], "$table: in order");
	cmp_ok(scalar(log_lines($node, qr/\[$worker\] WARNING/, $position)),
		'<=', 1, "$table: at most one warning");
	is(backend_pid($node, 'default'), $worker, "$table: the worker has gone through it");
	is(backend_state($node, 'default'), 'running', "$table: and runs");
}
is_deeply([ stream_data($redis) ], [ 501 .. $n ], 'nothing is lost, nothing came twice');

# A commit while the worker waits for a lock in the middle of reading: waiting for
# a lock uses up the wake-up, and the safety net is far away
$session->do(q(ALTER SYSTEM SET dispatch.sleep_time = '1h'));
$session->do('SELECT pg_reload_conf()');
ok(flush(), 'all is delivered, and sleep_time is an hour');
my $locker = session($node);
my $waiting = q(SELECT count(*) FROM pg_stat_activity
	WHERE backend_type = 'dispatch worker' AND wait_event_type = 'Lock');
$locker->begin_work;
$locker->do("LOCK TABLE dispatch.outbox_$_ IN ACCESS EXCLUSIVE MODE") foreach 1 .. 7;
# A look that finds nothing, but has something to look for
$session->begin_work;
$session->do(q(SELECT dispatch.publish('n', 's', '"undone"')));
$session->rollback;
$session->do('SELECT pg_reload_conf()');
wait_until(sub { $session->selectrow_array($waiting) == 1 }, 'a worker that waits for a lock', 5);
publish(1);
sleep 0.1;
$locker->rollback;
ok(eval { wait_until(sub { (stream_data($redis))[-1] == $n }, 'the event', 3); 1 },
	'an event that is committed meanwhile is delivered at once');

# A worker that waits for a lock can be stopped
my $owner = session($node);
$owner->begin_work;
$owner->do('LOCK TABLE dispatch.outbox_0 IN ACCESS EXCLUSIVE MODE');
$session->do('SELECT pg_reload_conf()');
sleep 0.3;
my $started = time;
$node->stop('fast');
cmp_ok(time - $started, '<', 5, 'stop -m fast while a worker waits for a lock');
log_ok($node, qr/deadlock detected/);
done_testing();
