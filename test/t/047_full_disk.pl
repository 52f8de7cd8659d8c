# The disk is full, first for data, then for WAL, while events are published and
# delivered: publishers get an error that says so, or the server stops as
# PostgreSQL does; the worker says why it does not go on, and does not run hot;
# and when there is space again, all that was committed is delivered, and
# nothing else.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use ServerDisk;
use SqlSink;

my $SIZE = 1500;				# of an event, such that tables grow
my $MOST_EVENTS = 5000;

my $disk = ServerDisk->new;
my $redis = RedisServer->new(appendonly => 1);
my $node = start_server();
my $session = session($node);
my (@committed, %unknown);
my $n = 0;

# With small WAL files, none of which is used twice.
sub start_server
{
	local $ENV{LD_PRELOAD} = $disk->library;

	return new_cluster('full', q(
		restart_after_crash = on
		wal_recycle = off
		wal_init_zero = on
		min_wal_size = '2MB'
		max_wal_size = '100MB'
		autovacuum = off
		log_statement = none
		dispatch.sleep_time = '1 s'
		dispatch.retry_delay = '500 ms'
		dispatch.retry_backoff = off
		dispatch.max_retries = 1),
		extra => [ '--no-sync', '--wal-segsize=1' ]);
}

# Publishes in a transaction each, until that fails; returns the error.
sub publish_until_full
{
	my ($backend) = @_;
	my $put = qq(SELECT dispatch.publish('t', 's', jsonb_build_array(?::int, repeat('x', $SIZE)),
		backend => ?, key => 'k'));

	foreach (1 .. $MOST_EVENTS)
	{
		if (!eval { $session->do($put, undef, ++$n, $backend); 1 })
		{
			$unknown{$n} = 1;
			return $session;
		}
		push @committed, $n;
	}
	die "the disk does not get full\n";
}

sub publish_one
{
	$session->do(q(SELECT dispatch.publish('t', 's', jsonb_build_array(?::int), key => 'k')),
		undef, ++$n);
	push @committed, $n;
	return;
}

sub numbers
{
	return map { $_->[0] } stream_data($redis, $_[0]);
}

# All that was committed has come, in order; what may have been is the rest.
sub delivered_ok
{
	my ($what) = @_;
	my (%seen, @order);

	wait_until(
		sub {
			$session = session($node) unless $session->ping;
			$session->selectrow_array(q(SELECT dispatch.flush('1 s', 'default')));
		},
		"$what: delivery", 60);
	$seen{$_}++ || push @order, $_ foreach numbers('events');
	is_deeply([ grep { !$seen{$_} } @committed ], [], "$what: nothing is lost");
	my %committed = map { $_ => 1 } @committed;
	is_deeply([ grep { !$committed{$_} && !$unknown{$_} } @order ], [],
		"$what: nothing is invented");
	is_deeply(\@order, [ sort { $a <=> $b } @order ], "$what: the order is kept");
	return \%seen;
}

$session->do('CREATE EXTENSION dispatch');
create_failing_backend($session, permanent => 1);
create_redis_backend($node, $redis);

# ---- No space for data

# Events that are to become dead letters, whose rows will find no place
$session->do(q(SELECT dispatch.pause_backend('failing')));
wait_for_state($node, 'failing', 'paused');
$session->do(qq(SELECT dispatch.publish('bad', 's', to_jsonb(repeat(md5(i::text), 40)),
	backend => 'failing') FROM generate_series(1, 500) AS i));
$disk->fill('data');
my $error = publish_until_full('default');
is($error->state, '53100', 'no space for data: publish() fails, as any INSERT does')
  or diag($error->errstr);
like($error->errstr, qr/could not extend file.*No space left on device/, '... and says why');
%unknown = ();
delivered_ok('no space for data');
my $position = log_position($node);
$session->do(q(SELECT dispatch.resume_backend('failing')));
wait_for_state($node, 'failing', 'database error');
like($session->selectrow_array(
	q(SELECT last_error FROM dispatch.backend_status WHERE name = 'failing')),
	qr/No space left on device/, 'the worker says why it does not go on');
calm_ok($node, 'no space for data');
is(scalar(log_lines($node, qr/WARNING:.*No space left/, $position)), 1, 'a single warning');
is($session->selectrow_array(q(SELECT count(*) FROM dispatch.events WHERE backend = 'failing'
	AND status = 'pending')), 500, 'events wait, and none is half dead');
$disk->fill('nothing');
publish_one();
my $seen = delivered_ok('space again');
is_deeply([ grep { $_ > 1 } values %$seen ], [], 'space again: each once');
wait_until(
	sub {
		500 == $session->selectrow_array(
			q(SELECT count(*) FROM dispatch.dead_letters WHERE backend = 'failing'));
	},
	'the dead letters', 60);
pass('space again: what could not be stored is');
wait_for_state($node, 'failing', 'running');

# ---- No space for WAL

$position = log_position($node);
$disk->fill('wal');
$error = publish_until_full('default');
note($error->errstr);
like($error->errstr, qr/No space left|server closed the connection|terminat|recovery|connect/,
	'no space for WAL: publish() fails');
wait_until(sub { log_lines($node, qr/No space left on device/, $position) }, 'the reason');
# PostgreSQL panics, and cannot come up before there is space.
sleep 2;
cmp_ok(scalar(log_lines($node, qr/No space left/, $position)), '<', 30, 'nor is the log flooded');
$disk->fill('nothing');
if (!eval { session($node)->ping })
{
	local $ENV{LD_PRELOAD} = $disk->library;

	$node->stop('immediate', fail_ok => 1);
	$node->start;
}
delivered_ok('after a crash for want of WAL');
publish_one();
delivered_ok('and it goes on');
is($session->selectrow_array(q(SELECT count(*) FROM dispatch.dead_letters)), 500,
	'no event has died of it');

$node->stop;
is_deeply([ log_lines($node, qr/TRAP:|signal 11|WARNING:.*leak/) ], [], 'the log has no complaint');
done_testing();
