# A name server that does not answer: nobody waits for it but the worker of that
# backend, and that one can be ended at any time.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(time);

use DispatchTest;
use Preload;

my $TIMEOUT = 1.5;
my $SILENT = qr/timeout expired|no broker has answered/;
# What these may take at most
my $END_SECONDS = 4;
my $PUBLISH_SECONDS = 1;

# A source of host names for the C library, before its own: while 1 is set, it
# takes half a minute for "silent.example", and then says where that is.
# So it hangs in the library's own threads, where a silent name server would.
my $preload = Preload->new(<<'C', '-Wl,-soname,libnss_silent.so.2');
#include <netdb.h>
#include <nss.h>
#include <arpa/inet.h>

extern int __nss_configure_lookup(const char *database, const char *sources);

__attribute__((constructor)) static void
add_source(void)
{
	__nss_configure_lookup("hosts", "silent files dns");
}

enum nss_status
_nss_silent_gethostbyname4_r(const char *name, struct gaih_addrtuple **pat, char *buffer,
							 size_t size, int *error, int *h_error, int32_t *ttl)
{
	struct gaih_addrtuple *address = *pat != NULL ? *pat : (struct gaih_addrtuple *) buffer;

	if (strcmp(name, "silent.example") != 0)
	{
		*h_error = HOST_NOT_FOUND;
		return NSS_STATUS_NOTFOUND;
	}
	for (int i = 0; *control == 1 && i < 3000; i++)
		usleep(10000);
	memset(address, 0, sizeof(*address));
	address->name = "silent.example";
	address->family = AF_INET;
	address->addr[0] = htonl(INADDR_LOOPBACK);
	*pat = address;
	return NSS_STATUS_SUCCESS;
}
C

my $redis = RedisServer->new;
my $closed = silent_listener();
my $port = $closed->sockport;
$closed->close;
my $servers = "silent.example:$port";
my %options = (
	redis => '{"port": ' . $redis->port . ', "host": "silent.example"',
	rabbitmq => qq({"port": $port, "host": "silent.example"),
	kafka => qq({"bootstrap_servers": "$servers"));

my $node;
{
	local $ENV{LD_PRELOAD} = $preload->library;
	$node = new_cluster('names', q(dispatch.sleep_time = '1h'));
}
my $session = session($node);

$session->do('CREATE EXTENSION dispatch');
$preload->set(1);

# A worker that is in the middle of it
sub hangs
{
	my ($backend) = @_;

	wait_until(
		sub { (backend_state($node, $backend) // '') eq 'connecting' }, "$backend: connecting", 30);
	return backend_pid($node, $backend);
}

foreach my $transport (sort keys %options)
{
	my $json = $options{$transport};

	# A worker that gives up soon, and one that never does
	$session->do('SELECT dispatch.create_backend(?, ?, ?)', undef,
		"$transport soon", $transport, qq($json, "connect_timeout": $TIMEOUT}));
	$session->do('SELECT dispatch.create_backend(?, ?, ?)', undef,
		$transport, $transport, qq($json, "connect_timeout": 600}));
	hangs($transport);

	my $start = time;
	$session->do(q(SELECT dispatch.publish('t', 's', '1', backend => ?)), undef, $transport);
	cmp_ok(time - $start, '<', $PUBLISH_SECONDS, "$transport: publish() does not wait");

	$start = time;
	my ($ok, $detail) = $session->selectrow_array(
		'SELECT ok, detail FROM dispatch.check_backend(?)', undef, "$transport soon");
	is($ok, 0, "$transport: check_backend() does not connect");
	like($detail, $SILENT, "$transport: it says why");
	cmp_ok(time - $start, '<', $TIMEOUT + $END_SECONDS, "$transport: it ends by its timeout");

	wait_for_state($node, "$transport soon", 'outage');
	my $error = $session->selectrow_array(
		'SELECT last_error FROM dispatch.backend_status WHERE name = ?', undef, "$transport soon");
	like($error, $SILENT, "$transport: so does the worker");

	my $pid = hangs($transport);
	$start = time;
	$session->do('SELECT pg_terminate_backend(?)', undef, $pid);
	wait_until(sub { !kill 0, $pid }, "$transport: the end of the worker", 60);
	cmp_ok(time - $start, '<', $END_SECONDS, "$transport: the worker ends when it is told to");
	hangs($transport);

	$start = time;
	$session->do('SELECT dispatch.pause_backend(?)', undef, $transport);
	wait_for_state($node, $transport, 'paused');
	wait_until(sub { !defined backend_pid($node, $transport) }, "$transport: no worker", 60);
	cmp_ok(time - $start, '<', $END_SECONDS, "$transport: and when its backend is paused");
	$session->do('SELECT dispatch.resume_backend(?)', undef, $transport);
}
hangs($_) foreach sort keys %options;
calm_ok($node, 'while it does not answer');

# A stop of the server, with all of them waiting
my $start = time;
$session->disconnect;
$node->stop('fast');
cmp_ok(time - $start, '<', $END_SECONDS, 'the server stops');
{
	local $ENV{LD_PRELOAD} = $preload->library;
	$node->start;
}
hangs('redis');

# It answers at last: no worker has to be helped
$preload->set(0);
wait_until(sub { $redis->client->xlen('events') == 1 }, 'the event, once there is an answer');
ok(1, 'an answer that comes late is taken');

log_ok($node, qr/PANIC/);
$preload->set(1);
$start = time;
$node->stop('fast');
cmp_ok(time - $start, '<', $END_SECONDS, 'the server stops again');
done_testing();
