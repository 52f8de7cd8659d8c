# Draining a backlog to Kafka, against a bare librdkafka producer with the same
# records and settings and the same broker.

use strict;
use warnings;

use Bench;
use Bench::Drain;
use Bench::Server;
use Bench::Toll;
use DispatchTest;
use IPC::Run;
use KafkaBackend;
use KafkaServer;

my $PARTITIONS = 4;
my $BATCH = 10_000;				# of librdkafka, by default

# As Kafka's own scripts start it; tests want it to be up soon instead.
my @JAVA = qw(
  -server -Xms1G -Xmx1G -XX:+UseG1GC -XX:MaxGCPauseMillis=20
  -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent);

my $node = bench_server();
my $session = session($node);
my $kafka = KafkaServer->new(java => \@JAVA);

$kafka->create_topic($_, partitions => $PARTITIONS) foreach qw(events bare);
create_kafka_backend($node, $kafka);

# A record as we send it, for the bare producer: its body and headers.
my $models = 0;
sub model_of
{
	my ($bytes) = @_;
	my $topic = 'model_' . ++$models;

	$kafka->create_topic($topic);
	resume($session, 'default');
	sql($session,
		q{SELECT dispatch.publish('order.created', 'shop', ?::jsonb, options => ?)},
		payload($bytes), qq({"topic": "$topic"}));
	drain($session, 'default');
	my ($record) = $kafka->records($topic);

	return ($record->{value}, map { @$_ } @{ $record->{headers} });
}

# bare_rate(count, keys, records of a request at the most, body and headers)
sub bare_rate
{
	my ($count, $keys, $batch, @model) = @_;
	my ($out, $err);

	IPC::Run::run(
		[ './test/bench/c/kafka_produce', $kafka->servers, 'bare', $count, $keys, $batch, @model ],
		'<', \undef, '>', \$out, '2>', \$err)
	  or die "kafka_produce: $err\n";
	return 0 + $out;
}

sub compare
{
	my ($case, %options) = @_;
	my $count = delete $options{count};
	my $batch_size = delete $options{batch_size} // 1000;
	my @model = model_of($options{payload});
	my $toll = Bench::Toll->new(broker => $kafka->pid);

	$session->do('UPDATE dispatch.backends SET batch_size = ?', undef, $batch_size);
	my %rates = in_turns(
		sized(1, 5, 7),
		ours => sub {
			publish_many($session, $count, %options);
			return drain_rate($session, 'default', $count, $toll);
		},
		theirs => sub {
			$toll->of_theirs($count, sub { bare_rate($count, $options{keys}, $BATCH, @model) });
		});

	record(
		case => $case, unit => 'events/s', ours => $rates{ours},
		counterpart => 'bare librdkafka', theirs => $rates{theirs}, target => 'ratio >= 0.8');
	$toll->record($case, 'bare librdkafka');
	return;
}

my $count = sized(1000, 200_000, 500_000);
my %base = (payload => 100, keys => 'none', count => $count);

# What comes first meets with a broker that Java has not compiled yet; what it does
# for each request it does rarely, so there must be many of them.
bare_rate(sized(1, 1_000_000, 1_000_000), 'many', $BATCH, payload(300));
bare_rate(sized(1, 400_000, 400_000), 'many', 10, payload(300));

compare('100 bytes, no key, batches of 1000', %base);
compare('100 bytes, unique keys', %base, keys => 'many');
compare('100 bytes, one key', %base, keys => 'one');
compare('1000 bytes', %base, payload => 1000, count => $count / 4);
compare('10000 bytes', %base, payload => 10_000, count => $count / 20);
compare('batches of 100', %base, batch_size => 100);
compare('batches of 10000', %base, batch_size => 10_000);
