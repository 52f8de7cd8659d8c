# Ledger.pm: a run of concurrent publishers and the account of it.
#
#	my $run = Ledger->new(name => 'calm', dsn => $dsn, backend => 'default',
#		dir => $directory, clients => 8, seed => 1);
#	$run->start;
#	...				# let them work; break things
#	$run->stop;			# they finish what they have begun
#	...				# wait until all is delivered
#	my $report = $run->report(\@entries);
#	report_ok($report, 'calm');
#
# The clients are processes, see Ledger::Publisher; what they do is made up by
# Ledger::Plan; what comes of it is judged by Ledger::Checker.

package Ledger;

use strict;
use warnings;

use DBD::Pg ();
use DBI ();
use Exporter qw(import);
use JSON::PP ();
use Ledger::Checker;
use Ledger::Plan;
use Ledger::Publisher;
use POSIX qw(WNOHANG _exit);
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(report_ok most_copies copies_ok log_complaints);

# A client may have to wait for the server, and decide what it has prepared.
my $STOP_SECONDS = 240;

my $SCHEMA = <<'SQL';
CREATE SCHEMA IF NOT EXISTS ledger;
CREATE TABLE IF NOT EXISTS ledger.counters (
	run text, key text, n bigint NOT NULL DEFAULT 0, PRIMARY KEY (run, key));
CREATE TABLE IF NOT EXISTS ledger.events (
	run text, client int, txn int, seq int, key text, n bigint, event_id uuid NOT NULL,
	PRIMARY KEY (run, client, txn, seq));
SQL

# What a worker may have with its transport at once; with Redis that is a chunk,
# which may be smaller.
my $BATCHES_IN_FLIGHT = 8;

# Of a report
my @COUNTS = qw(transactions events entries duplicates sessions_lost async_lost);

# In a server log; "signal 9" is looked at apart, for it may be ours.  An ERROR
# right after the pid (the prefix names the application of a session there) is
# one of a background process.
my $BAD_LOG = qr/
	PANIC: | TRAP: | terminated\ by\ signal\ (?!9\b) | deadlock\ detected | WARNING:.*leak
	| \[\d+\]\ ERROR:\s+(?!canceling\ autovacuum)/x;

# args: name, dsn (libpq's), backend, dir, clients, seed, async (share of
# transactions without synchronous_commit), think (seconds at most that a client
# waits between two transactions)
sub new
{
	my ($class, %args) = @_;

	return bless {
		clients => 8, seed => 1, async => 0.15, think => 0.01, %args,
		pids => {}, error => [] }, $class;
}

sub _connect
{
	my ($self) = @_;

	return DBI->connect(
		"dbi:Pg:$self->{dsn}", undef, undef,
		{ RaiseError => 1, PrintError => 0, pg_enable_utf8 => 1, AutoInactiveDestroy => 1 });
}

sub _file
{
	my ($self, $client) = @_;

	return "$self->{dir}/$self->{name}.$client.ledger";
}

# Creates the tables and starts the clients.
sub start
{
	my ($self) = @_;
	my $dbh = $self->_connect;

	$dbh->do("SET client_min_messages = 'warning'");
	$dbh->do($SCHEMA);
	$dbh->do('INSERT INTO ledger.counters (run, key) VALUES (?, ?)', undef, $self->{name}, $_)
	  foreach Ledger::Plan::shared_keys();
	$dbh->disconnect;
	note("run $self->{name}: $self->{clients} clients, seed $self->{seed}");
	$self->_start_client($_) foreach 1 .. $self->{clients};
}

sub _start_client
{
	my ($self, $client) = @_;
	my $stop = 0;
	local $SIG{TERM} = sub { $stop = 1 };
	my $pid = fork // die "cannot fork: $!\n";

	if ($pid)
	{
		$self->{pids}{$pid} = $client;
		return;
	}

	# Nothing of the test may happen twice: no END block, no DESTROY.
	$SIG{INT} = 'DEFAULT';
	my $done = eval {
		Ledger::Publisher->new(
			(map { $_ => $self->{$_} } qw(seed async dsn backend think)),
			run => $self->{name}, client => $client, file => $self->_file($client))->run(\$stop);
		1;
	};
	print STDERR "# client $client: $@" if !$done;
	_exit($done ? 0 : 1);
}

# Tells the clients to finish, and waits for them.
sub stop
{
	my ($self) = @_;
	my $pids = $self->{pids};
	my $deadline = time + $STOP_SECONDS;

	kill 'TERM', keys %$pids;
	while (%$pids && time < $deadline)
	{
		sleep 0.05;
		$self->_reap($_, WNOHANG) foreach keys %$pids;
	}
	foreach my $pid (keys %$pids)
	{
		push @{ $self->{error} }, "client $pids->{$pid} did not finish";
		kill 'KILL', $pid;
		$self->_reap($pid, 0);
	}
}

sub _reap
{
	my ($self, $pid, $flags) = @_;
	my $client = $self->{pids}{$pid};

	return if waitpid($pid, $flags) == 0;
	delete $self->{pids}{$pid};
	push @{ $self->{error} }, "client $client ended with status $?" if $?;
}

# Waits until all that was committed is delivered; false if it takes longer than
# the seconds given.  Then it waits once more as long, without flush(): what is
# missing afterwards is lost, not late.
sub drain
{
	my ($self, $seconds) = @_;
	my $dbh = $self->_connect;
	my $deadline = time + 2 * $seconds;
	my ($flushed) = $dbh->selectrow_array(
		'SELECT dispatch.flush(make_interval(secs => ?), ?)', undef, $seconds, $self->{backend});
	my $pending = $flushed ? 0 : 1;

	while ($pending && time < $deadline)
	{
		sleep 0.2;
		($pending) = $dbh->selectrow_array(
			'SELECT pending FROM dispatch.backend_status WHERE name = ?', undef, $self->{backend});
	}
	$dbh->disconnect;
	return $flushed;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $!, $@);

	$self->_reap($_, 0) foreach grep { kill 'KILL', $_ } keys %{ $self->{pids} };
}

# args of the report beside the entries (hashes of fields, as bytes): crashes,
# see Ledger::Checker
sub report
{
	my ($self, $entries, %args) = @_;
	my $dbh = $self->_connect;
	my $committed = $dbh->selectall_arrayref(
		'SELECT client, txn, seq, key, n, event_id FROM ledger.events WHERE run = ?',
		{ Slice => {} }, $self->{name});

	$dbh->disconnect;
	my $report = Ledger::Checker::check_run(
		run => $self->{name}, ledger => $self->_read_files, committed => $committed,
		stream => $entries, %args);
	push @{ $report->{error} }, @{ $self->{error} };
	return $report;
}

sub _read_files
{
	my ($self) = @_;
	my $json = JSON::PP->new->utf8;
	my @lines;

	foreach my $client (1 .. $self->{clients})
	{
		open my $in, '<', $self->_file($client) or die $self->_file($client) . ": $!\n";
		push @lines, map { $json->decode($_) } <$in>;
		close $in;
	}
	return \@lines;
}

# Tests that a report has no defect, and that the run was worth its name: every
# kind of transaction was committed (or rolled back, if that is what it does).
sub report_ok
{
	my ($report, $name) = @_;
	my $kinds = $report->{kinds};

	foreach my $defect (@Ledger::Checker::DEFECTS)
	{
		my ($key, $title) = @$defect;
		my @found = @{ $report->{$key} };

		is(scalar @found, 0, "$name: $title");
		splice @found, 10 if @found > 10;
		diag("$key: $_") foreach @found;
	}
	cmp_ok($report->{events}, '>', 0, "$name: events were committed");
	foreach my $kind (@Ledger::Plan::KINDS)
	{
		my $outcome = $kind eq 'rollback' ? 'fail' : 'ok';

		cmp_ok($kinds->{$kind}{$outcome} // 0, '>', 0, "$name: kind $kind came to \"$outcome\"");
	}
	note("$name: " . join(', ', map { "$report->{$_} $_" } @COUNTS));
	note("$name: $report->{histogram}{$_} events came $_ times")
	  foreach sort { $a <=> $b } keys %{ $report->{histogram} };
	return;
}

# How many copies so many lost connections, or lost workers, make at the most.
sub most_copies
{
	my ($faults, $batch_size) = @_;

	return $faults * $BATCHES_IN_FLIGHT * $batch_size;
}

# Tests that a run has no more of them.
sub copies_ok
{
	my ($report, $name, $faults, $batch_size) = @_;

	note("$name: $report->{events} events, $report->{duplicates} copies, $faults faults");
	cmp_ok($report->{duplicates}, '<=', most_copies($faults, $batch_size),
		"$name: copies of what was in flight at $faults faults, and no more");
	return;
}

# The lines of a server log that no run may leave; kill9: ours are in there.
sub log_complaints
{
	my ($log, %args) = @_;
	my @lines = grep { /$BAD_LOG/ } split /\n/, $log;

	push @lines, grep { /terminated by signal 9\b/ } split /\n/, $log if !$args{kill9};
	return @lines;
}

1;
