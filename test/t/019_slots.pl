# max_worker_processes may be too small for all backends: that is said once, the
# others deliver, and whoever waits starts when there is room.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my $redis = RedisServer->new;
# The launcher, a manager, the server's own launcher of logical replication:
# what is left is room for two workers.
my $node = new_cluster('slots', "max_worker_processes = 5\nmax_logical_replication_workers = 1");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis, name => $_, stream_name => $_) foreach qw(a b c d);

sub states
{
	return { map { split /\|/ } split /\n/,
		sql('SELECT name, state FROM dispatch.backend_status') };
}

my $states;
wait_until(
	sub { $states = states(); 2 == grep { $_ eq 'running' } values %$states }, 'two workers');
wait_until(
	sub { $states = states(); 2 == grep { $_ eq 'no worker slot' } values %$states },
	'two that lack a slot');
my @running = grep { $states->{$_} eq 'running' } sort keys %$states;
my @waiting = grep { $states->{$_} ne 'running' } sort keys %$states;
is(@running + @waiting, 4, 'two run, two wait for a slot');

my @pids = process_ids($node, 'worker');
foreach my $name (qw(a b c d))
{
	sql("SELECT dispatch.publish('n', 's', '1', backend => '$name')");
}
is(sql("SELECT dispatch.flush('10s', '$_')"), 't', "$_ delivers") foreach @running;
is(sql("SELECT dispatch.flush('100ms', '$_')"), 'f', "$_ waits") foreach @waiting;
is($redis->client->xlen($_), 0, "$_ has delivered nothing") foreach @waiting;
is(sql("SELECT pending FROM dispatch.backend_status WHERE name = '$waiting[0]'"),
	1, 'the event is pending');

# check_backend() needs a process, too
my ($code, undef, $error) = $node->psql('postgres', "SELECT * FROM dispatch.check_backend('a')");
like($error, qr/could not start a process.*HINT:.*max_worker_processes/s,
	'check_backend() says what it lacks');

sleep 6;						# the next try is after 5 s
my @warnings = log_lines($node, qr/out of background worker slots/);
is(@warnings, 1, 'a single warning');
is(scalar(log_lines($node, qr/HINT:.*max_worker_processes/)), 2, 'with a hint');
is_deeply([ process_ids($node, 'worker') ], \@pids, 'the workers are still the same');
cmp_ok(scalar(log_lines($node, qr/dispatch (worker|manager)/)),
	'<', 10, 'nobody is busy starting processes');

# A pause makes room for one, a drop for the other.
sql("SELECT dispatch.pause_backend('$running[0]')");
wait_until(sub { 1 == grep { states()->{$_} eq 'running' } @waiting }, 'the first who waited', 10);
sql("SELECT dispatch.drop_backend('$running[1]')");
wait_until(sub { 2 == grep { states()->{$_} eq 'running' } @waiting }, 'the second who waited', 15);
is(sql("SELECT dispatch.flush('10s', '$_')"), 't', "$_ delivers now") foreach @waiting;
is($redis->client->xlen($_), 1, "$_ has delivered its event") foreach @waiting;
is(states()->{ $running[0] }, 'paused', 'a paused backend needs no slot');

# It is paused no more, and has to wait: that is news.
sql("SELECT dispatch.resume_backend('$running[0]')");
wait_for_state($node, $running[0], 'no worker slot');
is(scalar(log_lines($node, qr/out of background worker slots/)),
	2, 'the next shortage is told again');
sql("SELECT dispatch.drop_backend('$waiting[0]', force => true)");
wait_for_state($node, $running[0], 'running');
ok(1, 'and ends when there is room again');

$node->stop;
done_testing();
