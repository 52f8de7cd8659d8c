# A broker that speaks AMQP, and misbehaves: some of the drills of
# test/faults/rabbitmq.pl, other ones every time.
#
# DISPATCH_FAULT_SEED: the seed that picks them, printed in every run.

use strict;
use warnings;

use DispatchTest;
use Faults;
use Faults::Rabbit;
use Test::More;

my $seed = $ENV{DISPATCH_FAULT_SEED} // time % 100_000;
diag("rabbitmq: seed $seed");
my $bench = Faults::Rabbit->new('rabbitprotocol');
srand($seed);

run_cases(
	pick_cases(4, $bench->orders), $bench->refusals, $bench->strict, $bench->culprits,
	$bench->nonsense, $bench->early, $bench->limits, pick_cases(30, $bench->sayings),
	pick_cases(20, $bench->cuts(map { 13 * $_ } 0 .. 60)));
$bench->check_survival;
done_testing();
