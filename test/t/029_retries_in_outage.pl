# The broker goes away when some events are to be tried again, one after the
# other: the worker waits for it, and does not spin while the others become due.

use strict;
use warnings;

use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use FakeRabbit;

my $fake = FakeRabbit->new;
my $node = new_cluster('retries_in_outage');
my $session = session($node);

$session->do('CREATE EXTENSION dispatch');
$session->do(q(SELECT dispatch.create_backend('default', 'rabbitmq', ?)), undef,
	JSON::PP->new->encode({ host => '127.0.0.1', port => 0 + $fake->port, exchange => 'x',
		routing_key => 'poison', envelope => 'data', password => canary() }));

# Returned as unroutable, the events wait for ten seconds each.
sub publish
{
	my ($count) = @_;

	$session->do(q(SELECT dispatch.publish('n', 's')));
	my $ok = eval {
		wait_until(
			sub {
				$session->selectrow_array(q(SELECT count(*) FROM dispatch.events
					WHERE status = 'retrying')) == $count;
			},
			'returned', 20);
		1;
	};
	ok($ok, "event $count waits for another attempt") or diag $@;
	return;
}

$fake->behave(confirm => 'return');
publish(1);
sleep 3;
publish(2);
kill 'KILL', $fake->{pid};
wait_until(
	sub {
		$session->selectrow_array(q(SELECT bool_and(next_attempt_at < now()) FROM dispatch.events
			WHERE status = 'retrying'));
	},
	'both are due', 30);
wait_for_state($node, 'default', 'outage');
my $worker = backend_pid($node, 'default');
my $cpu = cpu_seconds($worker);
sleep 2;
cmp_ok(cpu_seconds($worker) - $cpu, '<', 0.2, 'the worker does not spin while they wait');

$node->stop;
done_testing();
