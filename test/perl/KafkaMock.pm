#
# KafkaMock: a cluster of Kafka that answers as a test tells it to.
#
# It is built from test/kafka_mock/kafka_mock.c, which says what it can do, and
# ends with the test.
#
#     my $mock = KafkaMock->new(brokers => 1);
#     $mock->tell('topic events 4');
#     $mock->tell('errors 0 MSG_SIZE_TOO_LARGE');
#     my @records = $mock->records('events');
#
package KafkaMock;

use strict;
use warnings;

use Carp;
use IPC::Open2;
use IPC::Run;
use JSON::PP ();

use PostgreSQL::Test::Utils;

my $json = JSON::PP->new->utf8->allow_nonref;
my $program;
my @all_mocks;

# new(brokers => 1): starts a cluster.
sub new
{
	my ($class, %options) = @_;
	my $self = bless {}, $class;

	$program //= _build();
	$self->{pid} = open2($self->{out}, $self->{in}, $program, $options{brokers} // 1);
	@$self{qw(servers version)} = split ' ', readline($self->{out}) // '';
	croak 'the mock cluster did not start' unless $self->{version};
	push @all_mocks, $self;
	return $self;
}

sub servers { return $_[0]->{servers}; }

# Of librdkafka, as 0xMMmmrrpp.
sub version { return $_[0]->{version}; }

# Has it execute a command.
sub tell
{
	my ($self, $command) = @_;
	my $answer;

	print { $self->{in} } "$command\n";
	$self->{in}->flush;
	$answer = readline $self->{out} // 'none';
	croak "$command: $answer" unless $answer eq "ok\n";
	return;
}

# All records of a topic: {topic, partition, offset, key, payload, headers, ts}.
sub records
{
	my ($self, $topic) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[
			'kcat', '-b', $self->servers, '-X', 'fetch.wait.max.ms=10',
			'-C', '-t', $topic, '-o', 'beginning', '-e', '-q', '-J' ],
		'<', \undef, '>', \$out, '2>', \$err)
	  or croak "kcat: $err";
	return map { $json->decode($_) } split /\n/, $out;
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;

	kill 'KILL', $pid;
	waitpid $pid, 0;
	return;
}

sub _build
{
	my $path = PostgreSQL::Test::Utils::tempdir('kafka_mock') . '/kafka_mock';

	IPC::Run::run(
		[
			'gcc', '-Wall', '-Werror', '-o', $path, 'test/kafka_mock/kafka_mock.c',
			'-lrdkafka' ])
	  or croak 'the mock cluster could not be built';
	return $path;
}

END
{
	# waitpid changes it, and it is the result of the test.
	my $exit_code = $?;

	$_->stop foreach @all_mocks;
	$? = $exit_code;
}

1;
