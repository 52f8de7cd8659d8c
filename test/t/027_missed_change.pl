# A change of a backend that is committed while its worker is about to read the
# configuration is not lost: either it is read, or it is noticed afterwards.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('missed_change', q(dispatch.sleep_time = '1h'));
my $session = session($node);
my $locker = session($node);

$session->do('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis, stream_name => 'before');
$session->do(q(SELECT dispatch.publish('t', 's')));
ok($session->selectrow_array(q(SELECT dispatch.flush('20 s'))), 'the worker runs');
my $worker = backend_pid($node, 'default');

# It has to look a table up in pg_class again, and waits there for the change.
kill 'STOP', $worker;
$session->do('ALTER TABLE dispatch.scheduled SET (fillfactor = 90)');
$locker->begin_work;
$locker->do('LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE');
$locker->do(q(SELECT dispatch.alter_backend('default', '{"stream_name": "after"}')));
kill 'HUP', $worker;			# reads the configuration anew
kill 'CONT', $worker;
sleep 0.5;
$locker->commit;

sleep 0.5;
$session->do(q(SELECT dispatch.publish('t', 's')));
ok($session->selectrow_array(q(SELECT dispatch.flush('20 s'))), 'it goes on');
is(scalar($redis->xrange_all('after')), 1, 'and knows of the change');
is(backend_pid($node, 'default'), $worker, 'it is the same worker');

$node->stop;
log_ok($node);
done_testing();
