# A client library is loaded by workers alone: neither the postmaster nor a
# session that publishes, lists or checks backends is exposed to it.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use PostgreSQL::Test::Utils;

my $redis = RedisServer->new;
my $node = new_cluster('no_library');

sub has_library
{
	my ($pid, $library) = @_;

	return slurp_file("/proc/$pid/maps") =~ /\Q$library\E/ ? 1 : 0;
}

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);

my $session = session($node);
my ($pid) = $session->selectrow_array('SELECT pg_backend_pid()');
my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');

$session->do(
	q(SELECT dispatch.publish('a', 'b', '1', options => '{"stream_name": "{event_type}"}')));
ok($session->selectrow_array('SELECT dispatch.flush()'), 'the event is delivered');
is($redis->cli('XLEN', 'a'), 1, 'to the stream that its options name');
$session->do('SELECT * FROM dispatch.backend_status');
$session->do('SELECT * FROM dispatch.events');
is($session->selectrow_array(q(SELECT ok FROM dispatch.check_backend('default'))),
	1, 'check_backend() connects');

is(has_library(backend_pid($node, 'default'), 'libhiredis'), 1, 'the worker has hiredis');
foreach my $library (qw(libhiredis dispatch_redis))
{
	is(has_library($postmaster, $library), 0, "the postmaster has no $library");
	is(has_library($pid, $library), 0, "a publisher has no $library");
	foreach my $kind (qw(launcher manager))
	{
		is(has_library((process_ids($node, $kind))[0], $library), 0, "the $kind has no $library");
	}
}
is(has_library($pid, 'dispatch.so'), 1, 'which would be found if it were there');

$node->stop;
done_testing();
