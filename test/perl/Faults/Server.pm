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
my $MOST_SECONDS_BETWEEN = 0.4;

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

# The worker of a backend is ended, at any moment.
sub terminations
{
	my ($bench) = @_;
	my $end = q(SELECT count(pg_terminate_backend(pid)) FROM dispatch.backend_status
		WHERE name = ? AND pid IS NOT NULL);

	return [ 'worker terminated' => sub {
		my ($name) = @_;

		$bench->storm(
			$name, sub {
				my ($backend) = @_;

				foreach my $round (1 .. $TERMINATIONS)
				{
					sleep rand $MOST_SECONDS_BETWEEN;
					wait_until(sub { $bench->sql($end, $backend) }, 'a worker to end');
				}
				return $TERMINATIONS;
			});
	} ];
}

1;
