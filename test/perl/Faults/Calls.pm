#
# Faults::Calls: a system call of the worker fails, or the worker is killed at
# it, at the first, the second, and so on until there is no such call left.
#
# The drill is always the same: the connection is lost while idle, so that the
# calls of connecting are among them, then three transactions go out, each of
# which the worker has to make durable first.  The worker uses send() and recv()
# on its socket alone, pwrite64() and fdatasync() on WAL alone.
#
# Where the worker is killed, two events with a key of their own go beside each of
# them: Redis never takes the first, which becomes a dead letter after two
# attempts, and the other may be parked behind it.  So outcomes are stored all the
# time; lseek(), with which a table is measured, is what the worker calls then.
#
package Faults::Calls;

use strict;
use warnings;

use DispatchTest;
use Faults;
use Strace;
use Test::More;
use Time::HiRes qw(sleep);

my $BACKEND = 'direct';
my $MOST_CALLS = 150;		# beyond that, something calls for ever
my $TRANSACTIONS = 3;
my $EVENTS = 5;
my $BAD_ATTEMPTS = 2;
my $RETRY_SECONDS = 30;

my $KILLS = 4;
my $KILL_SECONDS = 60;
my $PROGRESS_SECONDS = 1;
# What is delivered until a position is stored and in the WAL.
my $SPAN_EVENTS = 200;

# Errors that the calls have by their manuals, and such as they have not.
my %ERRORS = (
	socket => [qw(EMFILE ENOBUFS)],
	connect => [qw(ECONNREFUSED ETIMEDOUT EHOSTUNREACH EADDRNOTAVAIL EINTR)],
	sendto => [qw(ECONNRESET EPIPE ETIMEDOUT ENOBUFS EAGAIN EINTR)],
	recvfrom => [qw(ECONNRESET ETIMEDOUT ENOMEM EAGAIN EINTR)],
	epoll_wait => [qw(EINTR)],
	pwrite64 => [qw(ENOSPC EINTR)],
	fdatasync => [qw(EIO)]);
# PostgreSQL panics and recovers where WAL cannot be written.
my $CRASH = qr/^(?:pwrite64 error=ENOSPC|fdatasync error=EIO|\w+ signal=SIGKILL)$/;
# Such as come with a connection alone.
my %ONCE = (socket => 1, connect => 1);
my @KILLED_AT = qw(socket connect sendto recvfrom epoll_wait close pwrite64 fdatasync lseek);

# Settings of a server for these: WAL is written by whoever needs it.
our $SETTINGS = "fsync = on\nwal_writer_delay = 10s\nwal_writer_flush_after = 0\n"
  . "dispatch.retry_delay = '50 ms'\n";

my $drills = 0;

sub _worker
{
	my ($bench, $backend) = @_;
	my $pid;

	wait_until(
		sub {
			$pid = $bench->sql(
				q(SELECT pid FROM dispatch.backend_status WHERE name = ? AND state = 'running'),
				$backend);
		},
		'a running worker');
	return $pid;
}

# ---- Events that fail

# A stream without an id left refuses whatever is added.
sub _prepare_refusal
{
	my ($bench) = @_;
	my $last = ~0;

	$bench->{redis}->client->del('exhausted', 'followers');
	$bench->{redis}->client->xadd('exhausted', "$last-$last", 'n', 1);
	return;
}

# The two of them, marked with the number of the drill.
sub _publish_pair
{
	my ($bench, $drill) = @_;
	my $put = q(SELECT count(dispatch.publish(stream, ?, '0', backend => ?, key => 'bad',
			options => jsonb_build_object('stream_name', stream), max_retries => ?::int))
		FROM unnest('{exhausted,followers}'::text[]) AS stream);

	# The worker may take the server down before this session is answered.
	eval { $bench->sql($put, "drill $drill", $BACKEND, $BAD_ATTEMPTS - 1); 1 }
	  or $bench->session_now;
	return;
}

# Until none of them is to be tried again.
sub _settle_pairs
{
	my ($bench, $drill) = @_;
	my $open = q(SELECT count(*) FROM dispatch.events WHERE backend = ? AND source = ?
		AND status NOT IN ('published', 'failed'));

	wait_until(
		sub { !$bench->sql($open, $BACKEND, "drill $drill") }, 'the last attempt', $RETRY_SECONDS);
	return;
}

# What has failed is a dead letter after so many attempts, neither lost nor there
# twice; what followed it has come, in order.
sub _check_pairs
{
	my ($bench, $drill, $what) = @_;
	my $events = q(SELECT event_id, event_type, status, attempts FROM dispatch.events
		WHERE backend = ? AND source = ? ORDER BY event_id);
	my (%copies, @order);
	my @all = @{
		$bench->session_now->selectall_arrayref($events, { Slice => {} },
			$BACKEND, "drill $drill") };
	my @bad = grep { $_->{event_type} eq 'exhausted' } @all;
	my @good = grep { $_->{event_type} eq 'followers' } @all;

	is(scalar(grep { $_->{status} ne 'failed' || $_->{attempts} != $BAD_ATTEMPTS } @bad), 0,
		"$what: those that fail are dead letters after $BAD_ATTEMPTS attempts");
	is($bench->sql(q(SELECT count(*) FROM dispatch.dead_letters)), scalar @bad,
		"$what: there are no others");
	$copies{ $_->{fields}{event_id} }++ || push @order, $_->{fields}{event_id}
	  foreach $bench->{redis}->xrange_all('followers');
	is_deeply(\@order, [ map { $_->{event_id} } @good ], "$what: those behind them came, in order");
	$bench->sql('SELECT count(dispatch.discard(event_id)) FROM dispatch.dead_letters');
	return;
}

# ---- Drills

# One fault at the N-th call; true if the drill got that far.
sub _drill
{
	my ($bench, $call, $what, $n) = @_;
	my $crash = "$call $what" =~ $CRASH;
	my $drill = $what =~ /SIGKILL/ ? ++$drills : 0;
	my ($pid, $strace, $done);

	_prepare_refusal($bench) if $drill;
	$bench->make_durable if $crash;
	$pid = _worker($bench, $BACKEND);
	$strace = Strace->attach($pid, "$call:$what:when=$n");
	$bench->{redis}->cli('CLIENT', 'KILL', 'TYPE', 'normal');
	foreach my $transaction (1 .. $TRANSACTIONS)
	{
		$bench->publish($BACKEND, $EVENTS);
		_publish_pair($bench, $drill) if $drill;
		$bench->settle($BACKEND);
	}
	_settle_pairs($bench, $drill) if $drill;
	$strace->detach;
	$done = $strace->injected;
	# It may have come after all was settled.
	wait_until(sub { _worker($bench, $BACKEND) != $pid }, 'the server after a crash')
	  if $done && $crash;
	$bench->settle($BACKEND);
	_settle_pairs($bench, $drill) if $drill;
	$bench->check_drill($BACKEND, "$call, call $n: $what", sub { $_[0] <= 2 });
	_check_pairs($bench, $drill, "$call, call $n: $what") if $drill;
	return $done;
}

sub _exhaust
{
	my ($bench, $call, $what) = @_;
	my $n = 1;

	$n++ while $n <= $MOST_CALLS && _drill($bench, $call, $what, $n);
	cmp_ok($n, '>', 1, "$call: $what has happened");
	cmp_ok($n, '<=', $MOST_CALLS, "$call: $what: the last one was reached");
	diag("$call, $what: " . ($n - 1) . ' calls');
	return;
}

# All calls with this fault, each in a drill of its own.
sub exhaustive
{
	my ($bench) = @_;

	return map { my ($call, $what) = @$_;
		[ "$call: $what" => sub { _exhaust($bench, $call, $what) } ] } _faults();
}

# One of them each.
sub single
{
	my ($bench) = @_;

	return map { my ($call, $what) = @$_;
		[ "$call: $what" => sub {
			my ($name) = @_;
			# At least so many there are of each.
			my $n = 1 + int rand($call =~ /sendto|recvfrom|epoll_wait/ ? 4 : 1);

			ok(_drill($bench, $call, $what, $n), "$name has happened at call $n");
		} ] } _faults();
}

# The worker is killed at any call it makes, while clients publish.
sub storm
{
	my ($bench) = @_;

	return [ 'killed at any call' => sub {
		my ($name) = @_;
		my $kill = sub {
			my ($backend) = @_;

			foreach my $round (1 .. $KILLS)
			{
				my $call = $KILLED_AT[ rand @KILLED_AT ];
				my $n = $ONCE{$call} ? 1 : 1 + int rand 20;
				my ($pid, $strace);

				# Ends in a row without progress are blamed on an event.
				sleep $PROGRESS_SECONDS;
				$pid = _worker($bench, $backend);
				$strace = Strace->attach($pid, "$call:signal=SIGKILL:when=$n");

				note("$name: $call, call $n");
				# Connecting is among them.
				$bench->{redis}->cli('CLIENT', 'KILL', 'TYPE', 'normal');
				wait_until(sub { !kill 0, $pid }, 'the end of the worker', $KILL_SECONDS);
				$strace->detach;
			}
			return $KILLS;
		};

		$bench->storm(
			$name, $kill, via => 'redis', crashes => 1, duplicates => $KILLS * $SPAN_EVENTS);
	} ];
}

sub _faults
{
	my @faults;

	foreach my $call (sort keys %ERRORS)
	{
		push @faults, map { [ $call, "error=$_" ] } @{ $ERRORS{$call} };
	}
	return @faults, map { [ $_, 'signal=SIGKILL' ] } @KILLED_AT;
}

1;
