# Logins and TLS, right and wrong: what is wrong is a state that an operator can
# see and mend, and costs no event an attempt; nothing is sent to a broker that
# is not who it should be; and no secret shows up anywhere.

use strict;
use warnings;

use JSON::PP ();
use Test::More;

use DispatchTest;
use KafkaBackend;
use PostgreSQL::Test::Utils;
use TestCa;

# Each is a secret: right passwords, wrong ones, those of keys
my %SECRET = (
	plain => 'Kieselguhr-7f3a', scram256 => 'Guillemot, 91=cc', scram512 => 'Zwiebel"\\%s%n-4d',
	wrong => 'Ornithop-55e0', key => 'Quisling-a0b1');
my $ANY_SECRET = qr/Kieselguhr|Guillemot|Zwiebel|Ornithop|Quisling|BEGIN [A-Z ]*PRIVATE/;

my $CONNECT_SECONDS = 5;
my $NOT_CONNECTED = qr/^(?:configuration error|outage)$/;

my $ca = TestCa->new('ours');
my $other_ca = TestCa->new('theirs');
my @here = (hosts => [ 'DNS:localhost', 'IP:127.0.0.1' ]);
my $server = $ca->issue('server', @here);
my $elsewhere = $ca->issue('elsewhere', hosts => ['DNS:elsewhere.example']);
my $expired = $ca->issue('expired', @here, expired => 1);
my $client = $ca->issue('client');
my $locked = $ca->issue('locked', password => $SECRET{key});
my $stranger = $other_ca->issue('stranger');

# How a listener shows who it is, in files that Java reads
sub identity
{
	my ($listener, $files) = @_;
	my $chain = "$files->{cert}.$listener";

	append_to_file($chain, TestCa::pem($files->{key}) . TestCa::pem($files->{cert}));
	return (
		"listener.name.$listener.ssl.keystore.type" => 'PEM',
		"listener.name.$listener.ssl.keystore.location" => $chain,
		"listener.name.$listener.ssl.truststore.type" => 'PEM',
		"listener.name.$listener.ssl.truststore.location" => $ca->cert);
}

my $module = 'org.apache.kafka.common.security';
my $kafka = KafkaServer->new(
	listeners => {
		TLS => 'SSL', ELSEWHERE => 'SSL', EXPIRED => 'SSL', MUTUAL => 'SSL',
		LOGIN => 'SASL_PLAINTEXT', BOTH => 'SASL_SSL' },
	conf => {
		identity('tls', $server),
		identity('elsewhere', $elsewhere),
		identity('expired', $expired),
		identity('mutual', $server),
		identity('both', $server),
		'listener.name.mutual.ssl.client.auth' => 'required',
		(
			map {
				("listener.name.$_.sasl.enabled.mechanisms" => 'PLAIN,SCRAM-SHA-256',
					"listener.name.$_.plain.sasl.jaas.config" =>
					  "$module.plain.PlainLoginModule required user_alice=\"$SECRET{plain}\";",
					"listener.name.$_.scram-sha-256.sasl.jaas.config" =>
					  "$module.scram.ScramLoginModule required;",
					"listener.name.$_.scram-sha-512.sasl.jaas.config" =>
					  "$module.scram.ScramLoginModule required;")
			} qw(login both)),
		'listener.name.both.sasl.enabled.mechanisms' => 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
		'authorizer.class.name' => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
		'allow.everyone.if.no.acl.found' => 'true',
		'super.users' => 'User:ANONYMOUS' });
my $node = new_cluster('security', q(
	log_statement = none
	log_min_error_statement = panic
	log_min_messages = debug5
	log_parameter_max_length_on_error = 0
	log_parameter_max_length = 0
	dispatch.max_retries = 0
	dispatch.retry_delay = '100 ms'));
my $session = session($node);

$session->do('CREATE EXTENSION dispatch');
$kafka->ask('add_user', name => 'bob', password => $SECRET{scram256}, mechanism => 'SCRAM-SHA-256');
$kafka->ask('add_user', name => 'bob', password => $SECRET{scram512}, mechanism => 'SCRAM-SHA-512');
$kafka->create_topic($_) foreach qw(events forbidden);

sub sql { return value_of($session, @_); }

sub state_of { return sql('SELECT state FROM dispatch.backend_status WHERE name = ?', @_); }

sub error_of
{
	return sql('SELECT last_error FROM dispatch.backend_status WHERE name = ?', @_) // '';
}

my $number = 0;

sub publish
{
	my ($backend, %args) = @_;

	sql(q(SELECT dispatch.publish('t', 's', to_jsonb(?::int), backend => ?, key => 'k',
		options => ?)), ++$number, $backend, $args{options} // '{}');
	return $number;
}

sub arrived_ok
{
	my ($event, $what) = @_;

	is(scalar(grep { $_ == $event } topic_data($kafka)), 1, "$what: the event is there, once");
	return;
}

# works_ok(what, listener, options)
sub works_ok
{
	my ($what, $listener, %options) = @_;

	create_kafka_backend($node, $kafka, name => $what, listener => $listener, %options);
	my $event = publish($what);
	ok(sql(q(SELECT dispatch.flush('30 s', ?)), $what), "$what: delivered");
	arrived_ok($event, $what);
	my ($ok, $detail) = $session->selectrow_array(
		'SELECT ok, detail FROM dispatch.check_backend(?)', undef, $what);
	ok($ok, "$what: check_backend() connects") or diag($detail);
	return;
}

# fails_ok(what, listener, state, pattern of the error, options): returns what
# mended_ok() takes first.
sub fails_ok
{
	my ($what, $listener, $state, $error, %options) = @_;

	create_kafka_backend(
		$node, $kafka, name => $what, listener => $listener, connect_timeout => $CONNECT_SECONDS,
		%options);
	my $event = publish($what);
	wait_until(sub { state_of($what) =~ $NOT_CONNECTED }, "$what: trouble", 30);
	like(state_of($what), $state, "$what: the state");
	like(error_of($what), $error, "$what: the reason");
	my ($ok, $detail) = $session->selectrow_array(
		'SELECT ok, detail FROM dispatch.check_backend(?)', undef, $what);
	ok(!$ok, "$what: check_backend() does not connect") or diag($detail);
	like($detail, $error, "$what: and says the same");
	is(sql(q(SELECT status || ' ' || attempts FROM dispatch.events WHERE backend = ?), $what),
		'pending 0', "$what: the event waits, and has lost no attempt");
	return ($event, $what);
}

# mended_ok(what fails_ok() returned, listener, options): those mend it, without
# a restart of anything.
sub mended_ok
{
	my ($event, $what, $listener, %options) = @_;

	$session->do(
		'SELECT dispatch.alter_backend(?, ?)', undef, $what,
		JSON::PP->new->encode({ bootstrap_servers => $kafka->servers($listener), %options }));
	ok(sql(q(SELECT dispatch.flush('30 s', ?)), $what), "$what: mended");
	arrived_ok($event, $what);
	return;
}

# ---- Logins

my %alice = (
	security_protocol => 'sasl_plaintext', sasl_mechanism => 'PLAIN',
	username => 'alice', password => $SECRET{plain});
my %bob = (
	%alice, sasl_mechanism => 'SCRAM-SHA-256', username => 'bob', password => $SECRET{scram256});
my %trusts = (tls_ca => TestCa::pem($ca->cert));
my $login_failed = qr/authenticat|credential|SASL/i;
my $configuration = qr/^configuration error$/;

works_ok('PLAIN', 'LOGIN', %alice);
works_ok('SCRAM-SHA-256', 'LOGIN', %bob);
works_ok(
	'SCRAM-SHA-512 and TLS', 'BOTH', %bob, %trusts, security_protocol => 'sasl_ssl',
	sasl_mechanism => 'SCRAM-SHA-512', password => $SECRET{scram512});

mended_ok(
	fails_ok(
		'a wrong password', 'LOGIN', $configuration, $login_failed, %alice,
		password => $SECRET{wrong}),
	'LOGIN', password => $SECRET{plain});
mended_ok(
	fails_ok(
		'a wrong password, SCRAM', 'LOGIN', $configuration, $login_failed, %bob,
		password => $SECRET{wrong}),
	'LOGIN', password => $SECRET{scram256});
mended_ok(
	fails_ok(
		'a user that there is not', 'LOGIN', $configuration, $login_failed, %alice,
		username => 'mallory'),
	'LOGIN', username => 'alice');
mended_ok(
	fails_ok(
		'a mechanism that is not offered', 'LOGIN', $configuration, qr/mechanism/i, %bob,
		sasl_mechanism => 'SCRAM-SHA-512'),
	'LOGIN', sasl_mechanism => 'SCRAM-SHA-256');
mended_ok(
	fails_ok('no login', 'LOGIN', $NOT_CONNECTED, qr/./), 'LOGIN', %alice);

# ---- TLS

my %tls = (%trusts, security_protocol => 'ssl');
my %shows = map {
	$_->[0] => {
		tls_certificate => TestCa::pem($_->[1]{cert}), tls_key => TestCa::pem($_->[1]{key}) }
} [ client => $client ], [ locked => $locked ], [ stranger => $stranger ];
my $not_trusted = qr/certificate|SSL|TLS/i;

works_ok('TLS', 'TLS', %tls);
works_ok('a certificate of ours', 'MUTUAL', %tls, %{ $shows{client} });
works_ok(
	'a key with a password', 'MUTUAL', %tls, %{ $shows{locked} },
	tls_key_password => $SECRET{key});

mended_ok(
	fails_ok(
		'another CA', 'TLS', $configuration, $not_trusted, %tls,
		tls_ca => TestCa::pem($other_ca->cert)),
	'TLS', %trusts);
mended_ok(
	fails_ok(
		'no CA', 'TLS', $configuration, $not_trusted, security_protocol => 'ssl'),
	'TLS', %trusts);
mended_ok(
	fails_ok('another host', 'ELSEWHERE', $configuration, $not_trusted, %tls), 'TLS');
mended_ok(
	fails_ok('an expired certificate', 'EXPIRED', $configuration, $not_trusted, %tls), 'TLS');
mended_ok(
	fails_ok('no certificate of ours', 'MUTUAL', $NOT_CONNECTED, qr/./, %tls),
	'MUTUAL', %{ $shows{client} });
mended_ok(
	fails_ok(
		'a certificate of a stranger', 'MUTUAL', $NOT_CONNECTED, qr/./, %tls,
		%{ $shows{stranger} }),
	'MUTUAL', %{ $shows{client} });
mended_ok(
	fails_ok(
		'a wrong password of the key', 'MUTUAL', $configuration, qr/key/i, %tls,
		%{ $shows{locked} }, tls_key_password => $SECRET{wrong}),
	'MUTUAL', tls_key_password => $SECRET{key});
mended_ok(
	fails_ok(
		'a CA that is none', 'TLS', $configuration, qr/certificate|ssl|PEM/i, %tls,
		tls_ca => "-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n"),
	'TLS', %trusts);

# The one speaks TLS, the other does not: nothing gets through, least of all the
# password
mended_ok(
	fails_ok(
		'TLS to a broker without', 'LOGIN', $NOT_CONNECTED, qr/./, %alice, %trusts,
		security_protocol => 'sasl_ssl'),
	'BOTH');
mended_ok(fails_ok('no TLS to a broker with', 'TLS', $NOT_CONNECTED, qr/./), 'TLS', %tls);

# ---- Rights: a topic that we may not write to keeps its own events only

$kafka->ask('allow', user => 'alice', operation => 'WRITE', topic => 'forbidden');
create_kafka_backend($node, $kafka, name => 'rights', listener => 'LOGIN', %bob);
publish('rights', options => '{"topic": "forbidden"}');
my $event = publish('rights');
wait_until(sub { grep { $_ == $event } topic_data($kafka) }, 'the event of a topic that is ours');
wait_until(sub { error_of('rights') =~ /authori[sz]/i }, 'the reason');
pass('a topic that is not ours: others are written to, and the view says why');
is(sql(q(SELECT count(*) FROM dispatch.dead_letters)),
	0, 'a topic that is not ours: no dead letter');
$kafka->ask('allow', user => 'bob', operation => 'WRITE', topic => 'forbidden');
wait_until(sub { 1 == $kafka->records('forbidden') }, 'the right', 60);
pass('a topic that has become ours: its event is written');

# A right that is taken away while all goes well
create_kafka_backend($node, $kafka, name => 'taken', listener => 'LOGIN', %alice);
$kafka->create_topic('taken');
publish('taken', options => '{"topic": "taken"}');
ok(sql(q(SELECT dispatch.flush('30 s', 'taken'))), 'a right that we have');
$kafka->ask(
	'allow', user => 'alice', operation => 'WRITE', topic => 'taken', deny => JSON::PP::true);
publish('taken', options => '{"topic": "taken"}');
wait_until(sub { error_of('taken') =~ /authori[sz]/i }, 'the reason');
is(scalar $kafka->records('taken'), 1, 'and that is taken away');
is(sql(q(SELECT count(*) FROM dispatch.dead_letters)), 0, 'its event waits');

# ---- Secrets

$node->stop;
my $log = slurp_file($node->logfile);
unlike($log, $ANY_SECRET, 'no secret in the log');

# What librdkafka has to say comes in lines of PostgreSQL, from the process that has
# it; its own way is to write to the log itself, from any thread.
my %said = map { $_ => 1 } $log =~ /\[(\d+)\] DEBUG:  librdkafka: /g;
cmp_ok(scalar keys %said, '>', 2, 'librdkafka has something to say');
is(join("\n", grep { !/^(?:\t|\d{4}-\d\d-\d\d .*? \[\d+\] )/ } split /\n/, $log), '',
	'and nobody writes to the log but PostgreSQL');
$node->start;
$session = session($node);
foreach my $relation (qw(backends backend_status events dead_letters event_types))
{
	my $rows = $session->selectcol_arrayref("SELECT x::text FROM dispatch.$relation AS x");

	is(scalar(grep { /$ANY_SECRET/ } @$rows), 0, "no secret in dispatch.$relation");
}
$node->stop;
done_testing();
