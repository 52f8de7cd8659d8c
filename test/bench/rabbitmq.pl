# Draining a backlog to RabbitMQ, against a bare publisher of rabbitmq-c with the
# same messages and confirms and the same broker.

use strict;
use warnings;

use Bench;
use Bench::Drain;
use Bench::Server;
use Bench::Toll;
use DispatchTest;
use IPC::Run;
use RabbitServer;

my $WINDOW = 4096;				# messages on their way of the bare publisher

my $node = bench_server();
my $session = session($node);
my $rabbit = RabbitServer->new;

$rabbit->client->queue($_, durable => 1) foreach qw(events bare model);
$rabbit->create_backend($node, routing_key => 'events');

# The body of a message as we send it.
sub model_of
{
	my ($bytes) = @_;

	resume($session, 'default');
	sql($session,
		q{SELECT dispatch.publish('order.created', 'shop', ?::jsonb, options => ?)},
		payload($bytes), '{"routing_key": "model"}');
	drain($session, 'default');
	my ($message) = $rabbit->client->drain('model');

	return $message->{body};
}

sub bare_rate
{
	my ($count, $body) = @_;
	my ($out, $err);

	IPC::Run::run(
		[ './test/bench/c/rabbitmq_publish', $rabbit->port, 'bare', $count, $WINDOW, $body ],
		'<', \undef, '>', \$out, '2>', \$err)
	  or die "rabbitmq_publish: $err\n";
	return 0 + $out;
}

sub compare
{
	my ($case, %options) = @_;
	my $count = delete $options{count};
	my $batch_size = delete $options{batch_size} // 1000;
	my $body = model_of($options{payload});
	my $toll = Bench::Toll->new(broker => $rabbit->pid);

	$session->do('UPDATE dispatch.backends SET batch_size = ?', undef, $batch_size);
	my %rates = in_turns(
		sized(1, 3, 7),
		ours => sub {
			publish_many($session, $count, %options);
			my $rate = drain_rate($session, 'default', $count, $toll);

			$rabbit->client->purge('events');
			return $rate;
		},
		theirs => sub {
			my $rate = $toll->of_theirs($count, sub { bare_rate($count, $body) });

			$rabbit->client->purge('bare');
			return $rate;
		});

	record(
		case => $case, unit => 'events/s', ours => $rates{ours},
		counterpart => 'bare rabbitmq-c', theirs => $rates{theirs}, target => 'ratio >= 0.8');
	$toll->record($case, 'bare rabbitmq-c');
	return;
}

my $count = sized(500, 40_000, 200_000);
my %base = (payload => 100, keys => 'none', count => $count);

compare('100 bytes, no key, batches of 1000', %base);
compare('100 bytes, unique keys', %base, keys => 'many');
compare('100 bytes, one key', %base, keys => 'one');
compare('1000 bytes', %base, payload => 1000, count => $count / 2);
compare('10000 bytes', %base, payload => 10_000, count => $count / 2);
compare('batches of 100', %base, batch_size => 100);
compare('batches of 10000', %base, batch_size => 10_000);
