# A worker that can do nothing for now waits: one whose backend is of no use, one
# whose tables are, and one that lets go of a broker which does not answer, while
# events become due that are to be tried again.  Nor does it look for each of many
# commits.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $SECONDS = 2;
my $SHARE = 0.1;				# of a core
my $COMMITS = 5000;

my $redis = RedisServer->new;
my $node = new_cluster('no_spinning', 'dispatch.log_level = debug');
my $session = session($node);

# Processor time that the worker of a backend takes.
sub calm_worker_ok
{
	my ($backend, $what) = @_;
	my $worker = backend_pid($node, $backend);
	my $before = cpu_seconds($worker);

	sleep $SECONDS;
	cmp_ok(cpu_seconds($worker) - $before, '<', $SHARE * $SECONDS, $what);
	return;
}

# An event of a backend that is to be tried again, in so many seconds.
sub retry_in
{
	$session->do(q(INSERT INTO dispatch.exceptions (xid, id, created_at, event_id, backend_id,
			segment, event_type, source, status, attempts, next_attempt_at)
		SELECT '1', 1, now(), gen_random_uuid(), id, -1, 't', 's', 'retrying', 1,
			now() + ? * interval '1 s'
		FROM dispatch.backends WHERE name = ?), undef, @_);
	$session->do('SELECT dispatch.announce_exceptions()');
	return;
}

$session->do('CREATE EXTENSION dispatch');

# ---- Of no use: its module is missing

$session->do('SET session_replication_role = replica');		# a restored row is not checked
$session->do(q(INSERT INTO dispatch.backends (id, name, transport, identity)
	VALUES (nextval('dispatch.backend_id_seq'), 'missing', 'nowhere', dispatch.identity())));
$session->do('RESET session_replication_role');
create_redis_backend($node, $redis);
wait_for_state($node, 'missing', 'configuration error');
calm_worker_ok('missing', 'a worker whose transport is missing waits');

# ---- A broker that does not answer, when the backend is changed

$session->do(q(SELECT dispatch.publish('t', 's')));
ok($session->selectrow_array(q(SELECT dispatch.flush('20 s', 'default'))), 'delivered');
retry_in(1, 'default');
$redis->cli('CLIENT', 'PAUSE', 4_000);
$session->do(q(SELECT dispatch.publish('t', 's')));
wait_until(
	sub {
		$session->selectrow_array(
			q(SELECT in_flight FROM dispatch.backend_status WHERE name = 'default'));
	},
	'an event in flight');
$session->do(q(SELECT dispatch.alter_backend('default', '{"stream_name": "others"}')));
calm_worker_ok('default', 'a worker that lets go of its connection waits');
ok($session->selectrow_array(q(SELECT dispatch.flush('20 s', 'default'))), 'and goes on');
wait_until(
	sub {
		!$session->selectrow_array(
			q(SELECT pending FROM dispatch.backend_status WHERE name = 'default'));
	},
	'the delivery of all', 20);

# ---- Commit after commit

$session->do(q(SET synchronous_commit = off));
my $position = log_position($node);
my $began = time;
$session->do(q(SELECT dispatch.publish('t', 's'))) foreach 1 .. $COMMITS;
ok($session->selectrow_array(q(SELECT dispatch.flush('20 s', 'default'))), 'all are delivered');
my $seconds = time - $began;
my $looks = () = log_lines($node, qr/events? (?:was|were) read to be sent/, $position);
cmp_ok($looks, '<', 1.1 * (1000 * $seconds + 20),
	"$COMMITS commits: no more than 1000 looks a second");
cmp_ok($looks, '>', 20, 'but more than a few');

# ---- Tables that are of no use

retry_in(1, 'default');
sleep 0.5;
$session->do('ALTER TABLE dispatch.exceptions RENAME attempts TO renamed');
wait_for_state($node, 'default', 'database error');
calm_worker_ok('default', 'a worker that cannot read what is due waits');
$session->do('ALTER TABLE dispatch.exceptions RENAME renamed TO attempts');
eval {
	wait_until(
		sub {
			!$session->selectrow_array(
				q(SELECT pending FROM dispatch.backend_status WHERE name = 'default'));
		},
		'its delivery', 40);
};
is($@, '', 'and goes on');

log_ok($node, qr/PANIC/);
$node->stop;
done_testing();
