# Who may not log in does not, and is told why; encryption is verified or there
# is none at all; no secret is shown anywhere.

use strict;
use warnings;

use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use PostgreSQL::Test::Utils;
use RabbitServer;
use TestCa;

# Found nowhere but where they belong.
my $PASSWORD = 'canary-pa$$ "word';
my $NEXT_PASSWORD = 'canary-second';
my $WRONG_PASSWORD = 'canary-wrong';
my $PASSPHRASE = 'canary-phrase';

my $rabbit = RabbitServer->new;
my $client = $rabbit->client;
# Statements of this test have secrets in them: what is logged is all of ours.
my $node = new_cluster('rabbitsecurity', "dispatch.sleep_time = '1h'\nlog_statement = none\n"
	  . "log_min_error_statement = panic\nlog_min_messages = debug1");
my $session = session($node);
my $json = JSON::PP->new;

my $ca = TestCa->new('ours');
my $other_ca = TestCa->new('other');
my %server = (
	right => $ca->issue('right', hosts => [ 'DNS:localhost', 'IP:127.0.0.1' ]),
	stranger => $ca->issue('stranger', hosts => ['DNS:rabbit.example.com']),
	expired => $ca->issue('expired', expired => 1));
my $visitor = $ca->issue('visitor');
my $other_visitor = $other_ca->issue('visitor');
my $encrypted = $ca->issue('encrypted', password => $PASSPHRASE);

$session->do('CREATE EXTENSION dispatch');
$client->queue('all');
$rabbit->add_user('alice', $PASSWORD);

# A backend that logs in as alice; what check_backend() says of it.
my $backends = 0;

sub create
{
	my (%options) = @_;
	my $name = 'b' . ++$backends;

	$rabbit->create_backend($node, name => $name, exchange => '', routing_key => 'all',
		username => 'alice', password => $PASSWORD, connect_timeout => 5, %options);
	return $name;
}

sub check
{
	my ($name) = @_;

	return $session->selectrow_hashref('SELECT * FROM dispatch.check_backend(?)', undef, $name);
}

sub refused_ok
{
	my ($what, $pattern, %options) = @_;
	my $name = create(%options);
	my $answer = check($name);

	ok(!$answer->{ok}, "$what: refused");
	like($answer->{detail}, $pattern, "$what: the reason is given");
	unlike($answer->{detail}, qr/canary/, "$what: no secret in it");
	$session->do('SELECT dispatch.drop_backend(?)', undef, $name);
}

sub accepted_ok
{
	my ($what, %options) = @_;
	my $name = create(%options);
	my $answer = check($name);

	ok($answer->{ok}, "$what: connected") or diag($answer->{detail});
	$session->do('SELECT dispatch.publish(?, ?, NULL, backend => ?)', undef, 'x', 's', $name);
	ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '30s', $name),
		"$what: delivered");
	is(scalar $client->drain('all'), 1, "$what: it is there");
	$session->do('SELECT dispatch.drop_backend(?)', undef, $name);
}

# ---- Login

accepted_ok('login');
refused_ok('a wrong password', qr/403|ACCESS_REFUSED/, password => $WRONG_PASSWORD);
refused_ok('an unknown user', qr/403|ACCESS_REFUSED/, username => 'nobody');
refused_ok('an unknown virtual host', qr/530|NOT_ALLOWED|not found/, vhost => 'no such');
$rabbit->eval_erlang('rabbit_vhost:add(<<"closed">>, <<"test">>)');
refused_ok('a virtual host without a right to it', qr/530|NOT_ALLOWED|refused/, vhost => 'closed');

# While it runs: the state says it, events wait, and it needs no restart
my $name = create();
my $set_retries = 'UPDATE dispatch.backends SET max_retries = ? WHERE name = ?';

# What loses an attempt is a dead letter.
$session->do($set_retries, undef, 0, $name);

sub publish_one
{
	return $session->selectrow_array(
		'SELECT dispatch.publish(?, ?, NULL, backend => ?)', undef, 'x', 's', $name);
}

sub comes_ok
{
	my ($what) = @_;

	$session->do('SELECT dispatch.resume_backend(?)', undef, $name);
	ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '30s', $name),
		"$what: delivered when mended");
	is(scalar $client->drain('all'), 1, "$what: it is there");
	is($session->selectrow_array('SELECT count(*) FROM dispatch.dead_letters'),
		0, "$what: no attempt was counted");
}

publish_one();
comes_ok('peace');
$rabbit->change_password('alice', $NEXT_PASSWORD);
$rabbit->close_connections('a new password');
publish_one();
wait_for_state($node, $name, 'configuration error');
$session->do('SELECT dispatch.alter_backend(?, ?)',
	undef, $name, $json->encode({ password => $NEXT_PASSWORD }));
comes_ok('a new password');

$rabbit->delete_user('alice');
$rabbit->close_connections('no user');
publish_one();
wait_for_state($node, $name, 'configuration error');
$rabbit->add_user('alice', $NEXT_PASSWORD);
comes_ok('a user deleted and created again');

$rabbit->add_vhost('own');
$rabbit->set_permissions('alice', 'own');
my $own = $rabbit->new_client(vhost => 'own');
$own->queue('all');
$session->do('SELECT dispatch.alter_backend(?, ?)', undef, $name, '{"vhost": "own"}');
publish_one();
ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '30s', $name),
	'another virtual host');
is(scalar $own->drain('all'), 1, 'another virtual host: it is there');
# It may be there before its queue is.
$session->do($set_retries, undef, 1000, $name);
$rabbit->delete_vhost('own');
publish_one();
wait_for_state($node, $name, 'configuration error');
$rabbit->add_vhost('own');
$rabbit->set_permissions('alice', 'own');
$own->queue('all');
$session->do('SELECT dispatch.resume_backend(?)', undef, $name);
wait_until(sub { $own->depth('all') == 1 }, 'an event in the new virtual host', 60);
pass('a virtual host deleted and created again');
$rabbit->change_password('alice', $PASSWORD);

# ---- Encryption

my %tls = (tls => JSON::PP::true, tls_ca => TestCa::pem($ca->cert), host => 'localhost');
my %port = map { $_ => 0 + $rabbit->listen_tls(%{ $server{$_} }) } keys %server;
my $strict_port = 0 + $rabbit->listen_tls(%{ $server{right} }, verify => 1);
my $old_port = 0 + $rabbit->listen_tls(%{ $server{right} }, versions => "'tlsv1.1'");

accepted_ok('TLS', %tls, port => $port{right});
accepted_ok('TLS to an address', %tls, port => $port{right}, host => '127.0.0.1');
accepted_ok('TLS with several authorities', %tls, port => $port{right},
	tls_ca => TestCa::pem($other_ca->cert) . TestCa::pem($ca->cert));
refused_ok('another authority', qr/certificate|verify/i, %tls, port => $port{right},
	tls_ca => TestCa::pem($other_ca->cert));
refused_ok('the authorities of the system', qr/certificate|verify/i, port => $port{right},
	host => 'localhost', tls => JSON::PP::true);
refused_ok('a certificate for another host', qr/host/i, %tls, port => $port{stranger});
refused_ok('a certificate for a name, at an address', qr/IP address|host/i,
	%tls, port => $port{stranger}, host => '127.0.0.1');
refused_ok('a certificate that has expired', qr/expired/, %tls, port => $port{expired});
refused_ok('a server that speaks plain text', qr/./, %tls, port => 0 + $rabbit->port);
refused_ok('a server that wants TLS, without', qr/./, port => $port{right});
refused_ok('TLS 1.1', qr/./, %tls, port => $old_port);

# Nothing of the login is sent before the server is verified
my $listener = silent_listener();
$name = create(%tls, port => 0 + $listener->sockport, connect_timeout => 1);
$session->do('SELECT dispatch.publish(?, ?, NULL, backend => ?)', undef, 'x', 's', $name);
my $peer = $listener->accept;
my $first = '';
sysread $peer, $first, 4096;
like($first, qr/\A\x16\x03/, 'what is said first is a TLS handshake');
unlike($first, qr/AMQP|alice|canary/, 'and nothing of the login');
$session->do('SELECT dispatch.drop_backend(?, true)', undef, $name);

# Certificates of clients
refused_ok('no certificate, where one is wanted', qr/certificate|TLS|handshake/i,
	%tls, port => $strict_port);
accepted_ok('a certificate', %tls, port => $strict_port,
	tls_certificate => TestCa::pem($visitor->{cert}), tls_key => TestCa::pem($visitor->{key}));
refused_ok('a certificate of another authority', qr/certificate|TLS|alert|closed|broke/i,
	%tls, port => $strict_port, tls_certificate => TestCa::pem($other_visitor->{cert}),
	tls_key => TestCa::pem($other_visitor->{key}));

# What cannot work is refused when it is set
my $pem = TestCa::pem($visitor->{cert});
my $key = TestCa::pem($visitor->{key});
my $locked = TestCa::pem($encrypted->{key});
foreach (
	[ 'an encrypted key', qr/encrypted|passphrase/i, tls_certificate => $pem, tls_key => $locked ],
	[ 'a key of another certificate', qr/key/i, tls_certificate => $pem,
		tls_key => TestCa::pem($other_visitor->{key}) ],
	[ 'a key without a certificate', qr/certificate/i, tls_key => $key ],
	[ 'a certificate without a key', qr/key/i, tls_certificate => $pem ],
	[ 'a key that is none', qr/key|PEM/i, tls_certificate => $pem, tls_key => 'canary key' ],
	[ 'half a key', qr/key|PEM/i, tls_certificate => $pem, tls_key => substr($key, 0, 100) ],
	[ 'a certificate that is none', qr/certificate|PEM/i, tls_certificate => 'x', tls_key => $key ],
	[ 'authorities that are none', qr/tls_ca|certificate|PEM/i, tls_ca => '/etc/passwd' ])
{
	my ($what, $pattern, %options) = @$_;

	ok(!eval { create(%tls, port => $strict_port, %options); 1 }, "refused when set: $what");
	like($@, $pattern, "$what: the reason is given");
	unlike($@, qr/canary|root:/, "$what: no secret in it");
}

# ---- Secrets

wait_until(sub { log_lines($node, qr/ACCESS_REFUSED/) }, 'the log has a refused login');
my @shown = map { @$_ } map { $session->selectcol_arrayref($_) } (
	'SELECT b::text FROM dispatch.backends AS b',
	'SELECT s::text FROM dispatch.backend_status AS s',
	'SELECT e::text FROM dispatch.events AS e',
	q(SELECT a::text FROM pg_stat_activity AS a WHERE backend_type LIKE 'dispatch%'));
is_deeply([ grep { /canary|PRIVATE KEY/ } @shown ], [], 'no secret in a view');
is_deeply([ log_lines($node, qr/canary|PRIVATE KEY/) ], [], 'no secret in the log');
# Warnings there must be.
log_ok($node, qr/(?!)/);
$node->stop;
done_testing();
