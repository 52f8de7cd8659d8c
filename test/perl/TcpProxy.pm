#
# TcpProxy: a TCP proxy that behaves as badly as a test wants.
#
# It is a process of its own, told over a socket pair what to do; set() returns
# when the proxy does it.
#
#     my $proxy = TcpProxy->new($redis->host, $redis->port);
#     $proxy->set('cut', side => 'client', after => 17, once => 1);
# What it can do, to the connections there are and to new ones:
#
#	pass		nothing
#	refuse		reset all connections and listen no more
#	reset		reset each connection when anybody says something
#	swallow		take all that either side says, and never answer
#	drop_reply	pass on what the client says, and drop what is answered
#	delay		deliver everything "seconds" late
#	late		deliver replies "seconds" late, and drop what the client says
#			meanwhile: a reply comes when another one is waited for
#	cut		close after "after" bytes towards "side"; once: then pass
#	slice		deliver in segments of one byte
#
# Bytes are counted for each connection, from set() on.  A fault is a
# connection to which something was done, other than slowly.
package TcpProxy;

use strict;
use warnings;

use Carp;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(AF_UNIX IPPROTO_TCP PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER TCP_NODELAY);
use Time::HiRes qw(time);

my $READ_BYTES = 64 * 1024;
my $SEGMENTS = 500;				# written at a time: the other side has its turn, too
# A request is written at once: what comes later than this is another one.
my $REQUEST_SECONDS = 0.2;

my %MODE = map { $_ => 1 } qw(pass refuse reset swallow drop_reply delay late cut slice);
my @COUNTS = qw(accepted faults to_server to_client);
my @all_proxies;

# ---- In the test

sub new
{
	my ($class, @target) = @_;
	my $self = bless { target => \@target, listener => _listen(0) }, $class;

	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or croak "socketpair: $!";
	$_->autoflush foreach $ours, $theirs;
	@$self{qw(control port pid)} = ($ours, $self->{listener}->sockport, fork // croak "fork: $!");
	if ($self->{pid} == 0)
	{
		$SIG{$_} = 'DEFAULT' foreach qw(TERM INT);
		$SIG{PIPE} = 'IGNORE';
		close $ours;
		eval { $self->_serve($theirs); 1 } or print STDERR "# proxy: $@";
		POSIX::_exit(0);
	}
	close delete $self->{listener};
	return push(@all_proxies, $self) && $self;
}

sub host { return '127.0.0.1'; }
sub port { return $_[0]->{port}; }

sub set
{
	my ($self, $mode, %args) = @_;

	return $MODE{$mode} ? $self->_ask($mode, %args) : croak "a proxy cannot $mode";
}

# What there was since set().
sub stats
{
	my %stats;

	@stats{@COUNTS} = $_[0]->_ask('stats');
	return \%stats;
}

sub _ask
{
	my ($self, @words) = @_;

	print { $self->{control} } "@words\n";
	return split ' ', readline $self->{control} // croak 'the proxy is gone';
}

END
{
	local $?;

	kill('KILL', $_->{pid}) && waitpid $_->{pid}, 0 foreach @all_proxies;
}

# ---- In the process of the proxy

sub _listen
{
	return IO::Socket::INET->new(
		Listen => 128, LocalAddr => host(), LocalPort => $_[0], Proto => 'tcp', ReuseAddr => 1)
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
		my @sockets = ($control, $self->{listener} // (), map { $_->{socket} } @ends);
		# What is due and still there waits for room in a socket: just poll.
		my $wait = !@due ? undef : $due[0] > time ? $due[0] - time : 0.001;
		my %ready = map { fileno($_) => 1 } IO::Select->new(@sockets)->can_read($wait);

		if ($ready{ fileno $control })
		{
			my $line = <$control> // return;	# the test is gone

			print $control $self->_obey(split ' ', $line), "\n";
			next;
		}
		$self->_accept if $self->{listener} && $ready{ fileno $self->{listener} };
		# Each of these may be the end of both.
		$_->{gone} || $ready{ fileno $_->{socket} } && $self->_read($_) foreach @ends;
		$_->{gone} || $self->_write($_) foreach @ends;
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
		$connection->{$_}{written} = 0 foreach qw(client server);
		$self->_end($connection, fault => 1, reset => 1) if $mode eq 'refuse';
	}
	$self->{listener} = $mode eq 'refuse' ? undef : $self->{listener} // _listen($self->{port});
	return 'ok';
}

# A connection is {client, server, since}; each end {side, socket, peer, queue}:
# what is to be written to the socket [[when, bytes], ...], and how much was.
sub _accept
{
	my ($self) = @_;
	my %socket = (client => scalar $self->{listener}->accept);
	my $connection = { since => time };

	# A client of a server that is away sees its connection closed.
	$socket{server} = IO::Socket::INET->new(join ':', @{ $self->{target} }) or return;
	foreach my $side (qw(client server))
	{
		$socket{$side}->blocking(0);
		setsockopt $socket{$side}, IPPROTO_TCP, TCP_NODELAY, 1;
		$connection->{$side} = {
			side => $side, socket => $socket{$side}, connection => $connection,
			queue => [], written => 0 };
	}
	$connection->{client}{peer} = $connection->{server};
	$connection->{server}{peer} = $connection->{client};
	$self->{connections}{$connection} = $connection;
	$self->{stats}{accepted}++;
	return;
}

sub _end
{
	my ($self, $connection, %how) = @_;

	$self->{stats}{faults}++ if $how{fault} && !$connection->{faulty}++;
	delete $self->{connections}{$connection};
	foreach my $end (@$connection{qw(client server)})
	{
		setsockopt $end->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) if $how{reset};
		close $end->{socket};
		$end->{gone} = 1;
		delete @$end{qw(peer connection)};	# they refer to each other
	}
}

# Takes what an end says, and decides what becomes of it.
sub _read
{
	my ($self, $end) = @_;
	my ($mode, $connection, $from, $now) = ($self->{mode}, @$end{qw(connection side)}, time);
	my $n = sysread($end->{socket}, my ($bytes), $READ_BYTES);
	my $lost = $mode eq 'swallow' || "$mode $from" eq 'drop_reply server';
	my $slow = $mode eq 'delay';

	return if !defined $n && $!{EAGAIN};
	return $self->_end($connection, reset => !defined $n) if !$n;
	return $self->_end($connection, fault => 1, reset => 1) if $mode eq 'reset';
	# Whoever has just connected may log in.
	if ($mode eq 'late' && $now > $connection->{since} + $REQUEST_SECONDS)
	{
		$slow = $from eq 'server';
		$connection->{held_since} //= $now if $slow;
		$lost = !$slow && $now > ($connection->{held_since} // $now) + $REQUEST_SECONDS;
	}
	$self->{stats}{faults}++ if ($lost || $connection->{held_since}) && !$connection->{faulty}++;
	return if $lost;
	push @{ $end->{peer}{queue} }, [ $slow ? $now + $self->{args}{seconds} : $now, $bytes ];
	return;
}

# Delivers what is due.
sub _write
{
	my ($self, $end) = @_;
	my ($args, $queue, $connection) = ($self->{args}, @$end{qw(queue connection)});
	my $segments = $SEGMENTS;

	while (@$queue && $queue->[0][0] <= time && $segments-- > 0)
	{
		my $cut = "$self->{mode} $end->{side}" eq 'cut ' . ($args->{side} // '');
		my $left = $cut ? $args->{after} - $end->{written} : $READ_BYTES;
		my $most = $self->{mode} eq 'slice' ? 1 : $left;
		my $n = $left > 0 ? syswrite $end->{socket}, $queue->[0][1], $most : 0;

		return if !defined $n && $!{EAGAIN};
		return $self->_end($connection, reset => 1) if !defined $n;
		substr($queue->[0][1], 0, $n) = '';
		$end->{written} += $n;
		$self->{stats}{"to_$end->{side}"} += $n;
		shift @$queue if $queue->[0][1] eq '';
		next if !$cut || $left > $n;
		$self->{mode} = 'pass' if $args->{once};
		return $self->_end($connection, fault => 1);
	}
	return;
}

1;
