# Ways to bring events from PostgreSQL to a Redis stream, ours and what people
# use today: the same events, each with servers of its own, one after the other;
# and again with a transaction that holds back vacuum throughout.
#
# First a steady load, for latency and for what an event costs from its INSERT
# to Redis; then a backlog, for how fast it is drained and what that alone costs.
# A rival that is not installed is left out, and that is said.

use strict;
use warnings;

use Bench;
use Bench::Cost;
use Bench::Load;
use Bench::Rival::Debezium;
use Bench::Rival::Dispatch;
use Bench::Rival::Django;
use Bench::Rival::PgQ;
use Bench::Rival::Poller;
use DispatchTest;
use List::Util qw(max);
use Time::HiRes qw(sleep time);

my $STEADY_SECONDS = sized(1, 5, 10);
my $WARM_SECONDS = sized(1, 2, 2);
my $BACKLOG = sized(200, 100_000, 200_000);
my $DRAIN_SECONDS = sized(5, 5, 10);		# then it is cut short
my $TRANSACTION = sized(100, 1000, 1000);	# events of the backlog are published
my $CLIENTS = 8;
my $LATE_SECONDS = 10;						# for what is under way after the load
my $SETTLE_SECONDS = 0.5;					# for what is done after the last event
my $MILLION = 1_000_000;
my @held = sized([1], [ 0, 1 ], [ 0, 1 ])->@*;	# is a transaction open throughout?

my @METRICS = (
	[ drain_rate => 'backlog', 'events/s' ],
	[ drain_cpu => 'backlog, CPU', 's per million' ],
	[ p50 => 'steady, median', 'ms' ],
	[ p99 => 'steady, p99', 'ms' ],
	[ cpu => 'steady, CPU', 's per million' ],
	[ wal => 'steady, WAL', 'MB per million' ],
	[ tables => 'steady, tables', 'MB per million' ]);

# A transaction that has an xid and a snapshot, and keeps them.
sub hold_horizon
{
	my ($rival) = @_;
	my $holder = session($rival->node);

	$holder->begin_work;
	$holder->do('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
	$holder->do('SELECT pg_current_xact_id()');
	return $holder;
}

# Reads the stream while the load goes on, and until all of it is there.
# Returns the latencies in ms.
sub read_latencies
{
	my ($rival, $load) = @_;
	my $client = $rival->redis->client;
	my ($last, $expected, $deadline, @latencies) = ('0-0');

	until (defined $expected && (@latencies >= $expected || time > $deadline))
	{
		my $reply = $client->xread(
			'COUNT', 1000, 'BLOCK', 20, 'STREAMS', $rival->stream, $last);
		my $now = time;

		if ($reply)
		{
			foreach my $entry (@{ $reply->[0][1] })
			{
				my ($at) = "@{ $entry->[1] }" =~ /at\\*": (\d{16})/
				  or die "no time in @{ $entry->[1] }\n";

				push @latencies, 1000 * ($now - $at / $MILLION);
			}
			$last = $reply->[0][1][-1][0];
		}
		elsif (!defined $expected)
		{
			$load->{run}->pump_nb if $load->{run}->pumpable;
		}
		if (!defined $expected && !$load->{run}->pumpable)
		{
			(undef, $expected) = pgbench_end($load);
			$deadline = time + $LATE_SECONDS;
		}
	}
	say_progress(sprintf '%s: only %d of %d events were delivered in time',
		$rival->name, scalar @latencies, $expected) if @latencies < $expected;
	return @latencies;
}

sub start_load
{
	my ($rival, $seconds) = @_;

	return pgbench_start($rival->node, $rival->publish_sql(1),
		clients => $CLIENTS, seconds => $seconds, rate => $rival->rate,
		synchronous_commit => 'on');
}

sub measure_steady
{
	my ($rival, $result) = @_;

	my $whole = Bench::Cost->new($rival->node, $rival->pids);
	my @warm = read_latencies($rival, start_load($rival, $WARM_SECONDS));

	$rival->forget_delivered;

	my $cost = Bench::Cost->new($rival->node, $rival->pids);
	my @latencies = read_latencies($rival, start_load($rival, $STEADY_SECONDS));

	sleep $SETTLE_SECONDS;
	my %used = $cost->so_far;

	$result->{p50} = percentile(0.5, @latencies);
	$result->{p99} = percentile(0.99, @latencies);
	$result->{cpu} = $used{cpu} / @latencies * $MILLION;
	$result->{wal} = $used{wal} / @latencies;
	# From the first event on: a table is extended by many pages at once.  Where
	# all is deleted, vacuum may leave less than there was.
	%used = $whole->so_far;
	$result->{tables} = max(0, $used{tables} / (@warm + @latencies));
	return;
}

# Time counts from the first entry: a login is not measured.
sub measure_backlog
{
	my ($rival, $result) = @_;
	my ($first, $start, $delivered, $now);

	$rival->hold;
	$rival->forget_delivered;
	$rival->publish($TRANSACTION) foreach 1 .. $BACKLOG / $TRANSACTION;
	$rival->go_on;
	wait_until(sub { $rival->delivered > 0 }, $rival->name . ' delivers');

	my $cost = Bench::Cost->new($rival->node, $rival->pids);

	$first = $rival->delivered;
	$start = time;

	do
	{
		sleep 0.005;
		$delivered = $rival->delivered;
		$now = time;
	} until $delivered >= $BACKLOG || $now - $start > $DRAIN_SECONDS;
	my %used = $cost->so_far;

	# All of it before the first look: so it is for a tiny backlog.
	$first = 0 if $first >= $delivered;
	$result->{drain_rate} = ($delivered - $first) / ($now - $start);
	$result->{drain_cpu} = $used{cpu} / ($delivered - $first) * $MILLION;
	return;
}

sub measure
{
	my ($rival, $held) = @_;
	my %result;

	say_progress('measuring ' . $rival->name . ($held ? ', xmin held' : ''));
	$rival->set_up;
	my $holder = $held ? hold_horizon($rival) : undef;

	measure_steady($rival, \%result);
	measure_backlog($rival, \%result);
	$holder->rollback if $holder;
	$rival->tear_down;
	return \%result;
}

my @rivals = (
	[ 'Bench::Rival::Dispatch' ],
	[ 'Bench::Rival::Poller', done => 'delete', batch => 100 ],
	[ 'Bench::Rival::Poller', done => 'delete', batch => 1000 ],
	[ 'Bench::Rival::Poller', done => 'update', batch => 100 ],
	[ 'Bench::Rival::Poller', done => 'update', batch => 1000 ],
	[ 'Bench::Rival::PgQ' ],
	[ 'Bench::Rival::Django' ],
	[ 'Bench::Rival::Debezium' ]);
my @there;
my @cases;

foreach my $class_and_options (@rivals)
{
	my ($class, @options) = @$class_and_options;
	my @lacks = $class->lacks;
	my $rival = $class->new(@options);
	my $name = $rival->name;

	if (@lacks)
	{
		say_progress("rivals: $name is left out, for want of " . join ', ', @lacks);
		next;
	}
	push @there, $rival;
	push @cases, map {
		my $held = $_;
		("$name, $held" => sub { measure($class->new(@options), $held) })
	} @held;
}

my %runs = in_turns(sized(1, 1, 3), @cases);

# What a rival has of a metric, in all runs.
sub values_of
{
	my ($rival, $held, $key) = @_;

	return [ map { $_->{$key} } @{ $runs{ $rival->name . ", $held" } } ];
}

my ($we, @others) = @there;

foreach my $held (@held)
{
	foreach my $metric (@METRICS)
	{
		my ($key, $case, $unit) = @$metric;
		my %ours = (
			case => $case . ($held ? ', xmin held' : ''), unit => $unit,
			ours => values_of($we, $held, $key));

		record(%ours) unless @others;
		foreach my $other (@others)
		{
			record(
				%ours, counterpart => $other->name,
				theirs => values_of($other, $held, $key));
		}
	}
}
