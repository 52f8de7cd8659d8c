# The connection to Redis ends after every single byte of a request and of a
# reply.

use strict;
use warnings;

use Faults;
use Faults::Proxy;
use Test::More;

my $bench = Faults->new('cuts');

run_cases(Faults::Proxy::login_cuts($bench), Faults::Proxy::cuts($bench));
$bench->check_log;
done_testing();
