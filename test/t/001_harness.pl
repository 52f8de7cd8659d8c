# The servers that the other tests rely on do what those tests assume.

use strict;
use warnings;

use IPC::Run;
use Test::More;

use Canary;
use DispatchTest;

my $node = new_cluster('main');
is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'),
	'dispatch', 'the cluster has dispatch loaded');

my $redis = RedisServer->new(appendonly => 1);
my $bytes = join '', map { chr } 0 .. 255;

$redis->client->xadd('events', '*', 'first', $bytes, 'second', '');
my ($entry) = $redis->xrange_all('events');
is($entry->{fields}{first}, $bytes, 'a stream entry is read byte for byte');
is_deeply($entry->{names}, [ 'first', 'second' ], 'its fields are in order');

$redis->kill9;
ok(!eval { $redis->client->ping }, 'a killed server does not answer');
$redis->start;
wait_until(sub { $redis->xrange_all('events') == 1 }, 'the entry after the kill');
is($redis->cli('XLEN', 'events'), 1, 'what it acknowledged survived the kill');

$redis->sigstop;
ok(!IPC::Run::run(
		[ 'timeout', '1', 'redis-cli', '-p', $redis->port, 'PING' ],
		'>', \my $answer),
	'a frozen server does not answer');
$redis->sigcont;
ok($redis->client->ping, 'a thawed server does');

# The log of a background process, of a session, and of what somebody typed there
my $time = '2026-01-01 00:00:00.000 UTC';
my @ours = (
	"$time [1] WARNING:  backend \"x\": Redis refused AUTH: " . canary(),
	"$time [2] a.pl ERROR:  wrong option\n\tpassword " . canary(),
	"$time [2] a.pl DETAIL:  it is " . canary());
my @typed = (
	"$time [2] a.pl LOG:  statement: SELECT\n\t'" . canary() . "'",
	"$time [2] a.pl STATEMENT:  SELECT '" . canary() . "'",
	"$time [2] a.pl DETAIL:  parameters: \$1 = '" . canary() . "'");
is(scalar(canary_leaks(join "\n", @ours, @typed)), @ours, 'a secret in a log is found');
is(scalar(canary_leaks(join "\n", @typed)), 0, 'unless it was typed there');

done_testing();
