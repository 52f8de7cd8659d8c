#
# RedisServer: a Redis server of a test's own.
#
# It runs on a free port in a directory of its own, as a child of the test: see
# ChildServer.pm for what can be done to it.
#
#     my $redis = RedisServer->new(appendonly => 1);
#     $redis->cli('CONFIG', 'SET', 'maxmemory', '1mb');
#     is(scalar $redis->xrange_all('events'), 3, 'three entries');
#
package RedisServer;

use strict;
use warnings;

use Carp;
use IPC::Run;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;

use parent 'ChildServer';

my $START_SECONDS = 20;
my $STOP_SECONDS = 10;
my $PAGE = 10_000;				# entries that xrange_all reads at once

# new(appendonly => 1, conf => {directive => value, ...}): starts a server.
# appendonly makes it keep, across a kill, all that it acknowledged.
sub new
{
	my ($class, %options) = @_;
	my %conf = (
		save => '',
		appendonly => $options{appendonly} ? 'yes' : 'no',
		appendfsync => 'always',
		%{ $options{conf} // {} });
	my $self = $class->child(
		'redis', start_seconds => $START_SECONDS, stop_seconds => $STOP_SECONDS,
		port => PostgreSQL::Test::Cluster::get_free_port(), conf => \%conf);

	$self->start;
	return $self;
}

# Starts it, again on the same port and with what its files hold.
sub start
{
	my ($self) = @_;
	my @command = (
		'redis-server',
		'--bind', $self->host,
		'--port', $self->port,
		'--dir', $self->dir,
		'--logfile', $self->log_file);

	push @command, "--$_", $self->{conf}{$_} foreach sort keys %{ $self->{conf} };
	$self->run(@command);
	return;
}

sub answers
{
	my ($self) = @_;

	return $self->client->ping;
}

# Runs redis-cli with these arguments and returns what it prints, for people.
sub cli
{
	my ($self, @arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[ 'redis-cli', '-h', $self->host, '-p', $self->port, $self->_login, @arguments ],
		'<', \undef, '>', \$out, '2>', \$err)
	  or croak "redis-cli @arguments: $err$out";
	chomp $out;
	return $out;
}

# start_monitor(): all commands that Redis executes from now on are noted; what it
# returns ends that, and returns them, a line each as redis-cli shows them.
sub start_monitor
{
	my ($self) = @_;
	my $out = '';
	my $monitor = IPC::Run::start(
		[ 'redis-cli', '-h', $self->host, '-p', $self->port, $self->_login, 'MONITOR' ],
		'<', \undef, '>', \$out, '2>', '/dev/null');

	$monitor->pump until $out =~ /^OK$/m;
	return sub {
		my $mark = 'the end ' . rand;

		# It has come as far as this when it says so.
		$self->client->echo($mark);
		$monitor->pump until index($out, $mark) >= 0;
		$monitor->kill_kill;
		return split /\n/, $out;
	};
}

# A new connection: every Redis command is a method of it, values are bytes.
sub client
{
	my ($self) = @_;
	my $password = $self->{conf}{requirepass};

	return Redis->new(
		server => $self->host . ':' . $self->port,
		cnx_timeout => 5,
		read_timeout => 60,
		write_timeout => 60,
		defined $password ? (password => $password) : ());
}

# All entries of a stream, oldest first: {id, fields => {...}, names => [...]},
# with the names in the order of the entry.
sub xrange_all
{
	my ($self, $stream) = @_;
	my $client = $self->client;
	my ($start, @entries) = ('-');

	while (1)
	{
		my @page = $client->xrange($stream, $start, '+', 'COUNT', $PAGE);

		foreach my $entry (@page)
		{
			my ($id, $pairs) = @$entry;
			my @names = @$pairs[ grep { $_ % 2 == 0 } 0 .. $#$pairs ];

			push @entries, { id => $id, fields => {@$pairs}, names => \@names };
		}
		last if @page < $PAGE;
		$start = "($entries[-1]{id}";
	}
	return @entries;
}

sub log_content
{
	my ($self) = @_;

	return -e $self->log_file ? PostgreSQL::Test::Utils::slurp_file($self->log_file) : '';
}

sub _login
{
	my ($self) = @_;
	my $password = $self->{conf}{requirepass};

	return defined $password ? ('--no-auth-warning', '-a', $password) : ();
}

1;
