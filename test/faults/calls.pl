# Every system call that a worker makes to deliver, failed or killed at the
# first, the second, ... and the last.

use strict;
use warnings;

use Faults;
use Faults::Calls;
use Test::More;

my $bench = Faults->new('calls', $Faults::Calls::SETTINGS);

run_cases(Faults::Calls::exhaustive($bench), Faults::Calls::storm($bench));
$bench->check_log(kill9 => 1, panics => 1);
done_testing();
