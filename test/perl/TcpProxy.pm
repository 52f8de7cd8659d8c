#
# TcpProxy: a TCP proxy that behaves as badly as a test wants.
#
# It is a process of its own, told over a socket pair what to do; set() returns
# when the proxy does it.
#
#     my $proxy = TcpProxy->new($redis->host, $redis->port);
#     $proxy->set('cut', side => 'client', after => 17, once => 1);
#     ...
#     is($proxy->stats->{faults}, 1, 'a reply was cut');
#
# What it can do, to the connections there are and to new ones:
#
#	pass		nothing
#	refuse		reset all connections and listen no more
#	reset		reset each connection as soon as the client says something
#	swallow		take all that the client says, and never answer
#	drop_reply	pass on what the client says, and drop what is answered
#	delay		deliver everything "seconds" late
#	late		deliver replies "seconds" late, and drop what the client has
#			said since: a reply comes when another one is waited for
#	cut		close after "after" bytes towards "side" (server or client);
#			once: then pass
#	slice		deliver in segments of one byte
#
# Bytes are counted for each connection, from set() on.  A fault is a
# connection to which something was done, other than slowly.
#
package TcpProxy;

use strict;
use warnings;

use Carp;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_UNIX IPPROTO_TCP PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER TCP_NODELAY);
use Time::HiRes qw(sleep time);

my $QUEUE_BYTES = 1024 * 1024;	# above that, no more is read
my $READ_BYTES = 64 * 1024;
# A request is written at once: what comes later than this is another one.
my $REQUEST_SECONDS = 0.2;

my %MODE = map { $_ => 1 } qw(pass refuse reset swallow drop_reply delay late cut slice);
my @COUNTS = qw(accepted faults to_server to_client);
my @all_proxies;

# ---- In the test

sub new
{
	my ($class, $host, $port) = @_;
	my $self = bless { target => [ $host, $port ], listener => _listen(0) }, $class;

	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or croak "socketpair: $!";
	$_->autoflush(1) foreach $ours, $theirs;
	@$self{qw(control port)} = ($ours, $self->{listener}->sockport);
	$self->{pid} = fork // croak "fork: $!";
	if ($self->{pid} == 0)
	{
		$SIG{$_} = 'DEFAULT' foreach qw(TERM INT);
		$SIG{PIPE} = 'IGNORE';
		close $ours;
		eval { $self->_serve($theirs); 1 } or print STDERR "# proxy: $@";
		POSIX::_exit(0);
	}
	close delete $self->{listener};
	push @all_proxies, $self;
	return $self;
}

sub host { return '127.0.0.1'; }
sub port { return $_[0]->{port}; }

sub set
{
	my ($self, $mode, %args) = @_;

	croak "a proxy cannot $mode" unless $MODE{$mode};
	$self->_ask(join ' ', $mode, %args);
	return;
}

# What there was since set(): accepted connections, faults, and bytes delivered
# to the server and to the client.
sub stats
{
	my ($self) = @_;
	my %stats;

	@stats{@COUNTS} = split / /, $self->_ask('stats');
	return \%stats;
}

sub _ask
{
	my ($self, $line) = @_;
	my $control = $self->{control};

	print $control "$line\n";
	my $answer = <$control> // croak 'the proxy is gone';
	chomp $answer;
	return $answer;
}

END
{
	my $exit_code = $?;

	kill('KILL', $_->{pid}) && waitpid $_->{pid}, 0 foreach @all_proxies;
	$? = $exit_code;
}

# ---- In the process of the proxy

sub _listen
{
	my ($port) = @_;

	return IO::Socket::INET->new(
		Listen => 128, LocalAddr => host(), LocalPort => $port, Proto => 'tcp', ReuseAddr => 1)
	  || croak "listen: $!";
}

sub _serve
{
	my ($self, $control) = @_;

	$self->{connections} = {};
	$self->_obey('pass');
	while (1)
	{
		my @ends = map { @$_{qw(client server)} } values %{ $self->{connections} };
		my @due = sort { $a <=> $b } map { $_->{queue}[0][0] } grep { @{ $_->{queue} } } @ends;
		my @hungry = grep { $_->{peer}{queued} < $QUEUE_BYTES } @ends;
		my $readers =
		  IO::Select->new($control, $self->{listener} // (), map { $_->{socket} } @hungry);
		# What is due and still there waits for room in a socket: just poll.
		my $wait = !@due ? undef : $due[0] > time ? $due[0] - time : 0.001;
		my %ready = map { fileno($_) => 1 } $readers->can_read($wait);

		if ($ready{ fileno $control })
		{
			my $line = <$control> // return;	# the test is gone

			chomp $line;
			print $control $self->_obey(split / /, $line), "\n";
			next;
		}
		$self->_accept if $self->{listener} && $ready{ fileno $self->{listener} };
		$self->_read($_) foreach grep { !$_->{gone} && $ready{ fileno $_->{socket} } } @ends;
		$self->_write($_) foreach grep { !$_->{gone} } @ends;
	}
	return;
}

sub _obey
{
	my ($self, $mode, %args) = @_;

	return join ' ', @{ $self->{stats} }{@COUNTS} if $mode eq 'stats';
	@$self{qw(mode args)} = ($mode, \%args);
	$self->{stats} = { map { $_ => 0 } @COUNTS };
	foreach my $connection (values %{ $self->{connections} })
	{
		delete @$connection{qw(faulty held_since)};
		$_->{written} = 0 foreach @$connection{qw(client server)};
		$self->_fault($connection), $self->_end($connection, 1) if $mode eq 'refuse';
	}
	$self->{listener} = $mode eq 'refuse' ? undef : $self->{listener} // _listen($self->{port});
	return 'ok';
}

# A connection is {client, server, since}; each end {side, socket, peer, queue}:
# what is to be written to the socket [[when, bytes], ...], how much that is
# (queued) and how much was (written).
sub _accept
{
	my ($self) = @_;
	my ($host, $port) = @{ $self->{target} };
	my $client = $self->{listener}->accept or return;
	# A client of a server that is away sees its connection closed.
	my $server = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Proto => 'tcp')
	  or return;
	my $connection = { since => time };

	foreach my $end ([ client => $client ], [ server => $server ])
	{
		$end->[1]->blocking(0);
		setsockopt $end->[1], IPPROTO_TCP, TCP_NODELAY, 1;
		$connection->{ $end->[0] } = {
			side => $end->[0], socket => $end->[1], connection => $connection,
			queue => [], queued => 0, written => 0 };
	}
	@{ $connection->{client} }{qw(peer)} = $connection->{server};
	@{ $connection->{server} }{qw(peer)} = $connection->{client};
	$self->{connections}{$connection} = $connection;
	$self->{stats}{accepted}++;
	return;
}

sub _fault
{
	my ($self, $connection) = @_;

	$self->{stats}{faults}++ if !$connection->{faulty}++;
	return;
}

sub _end
{
	my ($self, $connection, $reset) = @_;

	delete $self->{connections}{$connection};
	foreach my $end (@$connection{qw(client server)})
	{
		setsockopt $end->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) if $reset;
		close $end->{socket};
		$end->{gone} = 1;
		# They refer to each other.
		delete @$end{qw(peer connection)};
	}
	return;
}

# Takes what an end says, and decides what becomes of it.
sub _read
{
	my ($self, $end) = @_;
	my ($mode, $connection, $now) = ($self->{mode}, $end->{connection}, time);
	my $from = $end->{side};
	my $n = sysread($end->{socket}, my ($bytes), $READ_BYTES);
	my ($lost, $delay) = ($mode eq 'swallow' || "$mode $from" eq 'drop_reply server', 0);

	return if !defined $n && $!{EAGAIN};
	return $self->_end($connection, !defined $n) if !$n;
	$delay = $self->{args}{seconds} if $mode eq 'delay';
	# Whoever has just connected may log in.
	if ($mode eq 'late' && $now > $connection->{since} + $REQUEST_SECONDS)
	{
		$connection->{held_since} //= $now if $from eq 'server';
		$delay = $self->{args}{seconds} if $from eq 'server';
		$lost = $from eq 'client' && $now > ($connection->{held_since} // $now) + $REQUEST_SECONDS;
	}
	$self->_fault($connection) if $lost || $mode eq 'reset' || $connection->{held_since};
	return $self->_end($connection, 1) if $mode eq 'reset';
	return if $lost;
	push @{ $end->{peer}{queue} }, [ $now + $delay, $bytes ];
	$end->{peer}{queued} += $n;
	return;
}

# Delivers what is due.
sub _write
{
	my ($self, $end) = @_;
	my ($args, $queue, $connection) = ($self->{args}, @$end{qw(queue connection)});

	while (@$queue && $queue->[0][0] <= time)
	{
		my $left = "$self->{mode} $end->{side}" eq 'cut ' . ($args->{side} // '')
		  ? $args->{after} - $end->{written} : 'inf';
		my $most = $self->{mode} eq 'slice' ? 1 : length $queue->[0][1];

		if ($left > 0)
		{
			my $n = syswrite $end->{socket}, $queue->[0][1], $most < $left ? $most : $left;

			return if !defined $n && $!{EAGAIN};
			return $self->_end($connection, 1) if !defined $n;
			substr($queue->[0][1], 0, $n) = '';
			$end->{queued} -= $n;
			$end->{written} += $n;
			$self->{stats}{"to_$end->{side}"} += $n;
			shift @$queue if $queue->[0][1] eq '';
			$left -= $n;
		}
		next if $left > 0;
		$self->_fault($connection);
		$self->{mode} = 'pass' if $args->{once};
		return $self->_end($connection, 0);
	}
	return;
}

1;
