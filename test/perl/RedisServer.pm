#
# RedisServer: a Redis server of a test's own.
#
# It runs on a free port in a directory of its own, as a child that the test can
# stop, kill, freeze and start again on the same port, and it ends with the
# test, however that ends.  A server that does not come up ends the test: a
# broker that is missing is a failure, never a skip.
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
use POSIX ();
use Test::More ();
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Redis;

my $START_SECONDS = 20;
my $STOP_SECONDS = 10;
my $PAGE = 10_000;				# entries that xrange_all reads at once

my @all_servers;

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
	my $self = bless {
		port => PostgreSQL::Test::Cluster::get_free_port(),
		dir => PostgreSQL::Test::Utils::tempdir('redis'),
		conf => \%conf,
		pid => undef }, $class;

	push @all_servers, $self;
	$self->start;
	return $self;
}

sub host { return '127.0.0.1'; }
sub port { return $_[0]->{port}; }
sub pid { return $_[0]->{pid}; }
sub dir { return $_[0]->{dir}; }
sub log_file { return "$_[0]->{dir}/redis.log"; }

# Starts it, again on the same port and with what its files hold.
sub start
{
	my ($self) = @_;
	my $deadline = time + $START_SECONDS;
	my @command = (
		'redis-server',
		'--bind', $self->host,
		'--port', $self->port,
		'--dir', $self->dir,
		'--logfile', $self->log_file);

	croak 'the Redis server is running already' if $self->{pid};
	push @command, "--$_", $self->{conf}{$_} foreach sort keys %{ $self->{conf} };

	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		# POSIX::_exit: a failed exec must not run the END blocks of the test.
		open STDOUT, '>>', $self->log_file;
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	$self->{pid} = $pid;

	until (eval { $self->client->ping })
	{
		my $error = $@;

		if (waitpid($pid, POSIX::WNOHANG()) == $pid)
		{
			$self->{pid} = undef;
			Test::More::BAIL_OUT('redis-server ended: ' . $self->log_content);
		}
		Test::More::BAIL_OUT("redis-server is not up: $error") if time > $deadline;
		sleep 0.02;
	}
	return;
}

# Stops it in an orderly way.
sub stop
{
	my ($self) = @_;

	return unless $self->{pid};
	$self->sigcont;
	$self->_end('TERM');
	return;
}

# Kills it, as a machine that loses power would.
sub kill9
{
	my ($self) = @_;

	$self->_end('KILL') if $self->{pid};
	return;
}

sub restart
{
	my ($self) = @_;

	$self->stop;
	$self->start;
	return;
}

# A frozen server: connections are accepted by the kernel, nothing is answered.
sub sigstop
{
	my ($self) = @_;

	kill 'STOP', $self->{pid} or croak "kill: $!";
	return;
}

sub sigcont
{
	my ($self) = @_;

	kill 'CONT', $self->{pid} or croak "kill: $!";
	return;
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

# Signals it and waits for its end, which KILL brings about if need be.
sub _end
{
	my ($self, $signal) = @_;
	my $pid = $self->{pid};
	my $deadline = time + $STOP_SECONDS;

	$self->{pid} = undef;
	kill $signal, $pid;
	until (waitpid($pid, POSIX::WNOHANG()) != 0)
	{
		kill 'KILL', $pid if time > $deadline;
		sleep 0.01;
	}
	return;
}

END
{
	# waitpid changes it, and it is the result of the test.
	my $exit_code = $?;

	$_->kill9 foreach @all_servers;
	$? = $exit_code;
}

1;
