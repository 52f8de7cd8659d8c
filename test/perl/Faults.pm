#
# Faults: where faults are tried: a server, a Redis that keeps what it has
# acknowledged, a proxy between the two, and the two ways to see what a fault
# has done.
#
# A drill is exact: a few events, one fault at a known place, and for each of
# the events the number of copies that must then be in the stream.  A storm is
# broad: the clients of a ledger publish while something is wrong, and the
# account must be right in the end (see Ledger.pm).
#
# The cases are made by Faults::Proxy, Faults::Calls, Faults::Broker and
# Faults::Server: lists of [name, what to do].  test/faults tries them all,
# test/t/070_faults.pl a few of them.
#
package Faults;

use strict;
use warnings;

use Carp;
use DispatchTest;
use Exporter qw(import);
use JSON::PP ();
use Ledger;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Strace;
use TcpProxy;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(run_cases pick_cases $SOCKET_SECONDS);

# How long Redis may be silent.
our $SOCKET_SECONDS = 1;

# Small, for a connection of a storm takes some of these with it: a chunk has what
# is in memory, and up to 500 events.
my $BATCH_SIZE = 5;

# A position is stored 0.1 s after it has moved.
my $SAVE_SECONDS = 0.2;

my $DRAIN_SECONDS = 30;
my $SETTLE_SECONDS = 60;
my $THINK_SECONDS = 0.1;
# Before a fault: the longest transaction of a client has its time.
my $PEACE_SECONDS = 1.5;

my $json = JSON::PP->new->utf8->allow_nonref;

# new(name, settings of the server): the backends "direct" and "proxied" are
# for drills, each with a stream of its own.  There are no retries: what loses an
# attempt is a dead letter.
sub new
{
	my ($class, $name, $settings) = @_;
	my $allow = Strace::allow_attach();
	my $redis = RedisServer->new(appendonly => 1);
	my $self = bless {
		name => $name, redis => $redis, n => 0, storms => 0,
		proxy => TcpProxy->new($redis->host, $redis->port) }, $class;

	$ENV{LD_PRELOAD} = $allow if defined $allow;
	$self->{seed} = $ENV{DISPATCH_FAULT_SEED} // time % 100_000;
	diag("$name: seed $self->{seed}");
	$self->{node} = new_cluster(
		$name, "max_prepared_transactions = 100\nlog_statement = none\n"
		  . "restart_after_crash = on\ndispatch.max_retries = 0\n" . ($settings // ''),
		extra => [ '--no-sync', '--encoding=UTF8' ]);
	$self->{node}->safe_psql('postgres', 'CREATE EXTENSION dispatch');
	$self->create_backend('direct', $self->{redis});
	$self->create_backend('proxied', $self->{proxy});
	# What comes before takes as many random numbers as it likes.
	srand($self->{seed});
	return $self;
}

sub create_backend
{
	my ($self, $name, $server) = @_;

	create_redis_backend(
		$self->{node}, $server, name => $name, stream_name => $name,
		connect_timeout => $SOCKET_SECONDS, socket_timeout => $SOCKET_SECONDS);
	$self->sql('UPDATE dispatch.backends SET batch_size = ? WHERE name = ?', $BATCH_SIZE, $name);
	return;
}

# A session that is opened again after a crash of the server.
sub session_now
{
	my ($self) = @_;

	wait_until(sub { $self->{session} = session($self->{node}) }, 'the server')
	  if !$self->{session} || !$self->{session}->ping;
	return $self->{session};
}

# Runs a statement, and returns its first row.
sub sql
{
	my ($self, $statement, @values) = @_;
	my $session = $self->session_now;

	return $session->selectrow_array($statement, undef, @values)
	  if $statement =~ /^\s*SELECT/;
	return $session->do($statement, undef, @values);
}

# ---- Drills

# Publishes that many events in a transaction.  Their commit is left to the
# worker to make durable, so they may be gone after a crash: what has been
# committed the database says in the end.
sub publish
{
	my ($self, $backend, $count) = @_;
	my $first = $self->{n} + 1;
	my $put = q(SELECT count(dispatch.publish('n', 's', to_jsonb(lpad(n::text, 9, '0')),
		backend => ?, key => 'k')) FROM generate_series(?::int, ?::int) AS n);

	$self->{n} += $count;
	$self->{drill_from} //= $first;
	# The worker may take the server down before this session is answered.
	eval {
		$self->sql('SET synchronous_commit = off');
		$self->sql($put, $backend, $first, $self->{n});
		1;
	} or $self->session_now;
	return;
}

# Waits until all is settled, and the worker no longer wary.  A back-off is cut
# short: to wait is not what is tested here.
sub settle
{
	my ($self, $backend) = @_;
	my $state = q(SELECT state FROM dispatch.backend_status WHERE name = ?);

	wait_until(
		sub {
			return $self->sql($state, $backend) eq 'running'
			  if $self->sql(q(SELECT dispatch.flush('100ms', ?)), $backend);
			$self->sql('SELECT dispatch.resume_backend(?)', $backend);
			return 0;
		},
		"delivery to $backend", $SETTLE_SECONDS);
	return;
}

# A crash takes the positions with it that are not stored or not in the WAL yet:
# lets that happen first, so that only the drill comes again.
sub make_durable
{
	my ($self) = @_;

	sleep $SAVE_SECONDS;
	$self->sql('SET synchronous_commit = on');
	$self->sql('CREATE TEMP TABLE IF NOT EXISTS a_commit ()');
	$self->sql('DROP TABLE a_commit');
	return;
}

# Empties the stream of a backend and compares it with what the drill has
# committed: all of it and nothing else, the first copies in order, every copy
# with the same id, and as many copies of each as a function says of their
# number.
sub check_drill
{
	my ($self, $backend, $what, $accept) = @_;
	my $committed = $self->session_now->selectcol_arrayref(
		q(SELECT (data #>> '{}')::int AS n FROM dispatch.events
		  WHERE backend = ? AND (data #>> '{}')::int >= ? ORDER BY n),
		undef, $backend, delete $self->{drill_from});
	my (%copies, %id, @order, @wrong);

	foreach my $entry ($self->{redis}->xrange_all($backend))
	{
		my $n = 0 + $json->decode($entry->{fields}{cloud_event})->{data};

		push @order, $n if !$copies{$n}++;
		$id{$n} //= $entry->{fields}{event_id};
		push @wrong, "event $n has two ids" if $id{$n} ne $entry->{fields}{event_id};
	}
	$self->{redis}->client->del($backend);
	push @wrong, "came @order instead of @$committed" if "@order" ne "@$committed";
	push @wrong, map { "event $_ came $copies{$_} times" } grep { !$accept->($copies{$_}) } @order;
	is_deeply(\@wrong, [], $what);
	return;
}

# ---- Storms

# storm(name, fault, args): the fault is done while clients publish, and returns
# how many connections it has harmed at the most; returns the name of the run.
# args: via (proxy or redis), crashes (the server goes down), duplicates (more of
# them than that), ordering (of the backend)
sub storm
{
	my ($self, $name, $fault, %args) = @_;
	my $backend = 'storm' . ++$self->{storms};
	my $ordering = $args{ordering} // 'key';
	my ($run, $harmed, $report, $bound);

	$self->create_backend($backend, $self->{ $args{via} // 'proxy' });
	$self->sql('UPDATE dispatch.backends SET ordering = ? WHERE name = ?', $ordering, $backend);
	$run = Ledger->new(
		name => $backend, backend => $backend, seed => $self->{seed}, think => $THINK_SECONDS,
		dsn => $self->{node}->connstr('postgres'), dir => PostgreSQL::Test::Utils::tempdir());
	$run->start;
	sleep $PEACE_SECONDS;
	$harmed = $fault->($backend);
	$self->{proxy}->set('pass');
	sleep $PEACE_SECONDS;
	$run->stop;
	ok($run->drain($DRAIN_SECONDS), "$name: flush() says that all is settled");
	$report = $run->report(
		[ map { $_->{fields} } $self->{redis}->xrange_all($backend) ],
		crashes => $args{crashes}, strict => $ordering eq 'strict');
	report_ok($report, $name);
	$bound = most_copies($harmed, $BATCH_SIZE) + ($args{duplicates} // 0);
	cmp_ok($report->{duplicates}, '<=', $bound, "$name: duplicates");
	is($self->sql('SELECT count(*) FROM dispatch.dead_letters'), 0, "$name: no dead letters");
	diag("$name: $report->{events} events, $report->{duplicates} duplicates, $harmed harmed");
	$self->sql('SELECT dispatch.drop_backend(?)', $backend);
	$self->{redis}->client->del($backend);
	return $backend;
}

# ---- Cases

# Runs them one after the other; what ends in an error is a failure, and leaves
# nothing behind that the next one could rely on.
sub run_cases
{
	my (@cases) = @_;

	foreach my $case (@cases)
	{
		my ($name, $run) = @$case;
		my $started = time;

		note("--- $name");
		last if !eval { $run->($name); 1 } && !fail("$name: $@");
		note(sprintf '--- %s took %.1f s', $name, time - $started);
	}
	return;
}

sub pick_cases
{
	my ($count, @cases) = @_;
	my @some = shuffle @cases;

	return @some[ 0 .. ($count < @some ? $count : @some) - 1 ];
}

# The log has no complaint, but about what a test has done: processes killed
# (kill9) and WAL that could not be written (panics).
sub check_log
{
	my ($self, %args) = @_;
	my @complaints = log_complaints(slurp_file($self->{node}->logfile), %args);

	@complaints = grep { !/PANIC:  could not (?:write|fsync|fdatasync)|by signal 6\b/ } @complaints
	  if $args{panics};
	is_deeply(\@complaints, [], "$self->{name}: the server log has no complaint");
	return;
}

1;
