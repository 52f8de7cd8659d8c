# Tables are locked and workers ended, while clients publish; and the server dies
# of something else while an event is in flight.

use strict;
use warnings;

use Faults;
use Faults::Server;
use Test::More;

my $bench = Faults->new('server');

run_cases(
	Faults::Server::locks($bench),
	Faults::Server::terminations($bench),
	Faults::Server::innocents($bench));
$bench->check_log(kill9 => 1);
done_testing();
