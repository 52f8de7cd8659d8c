#
# Bench::Drain: how fast a backlog goes out.
#
# The backlog is published while the backend is paused.  Time counts from the
# first event that the broker has acknowledged to the last: neither side's
# start and login are measured.  Redis says itself when an entry came; of
# others, the worker's count of acknowledged events is watched.
#
package Bench::Drain;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use Time::HiRes qw(sleep time);

use Bench::Server;
use DispatchTest;

our @EXPORT = qw(drain drain_rate stream_rate redis_benchmark_rate);

my $WATCH_SECONDS = 0.005;

# The process that drains, while no other backend has one.
sub _worker
{
	my ($session) = @_;

	return sql($session,
		q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'dispatch worker'));
}

# drain_rate(session, backend, count, toll): resumes the backend and returns
# events a second by the worker's account.  The backend is paused again.  What
# it took of the processors goes to the Bench::Toll, if there is one.
sub drain_rate
{
	my ($session, $backend, $count, $toll) = @_;
	my $query = 'SELECT w.published FROM dispatch.workers() AS w'
	  . ' JOIN dispatch.backends AS b ON b.id = w.backend_id WHERE b.name = ?';
	my $before = sql($session,
		'SELECT coalesce(max(p.published), 0) FROM dispatch.positions AS p'
		  . ' JOIN dispatch.backends AS b ON b.id = p.backend_id WHERE b.name = ?', $backend);
	my $statement = $session->prepare($query);
	my $deadline = time + 600;
	my $broker_before = $toll && $toll->broker_seconds;
	my ($first_time, $first_count);

	resume($session, $backend);
	while (1)
	{
		my ($published) = $session->selectrow_array($statement, undef, $backend);
		my $now = time;
		my $done = defined $published ? $published - $before : 0;

		($first_time, $first_count) = ($now, $done) if $done > 0 && !defined $first_time;
		if ($done >= $count)
		{
			$toll->of_ours($count, _worker($session), $broker_before) if $toll;
			pause($session, $backend);
			# All of it between two looks: the look is the shortest time known.
			return $count / $WATCH_SECONDS if $first_count >= $count;
			return ($count - $first_count) / ($now - $first_time);
		}
		croak "only $done of $count events were delivered" if $now > $deadline;
		sleep $WATCH_SECONDS;
	}
	return;
}

# drain(session, backend, count, toll): resumes the backend until nothing is left.
# For a Bench::Toll, so many events were there.
sub drain
{
	my ($session, $backend, $count, $toll) = @_;
	my $broker_before = $toll && $toll->broker_seconds;

	resume($session, $backend);
	sql($session, q(SELECT dispatch.flush('10 min', ?)), $backend)
	  or croak "backend $backend was not drained in time";
	$toll->of_ours($count, _worker($session), $broker_before) if $toll;
	pause($session, $backend);
	return;
}

# stream_rate(redis, stream, count): entries a second, by the times at which
# Redis received the first and the last.
sub stream_rate
{
	my ($redis, $stream, $count) = @_;
	my $client = $redis->client;
	my ($first) = $client->xrange($stream, '-', '+', 'COUNT', 1);
	my ($last) = $client->xrevrange($stream, '+', '-', 'COUNT', 1);
	my ($from) = $first->[0] =~ /^(\d+)-/;
	my ($to) = $last->[0] =~ /^(\d+)-/;

	croak "$stream has " . $client->xlen($stream) . " entries, not $count"
	  if $client->xlen($stream) != $count;
	return $count / (($to - $from || 1) / 1000);
}

# redis_benchmark_rate(redis, stream, count, options => [...]): the same of
# redis-benchmark, which repeats the first entry of the stream "model".
sub redis_benchmark_rate
{
	my ($redis, $stream, $count, %options) = @_;
	my ($entry) = $redis->client->xrange('model', '-', '+', 'COUNT', 1);

	croak 'there is no model entry' unless $entry;
	system('redis-benchmark', '-h', $redis->host, '-p', $redis->port, '-n', $count, '-q',
		@{ $options{options} // [ '-P', 1000 ] }, 'XADD', $stream, '*', @{ $entry->[1] }) == 0
	  or croak "redis-benchmark: $?";
	return stream_rate($redis, $stream, $redis->client->xlen($stream));
}

1;
