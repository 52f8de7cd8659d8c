#
# KafkaBench: a server and a Kafka, between which things go wrong, and the
# account of what that has done: all that was published has arrived, nothing
# else, in the order of the keys, and it has cost no event an attempt.
#
#     my $bench = KafkaBench->new('faults', nodes => 3);
#     $bench->new_backend('away', partitions => 3);
#     $bench->kafka->stop;
#     $bench->publish('away', 50);
#     $bench->kafka->start;
#     $bench->all_there_ok('away', 'started again', 1);
#
package KafkaBench;

use strict;
use warnings;

use DispatchTest;
use KafkaBackend;
use Ledger;
use PostgreSQL::Test::Utils;
use TcpProxy;
use Test::More;
use Time::HiRes qw(sleep time);

my $SETTLE_SECONDS = 120;
my $KEYS = 5;

# Retries at once, and none of them: what loses an attempt is a dead letter.
my $SETTINGS = <<'END';
max_prepared_transactions = 100
log_statement = none
dispatch.retry_delay = '200 ms'
dispatch.max_retries = 0
END

# new(name, arguments of KafkaServer, proxied => 1): with a proxy in front of
# Kafka, one node has a listener that is reached by the proxy alone.
sub new
{
	my ($class, $name, %args) = @_;
	my $proxied = delete $args{proxied};
	my $kafka = KafkaServer->new(
		%args, start => 0, listeners => $proxied ? { PROXIED => 'PLAINTEXT' } : {});
	my $self = bless {
		kafka => $kafka, published => {}, seed => $ENV{DISPATCH_STRESS_SEED} // time % 100_000
	}, $class;

	if ($proxied)
	{
		$self->{proxy} = TcpProxy->new($kafka->host, $kafka->port('PROXIED'));
		$kafka->advertise('PROXIED', $self->{proxy}->port);
	}
	$kafka->start;
	$self->{node} = new_cluster($name, $SETTINGS, extra => [ '--no-sync', '--encoding=UTF8' ]);
	$self->sql('CREATE EXTENSION dispatch');
	return $self;
}

sub kafka { return $_[0]->{kafka}; }
sub node { return $_[0]->{node}; }
sub proxy { return $_[0]->{proxy}; }

# Runs a statement, and returns the first column of its first row.
sub sql
{
	my ($self, $statement, @values) = @_;
	my $session = session($self->{node});

	return $session->do($statement, undef, @values) if $statement !~ /^\s*SELECT/;
	return scalar $session->selectrow_array($statement, undef, @values);
}

sub status
{
	my ($self, $backend, $column) = @_;

	return $self->sql(
		"SELECT $column FROM dispatch.backend_status WHERE name = ?", $backend);
}

sub dead_letters { return $_[0]->sql('SELECT count(*) FROM dispatch.dead_letters'); }

# new_backend(name, partitions => 3, replication => 1, topic_config => {...},
# via_proxy => 1, batch_size => 20, options of the backend): with a topic of its
# own, of the same name.
sub new_backend
{
	my ($self, $name, %options) = @_;
	my $proxy = delete $options{via_proxy} ? $self->{proxy} : undef;
	my $batch_size = delete $options{batch_size};
	my %topic = (
		partitions => delete $options{partitions} // 3,
		replication => delete $options{replication} // 1,
		config => delete $options{topic_config} // {});

	$self->{kafka}->create_topic($name, %topic);
	create_kafka_backend(
		$self->{node}, $self->{kafka}, name => $name, topic => $name, %options,
		$proxy ? (bootstrap_servers => $proxy->host . ':' . $proxy->port) : ());
	$self->sql('UPDATE dispatch.backends SET batch_size = ? WHERE name = ?', $batch_size, $name)
	  if defined $batch_size;
	return;
}

# ---- Numbered events

# publish(backend, count): events with rising numbers, the first of a backend is
# 1; their keys go round.
sub publish
{
	my ($self, $backend, $count) = @_;

	$self->sql(
		q(SELECT count(dispatch.publish('n', 's', to_jsonb(? + n), backend => ?,
			key => 'k' || (? + n) % ?)) FROM generate_series(1, ?) AS n),
		$self->published($backend), $backend, $self->published($backend), $KEYS, $count);
	$self->{published}{$backend} += $count;
	return;
}

# How many were.
sub published { return $_[0]->{published}{ $_[1] } // 0; }

sub in_flight
{
	my ($self, $backend) = @_;

	wait_until(sub { $self->status($backend, 'in_flight') > 0 }, "events of $backend in flight");
	return;
}

# Waits until all is settled, also what had to be tried again.
sub settle
{
	my ($self, $backend, $what) = @_;

	wait_until(
		sub {
			$self->sql(q(SELECT dispatch.flush('5 s', ?)), $backend)
			  && $self->status($backend, 'pending') == 0;
		},
		"$what: all is settled", $SETTLE_SECONDS);
	return;
}

# all_there_ok(backend, what, exactly once?): the topic has all that was
# published, and nothing else; the first copies in the order of their keys.
sub all_there_ok
{
	my ($self, $backend, $what, $once) = @_;
	my $most = $self->published($backend);
	my (%copies, %last, @wrong);

	$self->settle($backend, $what);
	foreach my $n (topic_data($self->{kafka}, $backend))
	{
		my $key = $n % $KEYS;

		next if $copies{$n}++;
		push @wrong, "$n came after $last{$key}" if ($last{$key} // 0) > $n;
		$last{$key} = $n;
	}
	push @wrong, map { "$_ did not come" } grep { !$copies{$_} } 1 .. $most;
	push @wrong, map { "$_ is none of ours" } grep { $_ > $most } keys %copies;
	push @wrong, map { "$_ came $copies{$_} times" } grep { $once && $copies{$_} > 1 } keys %copies;
	is_deeply(\@wrong, [], $once ? "$what: all, once, and in order" : "$what: all, and in order");
	is($self->dead_letters, 0, "$what: no event has lost an attempt, the one that it has");
	return;
}

# ---- Ledgers

# start_run(name, options of new_backend): clients publish to a new backend.
sub start_run
{
	my ($self, $name, %options) = @_;
	my $run;

	$self->new_backend($name, %options);
	$run = Ledger->new(
		name => $name, backend => $name, seed => $self->{seed},
		dsn => $self->{node}->connstr('postgres'), dir => PostgreSQL::Test::Utils::tempdir());
	$run->start;
	return $run;
}

# Ends it, and returns the report, in which there is nothing wrong.
sub finish_run
{
	my ($self, $run) = @_;
	my $report;

	$run->stop;
	$self->settle($run->{name}, $run->{name});
	$report = $run->report([ ledger_entries($self->{kafka}, $run->{name}) ]);
	report_ok($report, $run->{name});
	is($self->dead_letters, 0, "$run->{name}: no dead letters");
	return $report;
}

# Ends the bench; the log has no complaint.
sub finish
{
	my ($self) = @_;

	is_deeply([ log_complaints(slurp_file($self->{node}->logfile)) ],
		[], 'the server log has no complaint');
	$self->{node}->stop;
	return;
}

1;
