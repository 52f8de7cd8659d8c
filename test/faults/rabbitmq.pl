# A broker that speaks AMQP, and misbehaves: all of the drills of which
# test/t/095_rabbitmq_protocol.pl tries some.

use strict;
use warnings;

use Faults;
use Faults::Rabbit;
use Test::More;

my $bench = Faults::Rabbit->new('rabbitmq');

run_cases(
	$bench->orders, $bench->refusals, $bench->strict, $bench->culprits, $bench->nonsense,
	$bench->early, $bench->limits, $bench->sayings, $bench->cuts(map { 7 * $_ } 0 .. 100));
$bench->check_survival;
done_testing();
