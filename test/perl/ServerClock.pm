#
# ServerClock: a time of day that a test sets, for a server of its own.
#
#     my $clock = ServerClock->new;
#     local $ENV{LD_PRELOAD} = $clock->library;
#     my $node = new_cluster(...);
#     $clock->set(-3600);			# an hour slow, from now on
#
# Clocks that nobody sets are left alone.  (libfaketime does not do: PostgreSQL 15
# starts background processes out of a signal handler within select(), and those
# would keep the true time.)
#
package ServerClock;

use strict;
use warnings;

use parent 'Preload';

my $SOURCE = <<'C';
int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			result = syscall(SYS_clock_gettime, clock, ts);

	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		ts->tv_sec += *control;
	return result;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *result)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (result)
		*result = ts.tv_sec;
	return ts.tv_sec;
}
C

sub new { return $_[0]->SUPER::new($SOURCE); }

1;
