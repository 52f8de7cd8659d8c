# Options are no way to files, to libraries, to commands of a broker, or to lines
# of the log.

use strict;
use warnings;

use Test::More;

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('options');
my $session = session($node);

sub json { return JSON::PP->new->allow_nonref->canonical->encode($_[0]); }

sub flush_is_ok
{
	my ($what) = @_;

	ok($session->selectrow_array("SELECT dispatch.flush('20 s')"), "delivered: $what");
	return;
}

$session->do('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);

foreach my $transport ('../redis', './redis', '/usr/lib/redis', 'redis.so',
	'$libdir/dispatch_redis', 'Redis',
	"redis\n", 'redis;x', '', 'x' x 1000, '%s%n', '../../../../tmp/evil', 'redis/../redis')
{
	ok(!eval { $session->do('SELECT dispatch.create_backend(?, ?)', undef, 'x', $transport); 1 },
		"no transport: $transport");
	unlike($@, qr/could not access file|dlopen|No such file/, "nor is a file looked for: $transport");
}
my $key = "%s%n {event_type}\r\n*1\r\n\$8\r\nFLUSHALL\r\n";
$redis->client->set('canary', 'alive');
$session->do('SELECT dispatch.alter_backend(?, ?)', undef, 'default',
	json({ stream_name => $key }));
$session->do(q(SELECT dispatch.publish(?, ?, '1')), undef, "e%s\r\n", "s%n\r\nALERT: forged");
flush_is_ok('a stream with an odd name');
is(scalar($redis->xrange_all("%s%n e%s\r\n\r\n*1\r\n\$8\r\nFLUSHALL\r\n")), 1, 'it is taken at its word');
is($redis->client->get('canary'), 'alive', 'and is no command');
my $position = log_position($node);
foreach my $host ('/var/run/redis/redis.sock', 'unix:/tmp/x', "127.0.0.1\r\nX: y\nALERT: forged", '%s%n%s', '-')
{
	eval { $session->do('SELECT dispatch.create_backend(?, ?, ?)', undef, 'host', 'redis',
		json({ host => $host })) };
	my ($row) = $session->selectrow_array(q(SELECT count(*) FROM dispatch.backends
		WHERE name = 'host' AND NOT dropping));
	my $detail = $@;
	($detail) = $session->selectrow_array(q(SELECT detail FROM dispatch.check_backend('host')))
	  if $row;
	unlike($detail, qr/^connected|\nALERT/, "no host: $detail");
	$session->do(q(SELECT dispatch.drop_backend('host', true))) if $row;
}
is_deeply([ log_lines($node, qr/^(X: y|ALERT)/, $position) ], [],
	'and no line of the log is forged');

$node->stop;
log_ok($node, qr/FATAL:(?!.*due to administrator command)/);
done_testing();
