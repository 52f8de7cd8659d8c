# The clock of the server jumps, by hours and by years, forward and back, while
# events wait for all that they may wait for.  What is to happen at a time goes
# by the clock; how long to wait does not: nothing is lost or removed that is
# undelivered, nobody waits for years, and nobody runs hot.

use strict;
use warnings;

use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use ServerClock;
use SqlSink;

# More than any delay of the settings below, and much less than an hour
my $SECONDS = 25;

my $HOUR = 3600;
my $YEARS = 20 * 365 * 24 * $HOUR;

my $clock = ServerClock->new;
my $redis = RedisServer->new;
my $node = start_server();
my $session = session($node);
my $n = 0;

sub start_server
{
	local $ENV{LD_PRELOAD} = $clock->library;

	return new_cluster('clock', q(
		dispatch.sleep_time = '1 s'
		dispatch.retry_delay = '1 s'
		dispatch.retry_max_delay = '2 s'
		dispatch.max_retries = 1000
		dispatch.published_retention = '6 s'
		autovacuum = off));
}

sub sql { return value_of($session, @_); }

sub publish
{
	my ($backend, $count, %options) = @_;

	$session->do(
		q(SELECT dispatch.publish('t', 's', to_jsonb(i), backend => ?,
			scheduled_at => now() + ?::interval)
		FROM generate_series(?::int, ?::int) AS i),
		undef, $backend, $options{in}, $n + 1, $n + $count);
	$n += $count;
	return $n - $count + 1 .. $n;
}

# Those that are not there yet
sub missing
{
	my ($stream, @expected) = @_;
	my %seen = map { $_ => 1 } stream_data($redis, $stream);

	return grep { !$seen{$_} } @expected;
}

sub ok_soon
{
	my ($what, $condition) = @_;
	my $started = time;

	ok(eval { wait_until($condition, $what, $SECONDS); 1 }, $what) or diag($@);
	note(sprintf '%s: %.1f s', $what, time - $started);
	return;
}

$session->do('CREATE EXTENSION dispatch');
create_failing_backend($session);
create_redis_backend($node, $redis, name => $_, stream_name => $_)
  foreach qw(default paused victim);
is(sql(q(SELECT count(dispatch.pause_backend('paused')))), 1, 'a backend that is paused');
my @paused = publish('paused', 100);
publish('failing', 3);
my @early = publish('default', 10);
ok_soon('delivered before', sub { !missing('default', @early) });

# ---- Every kind of waiting, through every jump

my @jumps = ([ $HOUR, 'an hour on' ], [ -$HOUR, 'an hour back' ], [ $YEARS, 'twenty years on' ],
	[ -$YEARS, 'twenty years back' ], [ 0, 'where it was' ]);
foreach my $jump (@jumps)
{
	my ($offset, $what) = @$jump;
	my ($attempts, @waiting);

	# An outage, with a back-off; and a flush() that waits for its end
	$redis->stop;
	@waiting = publish('default', 10);
	wait_for_state($node, 'default', 'outage');
	my $child = fork // die "fork: $!\n";
	if ($child == 0)
	{
		my $mine = session($node);

		POSIX::_exit(
			$mine->selectrow_array(q(SELECT dispatch.flush('1500 ms', 'default'))) ? 1 : 0);
	}
	# A worker that is started again and again, later and later
	$session->do(q(SELECT dispatch.alter_backend('victim', '{"max_len": 1000}')));
	foreach my $round (1 .. 2)
	{
		wait_until(sub { sql(q(SELECT pg_terminate_backend(pid) FROM dispatch.backend_status
			WHERE name = 'victim' AND pid IS NOT NULL)) }, 'a worker to end');
	}
	# A backend that is being dropped
	create_redis_backend($node, $redis, name => 'dropped');
	$session->do(q(SELECT dispatch.drop_backend('dropped', force => true)));
	sleep 0.1;
	$clock->set($offset);
	$attempts = sql('SELECT sum(attempts) FROM dispatch.exceptions');

	ok_soon("$what: flush() ends", sub { waitpid($child, POSIX::WNOHANG()) == $child });
	is($?, 0, "$what: ... when its time is over");
	calm_ok($node, $what);
	ok_soon("$what: the next attempt is near", sub {
		sql(q(SELECT next_attempt_at BETWEEN now() - interval '10 s' AND now() + interval '1 min'
			FROM dispatch.backend_status WHERE name = 'default'));
	});
	$redis->start;
	ok_soon("$what: the outage ends", sub { !missing('default', @waiting) });
	ok_soon("$what: events are tried again",
		sub { sql('SELECT sum(attempts) FROM dispatch.exceptions') > $attempts + 3 });
	push @waiting, publish('victim', 5);
	ok_soon("$what: workers are started again",
		sub { sql(q(SELECT dispatch.flush('100 ms', 'victim'))) });
	ok_soon("$what: backends are dropped",
		sub { !sql(q(SELECT count(*) FROM dispatch.backends WHERE name = 'dropped')) });
	push @waiting, publish('default', 5);
	ok(sql(q(SELECT dispatch.flush('20 s', 'default'))), "$what: events are delivered");
	is_deeply([ missing('default', @waiting[ 0 .. 9, 15 .. 19 ]) ], [], "$what: all of them");
	ok(sql(q(SELECT last_published_at BETWEEN now() - interval '1 min' AND now()
		FROM dispatch.backend_status WHERE name = 'default')), "$what: by the clock of the server");
	is(sql(q(SELECT count(*) FROM dispatch.events WHERE backend = 'paused'
		AND status = 'pending')), 100, "$what: no undelivered event is removed");
	is(sql(q(SELECT count(*) FROM dispatch.exceptions WHERE status = 'retrying')), 3,
		"$what: nor one that is to be tried again");
}

# ---- What goes by the clock

my ($later) = publish('default', 1, in => '2 h');
my ($now) = publish('default', 1);
ok_soon('an event that is not scheduled', sub { !missing('default', $now) });
$clock->set(-$YEARS);
sleep 2;
is_deeply([ missing('default', $later) ], [$later], 'a scheduled event waits for its time');
$clock->set(3 * $HOUR);
ok_soon('and goes when the clock says so', sub { !missing('default', $later) });

# Segments are closed and emptied whatever the clock has said before.
$clock->set($YEARS);
$session->do(q(SELECT dispatch.resume_backend('paused')));
ok_soon('what had to wait is delivered', sub { !missing('paused', @paused) });
is(scalar(stream_data($redis, 'paused')), 100, 'once');
$clock->set(0);
publish('default', 5);
my $oldest = sql(q(SELECT min(id) FROM dispatch.outbox));
publish('default', 5);
ok_soon('retention goes on', sub {
	publish('default', 1);
	sleep 0.2;
	sql(q(SELECT min(id) FROM dispatch.outbox)) > $oldest;
});
is(sql(q(SELECT count(*) FROM dispatch.segments WHERE opened_at > now() OR closed_at > now())),
	0, 'and no segment is of the future');

$node->stop;
log_ok($node, qr/WARNING:(?!.*(?:refused|closed the connection|never))/);
done_testing();
