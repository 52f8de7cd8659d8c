#
# DispatchTest: what the TAP tests of dispatch share.
#
#     use DispatchTest;
#
#     my $node = new_cluster('main', "dispatch.sleep_time = '1h'");
#     my $redis = RedisServer->new;
#     ...
#     wait_until(sub { $redis->xrange_all('events') == 3 }, 'three entries');
#
# Every backend for Redis has a password that must not be seen: see Canary.pm.
#
package DispatchTest;

use strict;
use warnings;

use Carp;
use DBD::Pg ();
use DBI ();
use Exporter 'import';
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Canary;
use RedisServer;

our @EXPORT = qw(
  new_cluster wait_until
  canary
  session wait_for_session value_of create_redis_backend stream_data
  backend_state wait_for_state backend_pid process_ids
  log_position log_lines log_ok
  cpu_seconds calm_ok
  silent_listener full_listener);

my $POLL_SECONDS = 0.02;

# While nothing can be done: how long to look, what share of a core all of our
# processes may take, and how many lines the log may get.
my $CALM_SECONDS = 1.5;
my $CALM_CPU = 0.25;
my $CALM_LINES = 10;

# A signal ends the test through its END blocks, which stop the servers.
$SIG{TERM} = $SIG{INT} = sub { die "ended by a signal\n" };

# new_cluster(name, settings, parameters of init): a running cluster that
# dispatch is loaded into; the extension is not created.
sub new_cluster
{
	my ($name, $settings, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => ['--no-sync'], %init);
	$node->append_conf('postgresql.conf', slurp_file('test/server.conf'));
	$node->append_conf('postgresql.conf', $settings) if defined $settings;
	$node->start;
	return canary_watch($node);
}

# wait_until(condition, what, seconds): polls until the condition holds, and
# ends the test if it does not in time.  A condition that dies is not met yet:
# it may ask a server that is on its way.
sub wait_until
{
	my ($condition, $what, $seconds) = @_;
	my $deadline = time + ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	until (eval { $condition->() })
	{
		my $error = $@;

		croak "timed out waiting for: $what" . ($error && " ($error)") if time > $deadline;
		sleep $POLL_SECONDS;
	}
	return;
}

# ---- Sessions and backends

# session(node, database): a connection that is kept, in autocommit.
sub session
{
	my ($node, $database) = @_;

	return DBI->connect(
		'dbi:Pg:' . $node->connstr($database // 'postgres'),
		undef, undef, { RaiseError => 1, PrintError => 0, AutoInactiveDestroy => 1 });
}

# The same when the server is there again.
sub wait_for_session
{
	my ($node, $database) = @_;
	my $session;

	wait_until(sub { $session = session($node, $database); $session->ping }, 'a connection');
	return $session;
}

# value_of(session, query, arguments): the first column of the first row.
sub value_of
{
	my ($session, $query, @arguments) = @_;

	return scalar $session->selectrow_array($query, undef, @arguments);
}

# create_redis_backend(node, redis, name => ..., database => ..., options):
# options of the transport come on top of the address and a login that Redis
# lets in.
sub create_redis_backend
{
	my ($node, $redis, %options) = @_;
	my $name = delete $options{name} // 'default';
	my $database = delete $options{database};

	session($node, $database)->do(
		'SELECT dispatch.create_backend(?, ?, ?)', undef, $name, 'redis',
		JSON::PP->new->allow_nonref->encode(
			{
				host => $redis->host, port => 0 + $redis->port,
				exists $options{password} ? () : (username => 'default', password => canary()),
				%options }));
	return;
}

# The data of the CloudEvents in a stream, oldest first.  It is the last member;
# to decode it alone is much faster.
sub stream_data
{
	my ($redis, $stream) = @_;
	my $json = JSON::PP->new->utf8->allow_nonref;

	return
	  map { $_->{fields}{cloud_event} =~ /, "data": (.*)}\z/s ? $json->decode($1) : undef }
	  $redis->xrange_all($stream // 'events');
}

# The state of a backend, in the words of dispatch.backend_status.
sub backend_state
{
	my ($node, $name, $database) = @_;

	return session($node, $database)
	  ->selectrow_array('SELECT state FROM dispatch.backend_status WHERE name = ?', undef, $name);
}

sub wait_for_state
{
	my ($node, $name, $state, $database) = @_;
	my $query = q(SELECT state FROM dispatch.backend_status WHERE name = ?);
	my ($session, $seen);

	eval {
		wait_until(
			sub {
				# A new one after an error: the server may have been restarted.
				$session = session($node, $database) unless $session && $session->ping;
				$seen = $session->selectrow_array($query, undef, $name);
				return defined $seen && $seen eq $state;
			},
			"state $state of backend $name", 30);
		1;
	} or croak $@ . 'its state is ' . ($seen // 'unknown');
	return;
}

# The worker of a backend; undef when it has none.
sub backend_pid
{
	my ($node, $name, $database) = @_;

	return session($node, $database)
	  ->selectrow_array('SELECT pid FROM dispatch.backend_status WHERE name = ?', undef, $name);
}

# Processes of ours: of a kind ('launcher', 'manager', 'worker'), maybe only
# those in a database.
sub process_ids
{
	my ($node, $kind, $database) = @_;

	return @{
		session($node)->selectcol_arrayref(
			'SELECT pid FROM pg_stat_activity WHERE backend_type = ?'
			  . ' AND (datname = ? OR ?::text IS NULL)',
			undef, "dispatch $kind", $database, $database) };
}

# ---- The server log

# Where it ends now.
sub log_position
{
	my ($node) = @_;

	return -s $node->logfile;
}

# Its lines since then that match.
sub log_lines
{
	my ($node, $pattern, $position) = @_;

	return grep { $_ =~ $pattern } split /\n/, slurp_file($node->logfile, $position // 0);
}

# A server that worked as it should: none of it crashed, and nothing else that
# matches has been said, which is no warning unless told otherwise.
sub log_ok
{
	my ($node, $pattern) = @_;
	my $bad = $pattern // qr/WARNING/;

	is_deeply(
		[
			# a client that has left is nobody's fault
			grep { !/could not send data to client/ }
			  log_lines($node, qr/PANIC:|TRAP:|terminated by signal|WARNING:.*leak|$bad/)
		],
		[], 'the log of server "' . $node->name . '" has no complaint');
	return;
}

# ---- What the processes take

# Seconds that processes have been on a CPU so far.
sub cpu_seconds
{
	my $ticks = 0;

	foreach my $pid (@_)
	{
		my ($fields) = slurp_file("/proc/$pid/stat") =~ /\) (.*)/;

		$ticks += $_ foreach (split / /, $fields)[ 11, 12 ];
	}
	return $ticks / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}

# None of our processes runs hot, and they say little.
sub calm_ok
{
	my ($node, $what) = @_;
	my @pids = map { process_ids($node, $_) } qw(launcher manager worker);
	my ($before, $position) = (cpu_seconds(@pids), log_position($node));

	sleep $CALM_SECONDS;
	cmp_ok((cpu_seconds(@pids) - $before) / $CALM_SECONDS, '<', $CALM_CPU, "$what: nobody runs hot");
	cmp_ok(scalar(log_lines($node, qr/\[\d+\] \w+:/, $position)), '<', $CALM_LINES,
		"$what: nor talks much");
	return;
}

# ---- Brokers that never answer

# A socket on which the kernel accepts connections that nobody serves.
sub silent_listener
{
	my $listener = IO::Socket::INET->new(
		Listen => 128, LocalAddr => '127.0.0.1', Proto => 'tcp') or croak "listen: $!";

	return $listener;
}

# A socket whose queue is full: the kernel drops whoever else wants to connect,
# as if the host were not there.  Returns the socket, and what fills the queue.
sub full_listener
{
	my $listener = IO::Socket::INET->new(
		Listen => 1, LocalAddr => '127.0.0.1', Proto => 'tcp') or croak "listen: $!";

	listen $listener, 0 or croak "listen: $!";
	return (
		$listener,
		map {
			IO::Socket::INET->new(
				PeerAddr => '127.0.0.1', PeerPort => $listener->sockport,
				Proto => 'tcp', Blocking => 0)
		} 1 .. 8);
}

1;
