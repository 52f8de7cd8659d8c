#
# Faults::Server: PostgreSQL's own part in the trouble.
#
package Faults::Server;

use strict;
use warnings;

use DispatchTest;
use Faults;
use Test::More;
use Time::HiRes qw(sleep time);

# Below the lock_timeout of the publishers.
my $LOCK_SECONDS = 3;
my $TERMINATIONS = 30;
my $EVENTS = 500;
my $MOST_SECONDS = 0.05;
# A reply takes that long, so that an event is in flight when the server dies.
my $FLIGHT_SECONDS = 0.4;

# A worker that cannot read the outbox, or not store its position, waits.
sub locks
{
	my ($bench) = @_;

	return map {
		my $table = $_;
		[ "$table locked" => sub {
			my ($name) = @_;
			my $lock = sub {
				my $session = session($bench->{node});

				$session->begin_work;
				$session->do("LOCK TABLE $table IN ACCESS EXCLUSIVE MODE");
				sleep $LOCK_SECONDS;
				$session->rollback;
				return 0;
			};

			$bench->storm($name, $lock);
		} ]
	} qw(dispatch.outbox dispatch.positions dispatch.exceptions);
}

# A worker is ended at any moment from its start to the last event.  It gives
# what is in flight the time to be answered and stores its position, so nothing
# comes twice.  Each has a backend of its own: one that ends again and again is
# started later and later.
sub terminations
{
	my ($bench) = @_;
	my $end = q(SELECT pg_terminate_backend(pid) FROM dispatch.backend_status
		WHERE name = ? AND pid IS NOT NULL);

	return map {
		my $backend = "victim$_";
		[ "worker $_ terminated" => sub {
			my ($name) = @_;

			$bench->create_backend($backend, $bench->{redis});
			wait_for_state($bench->{node}, $backend, 'running') if rand() < 0.7;
			$bench->publish($backend, $EVENTS);
			sleep rand $MOST_SECONDS;
			wait_until(sub { $bench->sql($end, $backend) }, 'a worker to end');
			$bench->publish($backend, $EVENTS);
			$bench->settle($backend);
			$bench->check_drill($backend, $name, sub { $_[0] == 1 });
			$bench->sql('SELECT dispatch.drop_backend(?)', $backend);
		} ]
	} 1 .. $TERMINATIONS;
}

# Somebody else's session takes the server down again and again, each time with
# the same event in flight: below four times that is no proof against it.
sub innocents
{
	my ($bench) = @_;
	my $backend = 'proxied';
	my $in_flight = q(SELECT in_flight > 0 FROM dispatch.backend_status WHERE name = ?);
	my $dead = 'SELECT count(*) FROM dispatch.dead_letters';
	my $crash = sub {
		my ($victim, $pid);

		wait_until(sub { $bench->sql($in_flight, $backend) }, 'an event in flight');
		wait_until(
			sub {
				$victim = session($bench->{node});
				($pid) = $victim->selectrow_array('SELECT pg_backend_pid()');
			},
			'a session to kill');
		kill 'KILL', $pid;
		wait_until(sub { !$victim->ping }, 'the crash');
	};
	my $crashes = sub {
		my ($count) = @_;

		$bench->settle($backend);
		$bench->make_durable;
		$bench->{proxy}->set('delay', seconds => $FLIGHT_SECONDS);
		$bench->publish($backend, 3);
		$crash->() foreach 1 .. $count;
		$bench->{proxy}->set('pass');
		$bench->settle($backend);
	};

	return (
		[ 'three crashes that others caused' => sub {
			my ($name) = @_;

			$crashes->(3);
			is($bench->sql($dead), 0, "$name: no event is convicted");
			$bench->check_drill($backend, $name, sub { $_[0] <= 4 });
		} ],
		[ 'four crashes that others caused' => sub {
			my ($name) = @_;

			$crashes->(4);
			# The one that was in flight; none, if the last crash came a little late.
			cmp_ok($bench->sql($dead), '<=', 1, "$name: one event at most is convicted");
			$bench->sql('SELECT dispatch.retry_failed()');
			$bench->settle($backend);
			is($bench->sql($dead), 0, "$name: it can be tried again");
			my %came = map { $_->{fields}{event_id} => 1 } $bench->{redis}->xrange_all($backend);
			is(scalar(keys %came), 3, "$name: all have come");
		} ]);
}

1;
