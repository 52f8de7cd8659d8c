# check_backend() says at once whether a backend can be reached, and if not,
# why; whoever calls it can give up.

use strict;
use warnings;

use IPC::Run;
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $redis = RedisServer->new(conf => { requirepass => canary() });
my $node = new_cluster('check');
my $silent = silent_listener();
my ($full, @waiting) = full_listener();

# One that refuses: nobody listens there any more
my $closed = silent_listener();
my $refused = $closed->sockport;
$closed->close;

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
my %backends = (
	ok => { password => canary() },
	wrong => { password => canary() . '-wrong' },
	none => { password => undef },
	refused => { port => $refused },
	silent => { port => $silent->sockport, connect_timeout => 1.5 },
	full => { port => $full->sockport, connect_timeout => 1.5 },
	patient => { port => $silent->sockport, connect_timeout => 600 },
	unknown => { host => 'no.such.host.invalid', connect_timeout => 1.5 });
create_redis_backend($node, $redis, name => $_, %{ $backends{$_} }) foreach sort keys %backends;

my $session = session($node);

sub check
{
	my ($name) = @_;
	my $started = time;
	my ($ok, $detail, $elapsed) = $session->selectrow_array(
		'SELECT ok, detail, extract(epoch FROM elapsed) FROM dispatch.check_backend(?)',
		undef, $name);

	return ($ok, $detail, $elapsed, time - $started);
}

my ($ok, $detail, $elapsed, $took) = check('ok');
is($ok, 1, 'a backend that can be reached');
cmp_ok($took, '<', 1, 'at once');
ok($elapsed > 0 && $elapsed <= $took, 'elapsed is what it took');

my %fails = (
	wrong => qr/WRONGPASS/,
	none => qr/NOAUTH/,
	refused => qr/refused/,
	unknown => qr/no\.such\.host\.invalid/);
foreach my $name (sort keys %fails)
{
	($ok, $detail, $elapsed, $took) = check($name);
	is($ok, 0, "$name: not ok");
	like($detail, $fails{$name}, "$name: and why");
	cmp_ok($took, '<', 3, "$name: at once");
	unlike($detail, qr/secret/, "$name: no secret is told");
}
foreach my $name (qw(silent full))
{
	($ok, $detail, $elapsed, $took) = check($name);
	is($ok, 0, "$name: not ok");
	like($detail, qr/time/i, "$name: timed out");
	ok($elapsed >= 1.4 && $took < 3, "$name: after connect_timeout");
}

# Giving up
my $began = time;
$session->do(q(SET statement_timeout = '500ms'));
ok(!eval { check('patient'); 1 }, 'statement_timeout: gives up');
is($session->state, '57014', 'statement_timeout: with its own error');
cmp_ok(time - $began, '<', 1.5, 'statement_timeout: at once');
$session->do('RESET statement_timeout');

my $check = IPC::Run::start(
	[ 'psql', '-qX', '-d', $node->connstr('postgres'), '-c',
		q(SELECT * FROM dispatch.check_backend('patient')) ],
	'>', \my $out, '2>', \my $err);
wait_until(sub { process_ids($node, 'check') }, 'the process that connects');
my $started = time;
$session->do(q(SELECT pg_cancel_backend(pid) FROM pg_stat_activity
	WHERE query LIKE '%patient%' AND pid <> pg_backend_pid()));
ok(!$check->finish, 'pg_cancel_backend(): gives up');
like($err, qr/canceling statement due to user request/, 'pg_cancel_backend(): with its own error');
cmp_ok(time - $started, '<', 1, 'pg_cancel_backend(): at once');
wait_until(sub { !process_ids($node, 'check') }, 'the processes that connected', 3);
ok(1, 'they leave no process behind');

# A pause does not matter, a backend that is missing does.
$session->do(q(SELECT dispatch.pause_backend('ok')));
is((check('ok'))[0], 1, 'a paused backend can be checked');
ok(!eval { check('missing'); 1 }, 'a backend that does not exist');
is($session->state, '42704', 'is an error');
is($redis->client->xlen('events'), 0, 'nothing was sent');
log_ok($node, qr/WARNING.*WRONG-secret/);

$node->stop;
done_testing();
