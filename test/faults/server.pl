# Tables are locked and workers ended, while clients publish.

use strict;
use warnings;

use Faults;
use Faults::Server;
use Test::More;

my $bench = Faults->new('server');

run_cases(Faults::Server::locks($bench), Faults::Server::terminations($bench));
$bench->check_log;
done_testing();
