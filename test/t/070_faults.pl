# A few of the faults of test/faults, other ones every time: all of them are
# tried by `make check-faults`.
#
# DISPATCH_FAULT_SEED: the seed that picks them, printed in every run.

use strict;
use warnings;

use Faults;
use Faults::Broker;
use Faults::Calls;
use Faults::Proxy;
use Faults::Server;
use Test::More;

my $bench = Faults->new('faults', $Faults::Calls::SETTINGS);

run_cases(
	pick_cases(30, Faults::Proxy::login_cuts($bench), Faults::Proxy::cuts($bench)),
	Faults::Proxy::late_replies($bench),
	Faults::Proxy::strict($bench),
	pick_cases(8, Faults::Calls::single($bench)),
	Faults::Calls::storm($bench),
	Faults::Broker::flush_all($bench),
	pick_cases(1, Faults::Proxy::toxics($bench)),
	pick_cases(1, Faults::Broker::storms($bench)),
	pick_cases(5, Faults::Server::terminations($bench)),
	pick_cases(1, Faults::Server::locks($bench)));
$bench->check_log(kill9 => 1, panics => 1);
done_testing();
