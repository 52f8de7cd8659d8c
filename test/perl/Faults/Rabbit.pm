#
# Faults::Rabbit: drills with a broker that speaks AMQP and misbehaves.
#
# In each, some events of one key are published, something goes wrong once or
# for a while, and then the broker behaves.  Whatever it was: what counts as
# published is what the broker has stored, all events are stored in the end, the
# first copies in order, and the worker has survived.
#
package Faults::Rabbit;

use strict;
use warnings;

use DispatchTest;
use FakeRabbit;
use JSON::PP ();
use List::Util qw(uniq);
use TcpProxy;
use Test::More;
use Time::HiRes qw(sleep time);

my $SETTLE_SECONDS = 60;
my $MEET_SECONDS = 30;
my $EVENTS = 20;
my $POISON = 'poison';

my %PATIENCE = (connect_timeout => 1, socket_timeout => 1, heartbeat => 1);

# What is said instead of what is due; see fake_amqp.py.
my @SAYINGS = qw(
  close half nothing stall http tls_alert zeros ones other_version unknown_frame oversized_frame
  huge_frame bad_end no_method half_method unknown_method unknown_method_of_channel
  method_out_of_turn other_channel body_from_nowhere header_from_nowhere return_without_header
  return_with_endless_body return_with_header_cut_off ack_cut_off start_with_endless_table
  start_with_deep_table start_without_plain close_with_strange_text close_with_broken_text
  close_of_unknown_code channel_close_of_unknown_code blocked_for_ever heartbeats
  heartbeat_with_payload);

sub new
{
	my ($class, $name) = @_;
	my $self = bless {
		name => $name, fake => FakeRabbit->new,
		node => new_cluster($name, "log_statement = none\ndispatch.sleep_time = '1h'") }, $class;
	my $session = $self->{session} = session($self->{node});

	$self->{proxy} = TcpProxy->new($self->{fake}->host, $self->{fake}->port);
	$session->do('CREATE EXTENSION dispatch');
	foreach ('direct', 'proxied')
	{
		my $port = $self->{ $_ eq 'direct' ? 'fake' : 'proxy' }->port;

		$session->do(
			'SELECT dispatch.create_backend(?, ?, ?)', undef, $_, 'rabbitmq',
			JSON::PP->new->encode({
				host => '127.0.0.1', port => 0 + $port, envelope => 'data', exchange => 'x',
				%PATIENCE }));
	}
	$self->_wait_for_workers;
	return $self;
}

sub _wait_for_workers
{
	my ($self) = @_;

	foreach my $backend ('direct', 'proxied')
	{
		wait_until(
			sub { $self->{worker}{$backend} = backend_pid($self->{node}, $backend) },
			"the worker of $backend", $MEET_SECONDS);
	}
	return;
}

sub sql
{
	my ($self, $query, @values) = @_;

	return scalar $self->{session}->selectrow_array($query, undef, @values);
}

# Sets a column of its row.
sub set_backend
{
	my ($self, $backend, $column, $value) = @_;

	$self->{session}->do(
		"UPDATE dispatch.backends SET $column = ? WHERE name = ?", undef, $value, $backend);
	return;
}

# Publishes that many events in a transaction; their ids, in order.
sub publish
{
	my ($self, $backend, $count, $type, $data) = @_;

	return @{
		$self->{session}->selectcol_arrayref(
			q(SELECT dispatch.publish(?, 's', ?, backend => ?, key => ?)
			  FROM generate_series(1, ?)),
			undef, $type // 'n', $data // 1, $backend, $type // 'k', $count) };
}

# Events that count as published are stored: that is what the broker says.
sub check_published
{
	my ($self, $what, @ids) = @_;
	my $published = $self->{session}->selectcol_arrayref(
		q(SELECT event_id FROM dispatch.events
		  WHERE status = 'published' AND event_id = ANY (?)), undef, \@ids);
	my %stored = map { $_ => 1 } $self->{fake}->stored;

	is_deeply([ grep { !$stored{$_} } @$published ], [],
		"$what: nothing counts as published that is not stored");
	return;
}

# Cuts a back-off short.  That is a new connection, for which replies still due on
# the old one are not waited for: not where copies are counted.
sub hurry
{
	my ($self, $backend) = @_;

	$self->sql('SELECT dispatch.resume_backend(?)', $backend) if !$self->{patient};
	return;
}

# Waits until all is delivered.
sub settle
{
	my ($self, $backend) = @_;

	wait_until(
		sub {
			return 1 if $self->sql(q(SELECT dispatch.flush('200ms', ?)), $backend)
			  && !$self->sql(
				q(SELECT pending FROM dispatch.backend_status WHERE name = ?), $backend);
			$self->hurry($backend);
			return 0;
		},
		"delivery to $backend", $SETTLE_SECONDS);
	return;
}

# The end of a drill; how many copies there were.
sub check_stored
{
	my ($self, $backend, $what, @ids) = @_;
	my @stored = $self->wait_until_stored($backend, @ids);

	is_deeply([ uniq @stored ], \@ids, "$what: all are stored, in order");
	return @stored - @ids;
}

# Those of these events that are stored, when all is settled.
sub wait_until_stored
{
	my ($self, $backend, @ids) = @_;
	my %mine;

	$self->settle($backend);
	@mine{@ids} = ();
	return grep { exists $mine{$_} } $self->{fake}->stored;
}

# Until it has misbehaved so many times.
sub wait_until_met
{
	my ($self, $backend, $what, $times) = @_;

	wait_until(
		sub {
			return 1 if $self->{fake}->report->{met} >= $times;
			$self->hurry($backend);
			return 0;
		},
		"$what, $times times", $MEET_SECONDS);
	return;
}

# A worker that was there from the start, a log without complaint.
sub check_survival
{
	my ($self) = @_;

	is(backend_pid($self->{node}, $_), $self->{worker}{$_}, "the worker of $_ is still the same")
	  foreach sort keys %{ $self->{worker} };
	# Warnings there must be.
	log_ok($self->{node}, qr/(?!)/);
	return;
}

# ---- Cases

# Confirms as they may come.
sub orders
{
	my ($self) = @_;

	return map {
		my ($confirm, $group) = @$_;
		[ "confirms: $confirm, $group at a time" => sub {
			my ($name) = @_;

			$self->{fake}->behave(confirm => $confirm, group => $group, forget => 1);
			my @ids = $self->publish('direct', 10 * $EVENTS);
			is($self->check_stored('direct', $name, @ids), 0, "$name: each once");
			$self->check_published($name, @ids);
			is($self->sql(q(SELECT count(*) FROM dispatch.events
				WHERE event_id = ANY (?) AND status = 'published'), \@ids),
				10 * $EVENTS, "$name: all are published");
		} ]
	} map { ([ $_, 10 ], [ $_, 100 ]) } qw(each multiple reverse random);
}

# Refusals.  What comes after a refused event may have been accepted: such a
# broker does not keep the order.
sub refusals
{
	my ($self) = @_;

	return map {
		my $confirm = $_;
		[ "refused: $confirm" => sub {
			my ($name) = @_;

			local $self->{patient} = 1;
			# What loses an attempt is a dead letter.
			$self->set_backend('direct', max_retries => 0);
			$self->{fake}->behave(confirm => $confirm, forget => 1);
			my @ids = $self->publish('direct', $EVENTS);
			$self->wait_until_met('direct', $name, 2);
			$self->check_published($name, @ids);
			$self->{fake}->behave;
			is_deeply([ sort $self->wait_until_stored('direct', @ids) ], [ sort @ids ],
				"$name: all are stored, none of them twice");
			is($self->sql('SELECT count(*) FROM dispatch.dead_letters'), 0,
				"$name: no attempt is counted");
			$self->set_backend('direct', max_retries => undef);
		} ]
	} qw(mixed_nack nack_all nack_first);
}

# Who asks for strict order gets it from such a broker, too.
sub strict
{
	my ($self) = @_;

	return [ 'refused, ordering strict' => sub {
		my ($name) = @_;

		$self->set_backend('direct', ordering => 'strict');
		$self->{fake}->behave(confirm => 'nack_some', forget => 1);
		my @ids = $self->publish('direct', $EVENTS);
		is($self->check_stored('direct', $name, @ids), 0, "$name: each once");
		cmp_ok($self->{fake}->report->{met}, '>', 0, "$name: some were refused");
		$self->{fake}->behave;
		$self->set_backend('direct', ordering => 'key');
	} ];
}

# Messages that come back, or take the channel with them: only they fail.
sub culprits
{
	my ($self) = @_;

	return map {
		my $confirm = $_;
		[ "one event to blame: $confirm" => sub {
			my ($name) = @_;

			$self->{fake}->behave(confirm => $confirm, forget => 1);
			my $session = $self->{session};
			$session->begin_work;
			my @ids = $self->publish('direct', $EVENTS);
			my ($culprit) = $self->publish('direct', 1, $POISON);
			push @ids, $self->publish('direct', $EVENTS);
			$session->commit;
			wait_until(
				sub {
					$self->sql('SELECT dispatch.resume_backend(?)', 'direct');
					my %stored = map { $_ => 1 } $self->{fake}->stored;
					return !grep { !$stored{$_} } @ids;
				},
				"$name: the others", $MEET_SECONDS);
			wait_until(
				sub {
					return $self->sql(
						'SELECT last_error FROM dispatch.events WHERE event_id = ?', $culprit)
					  =~ /NO_ROUTE|NOT_FOUND/;
				},
				"$name: its failure", $MEET_SECONDS);
			isnt($self->sql('SELECT status FROM dispatch.events WHERE event_id = ?', $culprit),
				'published', "$name: it is not published");
			$self->{fake}->behave;
			wait_until(
				sub { (grep { $_ eq $culprit } $self->{fake}->stored) == 1 }, "$name: at last", 60);
			$self->check_stored('direct', $name, @ids);
		} ]
	} qw(return close_channel);
}

# Confirms that make no sense: nothing is credited to them.
sub nonsense
{
	my ($self) = @_;

	return map {
		my $confirm = $_;
		[ "nonsense: $confirm" => sub {
			my ($name) = @_;

			$self->{fake}->behave(confirm => $confirm, forget => 1);
			my @ids = $self->publish('direct', $EVENTS);
			$self->wait_until_met('direct', $name, 2);
			$self->check_published($name, @ids);
			$self->{fake}->behave;
			$self->check_stored('direct', $name, @ids);
			$self->check_published($name, @ids);
		} ]
	} qw(future future_multiple zero largest nack_future twice return_unknown);
}

# A confirm of a message that is not even sent as a whole.
sub early
{
	my ($self) = @_;

	return [ 'nonsense: a confirm for what is only half sent' => sub {
		my ($name) = @_;

		$self->{fake}->behave(confirm => 'ack_early', forget => 1);
		my @ids = $self->publish('direct', 1, 'big', '"' . 'x' x 20_000_000 . '"');
		$self->wait_until_met('direct', $name, 2);
		$self->check_published($name, @ids);
		$self->{fake}->behave;
		$self->check_stored('direct', $name, @ids);
	} ];
}

# Rubbish, silence and hang-ups at every point of a connection.
sub sayings
{
	my ($self) = @_;

	return map {
		my $at = $_;
		map {
			my $say = $_;
			[ "$say at $at" => sub {
				my ($name) = @_;

				# A connection there is was past the login: it is not to be used.
				$self->{fake}->behave(at => $at, say => $say, once => 1, forget => 1);
				$self->reconnect('direct');
				my @ids = $self->publish('direct', 3);
				$self->wait_until_met('direct', $name, 1);
				$self->check_stored('direct', $name, @ids);
				$self->check_published($name, @ids);
			} ]
		} @SAYINGS
	} @FakeRabbit::POINTS;
}

# A change of its options makes a backend connect anew.
sub reconnect
{
	my ($self, $backend) = @_;

	$self->{session}->do(
		q(SELECT dispatch.alter_backend(?, jsonb_build_object('app_id', ?::text))),
		undef, $backend, 'reconnect ' . ++$self->{reconnects});
	return;
}

# Connections that break after so many bytes in one direction.
sub cuts
{
	my ($self, @bytes) = @_;

	return map {
		my $side = $_;
		map {
			my $after = $_;
			[ "cut after $after bytes to the $side" => sub {
				my ($name) = @_;

				$self->{fake}->behave(forget => 1);
				$self->{proxy}->set('cut', side => $side, after => $after, once => 1);
				$self->reconnect('proxied');
				my @ids = $self->publish('proxied', 5);
				my $copies = $self->check_stored('proxied', $name, @ids);
				cmp_ok($copies, '<=', 5, "$name: copies only of those in flight");
				$self->check_published($name, @ids);
				$self->{proxy}->set('pass');
			} ]
		} @bytes
	} qw(client server);
}

# Limits that a broker may ask for: [channel_max, frame_max, heartbeat].
sub limits
{
	my ($self) = @_;

	return map {
		my @tune = @$_;
		[ "limits @tune" => sub {
			my ($name) = @_;

			$self->{fake}->behave(tune => \@tune, forget => 1);
			$self->reconnect('direct');
			my @ids = $self->publish('direct', 3, 'n', '"' . 'x' x 300_000 . '"');
			is($self->check_stored('direct', $name, @ids), 0, "$name: each once");
			$self->{fake}->behave;
			$self->reconnect('direct');
		} ]
	} [ 0, 0, 0 ], [ 1, 4096, 1 ], [ 65535, 4_294_967_295, 65535 ];
}

1;
