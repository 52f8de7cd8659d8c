#
# AmqpClient: an AMQP client that knows nothing of dispatch.
#
# It is a Python program (test/python/amqp_client.py) with the library pika,
# started when it is first needed; each method here is one of it there.  It
# connects anew when its connection was lost.
#
#     $client->exchange('orders', 'topic');
#     $client->queue('all', durable => 1, arguments => { 'x-queue-type' => 'quorum' });
#     $client->bind('all', 'orders', '#');
#     my @messages = $client->drain('all');
#
# A message is {exchange, routing_key, redelivered, body, properties}; body is
# bytes, and the values of the property "headers" say their AMQP type, by the
# letter that it has on the wire: { n => [ 'l', 7 ], list => [ 'A', [...] ] }.
#
package AmqpClient;

use strict;
use warnings;

use Carp;
use IPC::Open2;
use JSON::PP ();

use PostgreSQL::Test::Utils ();

my $PYTHON = '/usr/bin/python3';
my $PROGRAM = 'test/python/amqp_client.py';

my $json = JSON::PP->new->utf8->canonical->allow_nonref;
my @all_clients;

# args: host, port, vhost, username, password, ca (a file: speaks TLS)
sub new
{
	my ($class, %args) = @_;
	my $self = bless { args => \%args, pid => undef }, $class;

	push @all_clients, $self;
	return $self;
}

sub exchange
{
	my ($self, $name, $type, %more) = @_;

	return $self->_call('exchange', name => $name, type => $type // 'topic', %more);
}

sub queue
{
	my ($self, $name, %more) = @_;

	return $self->_call('queue', name => $name, %more);
}

sub bind
{
	my ($self, $queue, $exchange, $routing_key) = @_;

	return $self->_call(
		'bind', queue => $queue, exchange => $exchange, routing_key => $routing_key // '#');
}

sub delete_queue { return $_[0]->_call('delete_queue', name => $_[1]); }
sub purge { return $_[0]->_call('purge', name => $_[1]); }

# Messages that are ready in a queue.
sub depth { return $_[0]->_call('depth', name => $_[1]); }

# Takes all messages out of a queue, one after the other.
sub drain { return @{ $_[0]->_call('drain', name => $_[1]) }; }

# The same for many of them, from a queue that is nothing but first in, first
# out; each is {message_id, type, timestamp, body}, as bytes.
sub drain_fast
{
	my ($self, $queue) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir('drain') . '/messages';
	my (@fields, @messages, %message);

	$self->_call('drain_fast', name => $queue, path => $file);
	@fields = unpack '(N/a*)*', PostgreSQL::Test::Utils::slurp_file($file);
	unlink $file;
	while (@fields)
	{
		@message{qw(message_id type timestamp body)} = splice @fields, 0, 4;
		push @messages, {%message};
	}
	return @messages;
}

sub _call
{
	my ($self, $method, %args) = @_;
	my ($status, $result);

	$self->_start if !$self->{pid};
	print { $self->{in} } $json->encode([ $method, \%args ]), "\n";
	my $line = readline $self->{out};
	croak "$PROGRAM has ended" if !defined $line;
	($status, $result) = @{ $json->decode($line) };
	croak "$method: $result" if $status ne 'ok';
	return $result;
}

sub _start
{
	my ($self) = @_;

	my $args = $json->encode($self->{args});

	$self->{pid} = open2($self->{out}, $self->{in}, $PYTHON, $PROGRAM, $args);
	$self->{in}->autoflush;
	return;
}

END
{
	my $exit_code = $?;

	foreach my $client (grep { $_->{pid} } @all_clients)
	{
		kill 'KILL', $client->{pid};
		waitpid $client->{pid}, 0;
	}
	$? = $exit_code;
}

1;
