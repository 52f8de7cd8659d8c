#
# ServerDisk: a disk that a test fills up, for a server of its own.
#
#     my $disk = ServerDisk->new;
#     local $ENV{LD_PRELOAD} = $disk->library;
#     my $node = new_cluster(...);
#     $disk->fill('data');			# or 'wal', 'both', 'nothing'
#
# Files of that kind do not grow any more, as on a disk that is full; what is
# there can be overwritten.  So it needs neither a file system of its own nor the
# right to mount one.
#
package ServerDisk;

use strict;
use warnings;

use parent 'Preload';

my %FULL = (nothing => 0, data => 1, wal => 2, both => 3);

my $SOURCE = <<'C';
static int
is_full(int fd, off_t end)
{
	char		link[64];
	char		path[4096];
	struct stat st;
	ssize_t		len;

	if (*control == 0)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return 0;
	path[len] = '\0';
	if (!((*control & 1) && strstr(path, "/base/")) &&
		!((*control & 2) && strstr(path, "/pg_wal/")))
		return 0;
	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && end > st.st_size;
}

#define REFUSE(fd, end) \
	if (is_full(fd, end)) { errno = ENOSPC; return -1; }

static size_t
size_of(const struct iovec *iov, int count)
{
	size_t		size = 0;

	for (int i = 0; i < count; i++)
		size += iov[i].iov_len;
	return size;
}

ssize_t
write(int fd, const void *data, size_t size)
{
	REFUSE(fd, lseek(fd, 0, SEEK_CUR) + size);
	return syscall(SYS_write, fd, data, size);
}

ssize_t
pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
	REFUSE(fd, offset + size);
	return syscall(SYS_pwrite64, fd, data, size, offset);
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int count, off64_t offset)
{
	REFUSE(fd, offset + size_of(iov, count));
	return syscall(SYS_pwritev, fd, iov, count, offset, 0);
}

int
posix_fallocate64(int fd, off64_t offset, off64_t size)
{
	if (is_full(fd, offset + size))
		return ENOSPC;
	return syscall(SYS_fallocate, fd, 0, offset, size) == 0 ? 0 : errno;
}

ssize_t
pwrite(int fd, const void *data, size_t size, off_t offset)
{
	return pwrite64(fd, data, size, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	return pwritev64(fd, iov, count, offset);
}

int
posix_fallocate(int fd, off_t offset, off_t size)
{
	return posix_fallocate64(fd, offset, size);
}
C

sub new { return $_[0]->SUPER::new($SOURCE); }

sub fill
{
	my ($self, $what) = @_;

	return $self->set($FULL{$what} // die "no such kind of file: $what\n");
}

1;
