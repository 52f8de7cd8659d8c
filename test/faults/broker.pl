# Redis misbehaves, while clients publish.

use strict;
use warnings;

use Faults;
use Faults::Broker;
use Test::More;

my $bench = Faults->new('broker');

run_cases(Faults::Broker::storms($bench), Faults::Broker::flush_all($bench));
$bench->check_log;
done_testing();
