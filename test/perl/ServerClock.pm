#
# ServerClock: a time of day that a test sets, for a server of its own.
#
#     my $clock = ServerClock->new;
#     local $ENV{LD_PRELOAD} = $clock->library;
#     my $node = new_cluster(...);
#     $clock->set(-3600);			# an hour slow, from now on
#
# A library that is preloaded into the server answers what asks for the time of
# day, with an offset that is in a file mapped by all of its processes: what is
# set holds at once, for all of them.  Clocks that nobody sets are left alone.
# (libfaketime does not do: PostgreSQL 15 starts background processes out of a
# signal handler within select(), and those would keep the true time.)
#
package ServerClock;

use strict;
use warnings;

use Carp;
use IPC::Run;

use PostgreSQL::Test::Utils;

my $SOURCE = <<'C';
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset;	/* in seconds */

__attribute__((constructor)) static void
map_offset(void)
{
	int			fd = open(OFFSET_FILE, O_RDONLY);

	offset = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (offset == MAP_FAILED)
		_exit(127);
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			result = syscall(SYS_clock_gettime, clock, ts);

	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		ts->tv_sec += *offset;
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

sub new
{
	my ($class) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir('clock');
	my $self = bless { library => "$dir/clock.so", file => "$dir/offset" }, $class;

	append_to_file("$dir/clock.c", $SOURCE);
	append_to_file($self->{file}, pack 'q', 0);
	IPC::Run::run([ 'gcc', '-shared', '-fPIC', '-o', $self->{library},
		qq(-DOFFSET_FILE="$self->{file}"), "$dir/clock.c" ])
	  or croak 'cannot compile the clock';
	return $self;
}

# The value of LD_PRELOAD for a server that is to have this clock.
sub library { return $_[0]->{library}; }

# So many seconds from the true time.
sub set
{
	my ($self, $seconds) = @_;

	open my $file, '+<:raw', $self->{file} or croak "$self->{file}: $!";
	syswrite $file, pack 'q', $seconds;
	close $file;
	return;
}

1;
