# Every kind of trouble on the way to Redis, while clients publish.

use strict;
use warnings;

use Faults;
use Faults::Proxy;
use Test::More;

my $bench = Faults->new('proxy');

run_cases(
	Faults::Proxy::toxics($bench), Faults::Proxy::late_replies($bench),
	Faults::Proxy::strict($bench));
$bench->check_log;
done_testing();
