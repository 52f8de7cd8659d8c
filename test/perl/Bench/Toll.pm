#
# Bench::Toll: the processor time that an event costs, who sends it and the
# broker, with us and without.
#
#     my $toll = Bench::Toll->new(broker => $redis->pid);
#     in_turns(5,
#         ours => sub { ...; drain_rate($session, 'default', $count, $toll) },
#         theirs => sub { $toll->of_theirs($count, sub { system 'client' }) });
#     $toll->record('100 bytes', 'bare client');
#
# Where processors are what bounds a rate, this says why, and is steadier than
# the rate: what else the machine does takes time from both, but is not counted.
#
package Bench::Toll;

use strict;
use warnings;

use Bench ();
use Bench::Process;

my $MICROSECONDS = 1_000_000;

# new(broker => pid)
sub new
{
	my ($class, %options) = @_;

	return bless { pid => $options{broker} }, $class;
}

# of_ours(count, worker's pid, seconds of the broker before)
sub of_ours
{
	my ($self, $count, $worker, $broker_before) = @_;

	$self->_note('ours', $count, tree_seconds($worker), $self->broker_seconds - $broker_before);
	return;
}

# of_theirs(count, sub): calls the sub, which runs the client as a child, and
# returns what that returns.
sub of_theirs
{
	my ($self, $count, $run) = @_;
	my $broker_before = $self->broker_seconds;
	my $client_before = _children_seconds();
	my $result = $run->();

	$self->_note('theirs', $count, _children_seconds() - $client_before,
		$self->broker_seconds - $broker_before);
	return $result;
}

sub broker_seconds { return tree_seconds($_[0]->{pid}); }

sub _children_seconds
{
	my (undef, undef, $user, $system) = times;

	return $user + $system;
}

sub _note
{
	my ($self, $whose, $count, $client, $broker) = @_;

	push @{ $self->{client}{$whose} }, $client / $count * $MICROSECONDS;
	push @{ $self->{broker}{$whose} }, $broker / $count * $MICROSECONDS;
	return;
}

# record(case, counterpart): two records, and begins anew.
sub record
{
	my ($self, $case, $counterpart) = @_;

	foreach my $who (qw(client broker))
	{
		my $toll = delete $self->{$who};

		Bench::record(
			case => "$case: $who", unit => 'us of CPU an event', ours => $toll->{ours},
			counterpart => $counterpart, theirs => $toll->{theirs});
	}
	return;
}

1;
