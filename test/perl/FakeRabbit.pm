#
# FakeRabbit: a broker that speaks AMQP and misbehaves as a test wants.
#
# It is a Python program, test/python/fake_amqp.py, which says what it can do.
#
#     my $fake = FakeRabbit->new;
#     $fake->behave(at => 'publish', say => 'oversized_frame', once => 1);
#     ...
#     is_deeply([ $fake->stored ], \@ids, 'all is stored');
#
package FakeRabbit;

use strict;
use warnings;

use Carp;
use IPC::Open2;
use JSON::PP ();

my $PYTHON = '/usr/bin/python3';
my $PROGRAM = 'test/python/fake_amqp.py';

# Where it can say something else, in the order of a connection.
our @POINTS = qw(connect start_ok open channel_open select publish);

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my @all_brokers;

sub new
{
	my ($class) = @_;
	my $self = bless {}, $class;

	$self->{pid} = open2($self->{out}, $self->{in}, $PYTHON, $PROGRAM);
	$self->{in}->autoflush;
	push @all_brokers, $self;
	$self->{port} = 0 + readline $self->{out};
	return $self;
}

sub host { return '127.0.0.1'; }
sub port { return $_[0]->{port}; }

sub behave
{
	my ($self, %behaviour) = @_;

	$self->_call('behave', \%behaviour);
	return;
}

# Since behave(): {connections, ready (connections that came through the login),
# met (how often it misbehaved), messages => [...]}, where messages are
# those that arrived since "forget": {message_id, routing_key, stored, ...}.
sub report { return $_[0]->_call('report'); }

# The ids of those that it has stored, in the order of their arrival; copies are
# there as often as they came.
sub stored
{
	my ($self) = @_;

	return map { $_->{message_id} } grep { $_->{stored} } @{ $self->report->{messages} };
}

sub _call
{
	my ($self, @words) = @_;

	print { $self->{in} } $json->encode(\@words), "\n";
	return $json->decode(readline $self->{out} // croak "$PROGRAM has ended");
}

END
{
	my $exit_code = $?;

	kill('KILL', $_->{pid}) && waitpid $_->{pid}, 0 foreach grep { $_->{pid} } @all_brokers;
	$? = $exit_code;
}

1;
