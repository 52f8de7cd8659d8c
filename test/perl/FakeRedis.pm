#
# FakeRedis: takes what a worker sends to Redis, and answers what a test wants.
#
#     my $redis = FakeRedis->new;
#     $redis->answer(XADD => '-OOM command not allowed when used memory > maxmemory');
#     ...
#     $redis->answer;				# as Redis would, from now on
#
# A command is answered as told, else well; "XADD:orders" is one with that first
# argument.  Within MULTI, a command that is answered with an error makes EXEC
# refuse; ELEMENT is what stands for each command in the answer to EXEC.
#
package FakeRedis;

use strict;
use warnings;

use Carp;
use IO::Select;
use IO::Socket::INET;
use POSIX ();

use PostgreSQL::Test::Utils;

my @all;

sub new
{
	my ($class) = @_;
	my $listener = IO::Socket::INET->new(
		Listen => 16, LocalAddr => '127.0.0.1', Proto => 'tcp') or croak "listen: $!";
	my $self = bless {
		port => $listener->sockport,
		file => PostgreSQL::Test::Utils::tempdir('fake') . '/answers' }, $class;

	$self->answer;
	$self->{pid} = fork // croak "fork: $!";
	if ($self->{pid} == 0)
	{
		local $SIG{TERM} = 'DEFAULT';
		eval { _serve($listener, $self->{file}); 1 } or print STDERR $@;
		POSIX::_exit(1);
	}
	close $listener;
	push @all, $self;
	return $self;
}

sub host { return '127.0.0.1'; }
sub port { return $_[0]->{port}; }

# answer(command => reply, ...): instead of what it was told before.
sub answer
{
	my ($self, %replies) = @_;

	append_to_file("$self->{file}.new",
		join '', map { "$_ $replies{$_}\n" } sort keys %replies);
	rename "$self->{file}.new", $self->{file} or croak "rename: $!";
	return;
}

sub _serve
{
	my ($listener, $file) = @_;
	my $select = IO::Select->new($listener);
	my %client;

	while (1)
	{
		foreach my $socket ($select->can_read)
		{
			if ($socket == $listener)
			{
				my $new = $listener->accept or next;

				$select->add($new);
				$client{$new} = { input => '', entries => 0 };
				next;
			}
			if (sysread $socket, $client{$socket}{input}, 65536, length $client{$socket}{input})
			{
				syswrite $socket, _take($client{$socket}, $file);
				next;
			}
			$select->remove($socket);
			delete $client{$socket};
			close $socket;
		}
	}
}

# The answers to all commands that are there in full.
sub _take
{
	my ($client, $file) = @_;
	my %told = map { /^(\S+) (.*)/ ? ($1 => $2) : () } split /\n/, slurp_file($file);
	my $output = '';

	while (my ($command, $argument, $rest) = _next_command($client->{input}))
	{
		$client->{input} = $rest;
		local $told{$command} = $told{"$command:$argument"} // $told{$command};
		$output .= _reply($client, $command, \%told) . "\r\n";
	}
	return $output;
}

# The name of the first command, its first argument, and what follows it; nothing
# if it is not all.
sub _next_command
{
	my ($input) = @_;
	my (@words);

	return unless $input =~ s/\A\*(\d+)\r\n//;
	foreach (1 .. $1)
	{
		return unless $input =~ s/\A\$(\d+)\r\n// && length $input >= $1 + 2;
		push @words, substr($input, 0, $1);
		substr($input, 0, $1 + 2) = '';
	}
	return (uc $words[0], $words[1] // '', $input);
}

sub _reply
{
	my ($client, $command, $told) = @_;
	my $queue = $client->{queue};

	if ($command eq 'MULTI')
	{
		$client->{queue} = [];
		$client->{refused} = 0;
		return $told->{MULTI} // '+OK';
	}
	if ($command eq 'EXEC')
	{
		delete $client->{queue};
		return $told->{EXEC} if $told->{EXEC};
		return '-EXECABORT Transaction discarded because of previous errors.'
		  if $client->{refused};
		return join "\r\n", '*' . @$queue, map { $told->{ELEMENT} // _entry($client) } @$queue;
	}
	$client->{refused} ||= defined $told->{$command} if $queue;
	return $told->{$command} if $told->{$command};
	return '+PONG' if $command eq 'PING';
	return '+OK' if $command ne 'XADD';
	return _entry($client) if !$queue;
	push @$queue, $command;
	return '+QUEUED';
}

sub _entry
{
	my ($client) = @_;
	my $id = '1-' . ++$client->{entries};

	return '$' . length($id) . "\r\n$id";
}

END
{
	my $exit_code = $?;

	foreach my $fake (@all)
	{
		next unless $fake->{pid};
		kill 'KILL', $fake->{pid};
		waitpid $fake->{pid}, 0;
	}
	$? = $exit_code;
}

1;
