# docs/kafka.md and docs/rabbitmq.md: the SQL that they print runs against real
# brokers, in that order, and what the pages say of the results is so.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use DocPage;
use KafkaBackend;
use PostgreSQL::Test::Utils;
use RabbitServer;
use TestCa;

my $CHECKED = qr/^t\|/m;

my $ca = TestCa->new('ours');
my $server = $ca->issue('server', hosts => [ 'DNS:localhost', 'IP:127.0.0.1' ]);
my $node = new_cluster('pages', q(dispatch.sleep_time = '1h'));

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(kafka rabbitmq);
$node->safe_psql($_, 'CREATE EXTENSION dispatch') foreach qw(kafka rabbitmq);

sub settled_ok
{
	my ($database, $what) = @_;

	is($node->safe_psql($database, q(SELECT dispatch.flush('30s'))), 't', "$database: $what");
	is($node->safe_psql($database, q(SELECT count(*) FROM dispatch.events
		WHERE status <> 'published')), 0, "$database: $what, to the broker");
	return;
}

# ---- docs/kafka.md

my $chain = "$server->{cert}.chain";
append_to_file($chain, TestCa::pem($server->{key}) . TestCa::pem($server->{cert}));
my $kafka = KafkaServer->new(
	listeners => { BOTH => 'SASL_SSL' },
	conf => {
		'listener.name.both.ssl.keystore.type' => 'PEM',
		'listener.name.both.ssl.keystore.location' => $chain,
		'listener.name.both.sasl.enabled.mechanisms' => 'SCRAM-SHA-512',
		'listener.name.both.scram-sha-512.sasl.jaas.config' =>
		  'org.apache.kafka.common.security.scram.ScramLoginModule required;',
		'authorizer.class.name' => 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
		'super.users' => 'User:ANONYMOUS' });
my $page = DocPage->new('docs/kafka.md', 'localhost:9092' => $kafka->servers);
my ($example, $login, $properties, @more) = $page->blocks('sql');
my ($topics, $kcat) = $page->blocks('sh');

is(scalar @more, 0, 'docs/kafka.md: three blocks of SQL');
my ($topic, $partitions) = $topics =~ /--topic (\w+) --partitions (\d+)/;
$kafka->create_topic($topic, partitions => $partitions);

my $out = $page->runs($node, 'kafka', $example);
like($out, $CHECKED, 'check_backend() is pleased');
settled_ok('kafka', 'the example is delivered');
my @read = split /\n/, $page->runs_in_shell($kcat);
# What is printed on the page ends in the first of two records.
my ($head, $value) = $page->{text} =~ /^```\n(partition .*?)\n(.*?)\n```$/ms;
is($read[0], $head, 'partition, key and headers are those on the page');
$value =~ s/^(.*?"id": ")[^"]*", \.\.\., (.*)$/\Q$1\E[0-9a-f-]{36}", .*\Q$2\E/;
like($read[1], qr/\A$value\z/, 'and so is the value');
is($read[2], "$head,tenant=acme", 'the other one has its header, in the same partition');
my ($late) = grep { $_->{value} =~ /"order": 2/ } $kafka->records($topic);
is($late->{timestamp}, 1700000000000, 'and its timestamp');

$kafka->ask('add_user', name => 'outbox', password => 'secret', mechanism => 'SCRAM-SHA-512');
$kafka->ask('allow', user => 'outbox', operation => $_, topic => $topic)
  foreach qw(WRITE DESCRIBE);
my $pem = TestCa::pem($ca->cert);
$login =~ s/-----BEGIN CERTIFICATE----- \.\.\./$pem/;
my $both = $kafka->servers('BOTH');
$node->safe_psql('kafka',
	qq(SELECT dispatch.alter_backend('default', '{"bootstrap_servers": "$both"}')));
like($page->runs($node, 'kafka', $login), $CHECKED, 'the login works');
$page->runs($node, 'kafka', $properties);
$node->safe_psql('kafka', q(SELECT dispatch.publish('t', 's', '"later"')));
settled_ok('kafka', 'with the rights on the page an event is delivered');
my @later = $page->runs_in_shell($kcat) =~ /"data": "later"/g;
is(scalar @later, 1, 'once');

# ---- docs/rabbitmq.md

my $rabbit = RabbitServer->new;
my $client = $rabbit->client;
my $tls_port = $rabbit->listen_tls(%$server);
$page = DocPage->new('docs/rabbitmq.md', 'rabbit1.example.com' => '127.0.0.2',
	'rabbit2.example.com' => '127.0.0.1', 5671 => $tls_port,
	'/etc/ssl/certs/rabbit-ca.pem' => $ca->cert);
my ($first, $headers, $tls, @rest) = $page->blocks('sql');
my ($declared, $users) = $page->blocks('sh');

is(scalar @rest, 0, 'docs/rabbitmq.md: three blocks of SQL');
my ($exchange, $kind) = $declared =~ /exchange name=(\w+) type=(\w+)/;
my ($queue, $type) = $declared =~ /queue name=(\w+) .*"x-queue-type": "(\w+)"/;
my ($pattern) = $declared =~ /routing_key='(.*)'/;
$client->exchange($exchange, $kind);
$client->queue($queue, arguments => { 'x-queue-type' => $type });
$client->bind($queue, $exchange, $pattern);
my ($user, $password) = $users =~ /add_user (\w+) (\w+)/;
my ($configure, $write, $reading) = $users =~ /-p \/ $user '(.*)' '(.*)' '(.*)'/;
$rabbit->add_user($user, $password, configure => $configure, write => $write, read => $reading);

$first =~ s/"host"/'"port": ' . $rabbit->port . ', "host"'/e;
like($page->runs($node, 'rabbitmq', $first), $CHECKED, 'check_backend() is pleased');
settled_ok('rabbitmq', 'the rights of the page are enough, for an exchange');
my ($message) = $client->drain($queue);
is("$message->{exchange} $message->{routing_key}", 'orders order.created',
	'the routing key is the type');
like($message->{body}, qr/"data": \{"order": 1, "total": 99\.90\}\}\z/, 'the event');

$page->runs($node, 'rabbitmq', $headers);
settled_ok('rabbitmq', 'an event with headers');
($message) = $client->drain($queue);
my %property = %{ $message->{properties} };
is_deeply(
	$property{headers},
	{
		# RabbitMQ's own
		'x-delivery-count' => $property{headers}{'x-delivery-count'},
		tenant => [ S => 'acme' ], attempt => [ I => 1 ], rate => [ d => 1.5 ],
		vip => [ t => JSON::PP::true ], note => [ V => undef ],
		tags => [ A => [ [ S => 'a' ], [ S => 'b' ] ] ],
		origin => [ F => { ip => [ S => '10.0.0.1' ] } ], since => [ T => 1700000000 ],
		signature => [ x => 'AAEC/w==' ] },
	'headers have the types of the table');
is("@property{qw(priority correlation_id)}", '5 c-17', 'properties');
ok($property{expiration} > 3_500_000 && $property{expiration} <= 3_600_000,
	'an expiration of an hour, in milliseconds');

$node->safe_psql('rabbitmq',
	q(SELECT dispatch.alter_backend('default', '{"exchange": "", "routing_key": "billing"}')));
$node->safe_psql('rabbitmq', q(SELECT dispatch.publish('t', 's')));
settled_ok('rabbitmq', 'and for the default exchange');
like($page->runs($node, 'rabbitmq', $tls), qr/\A\z/, 'TLS');
like($node->safe_psql('rabbitmq', q(SELECT * FROM dispatch.check_backend('default'))),
	$CHECKED, 'connects');
$node->safe_psql('rabbitmq', q(SELECT dispatch.publish('t', 's')));
settled_ok('rabbitmq', 'an event over TLS');
is(scalar(my @messages = $client->drain($queue)), 2, 'both are there');

log_ok($node);
$node->stop;
done_testing();
