#
# Preload: a library of a test's own between a server and the C library.
#
#     my $preload = Preload->new($source);	# and options of the linker
#     local $ENV{LD_PRELOAD} = $preload->library;
#     my $node = new_cluster(...);
#     $preload->set(17);
#
# The source sees the number that is set as *control, which starts as 0.  It is
# in a file mapped by all processes of the server: what is set holds at once,
# for all of them.
#
package Preload;

use strict;
use warnings;

use Carp;
use IPC::Run;

use PostgreSQL::Test::Utils;

my $HEAD = <<'C';
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile long *control;

__attribute__((constructor)) static void
map_control(void)
{
	int			fd = open(CONTROL_FILE, O_RDONLY);

	control = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
	close(fd);
	if (control == MAP_FAILED)
		_exit(127);
}

C

sub new
{
	my ($class, $source, @options) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir('preload');
	my $self = bless { library => "$dir/preload.so", file => "$dir/control" }, $class;

	append_to_file("$dir/preload.c", $HEAD . $source);
	append_to_file($self->{file}, pack 'q', 0);
	IPC::Run::run([ 'gcc', '-shared', '-fPIC', '-Wall', '-Werror', '-o', $self->{library},
		qq(-DCONTROL_FILE="$self->{file}"), "$dir/preload.c", @options ])
	  or croak 'cannot compile what is to be preloaded';
	return $self;
}

# The value of LD_PRELOAD for the server.
sub library { return $_[0]->{library}; }

sub set
{
	my ($self, $number) = @_;

	open my $file, '+<:raw', $self->{file} or croak "$self->{file}: $!";
	syswrite $file, pack 'q', $number;
	close $file;
	return;
}

1;
