# README.md, docs/redis.md and docs/security.md: the commands that they print run,
# in that order, and what the pages say of the results is so.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use DocPage;
use PostgreSQL::Test::Utils;
use TcpProxy;

my $CHECKED = qr/^t\|/m;

my $redis = RedisServer->new;
# Of the pages' password
my $locked = RedisServer->new(conf => { requirepass => 'secret' });
my $node = new_cluster('pages', q(
	dispatch.sleep_time = '1h'
	dispatch.retry_delay = '1h'
	log_statement = 'all'));

sub sql
{
	my ($database, $query, @arguments) = @_;

	return scalar session($node, $database)->selectrow_array($query, undef, @arguments);
}

sub settled
{
	my ($database, @backend) = @_;

	return sql($database, "SELECT dispatch.flush('60s'" . (@backend ? ', ?)' : ')'), @backend);
}

# A page for a server, whose client has to be told the port, too.
sub page_for
{
	my ($file, $server) = @_;

	return DocPage->new($file, localhost => '127.0.0.1', 6379 => $server->port,
		'redis-cli' => 'redis-cli -p ' . $server->port);
}

# The fields that a consumer of the group has read
sub fields_read
{
	my ($page, $commands) = @_;
	my ($group, $read, $ack) = $commands =~ /(.+)/g;

	$page->runs_in_shell($group);
	my $out = $page->runs_in_shell($read);
	my ($id) = $out =~ /(\d+-\d+)/;
	$ack =~ s/\d+-\d+$/$id/;
	is($page->runs_in_shell($ack), "1\n", 'and acknowledges');
	return $out;
}

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(readme redis security);

# ---- README.md

my $page = page_for('README.md', $redis);
my ($extension, $start, $transaction, @more) = $page->blocks('sql');

is(scalar @more, 0, 'README.md: three blocks of SQL');
$page->runs($node, 'readme', $extension);
my @lines = split /\n/, $page->runs($node, 'readme', $start);
like($lines[1], $CHECKED, 'the backend can be reached');
is("$lines[3] $lines[4]", 't default|running|0|1', 'flush() is true, and the event is published');
$page->runs($node, 'readme', $transaction);
ok(settled('readme'), 'the event of the transaction is settled');
is_deeply([ map { $_->{order} } stream_data($redis) ], [ 1, 2 ], 'both are in the stream');
my ($shell) = grep { /XREADGROUP/ } $page->blocks('sh');
my $read = fields_read($page, $shell);
like($read, qr/^$_$/m, "a consumer sees $_") foreach qw(
  event_id event_type source timestamp cloud_event);
$node->safe_psql('readme', 'CREATE ROLE app');
$page->runs($node, 'readme', $page->{text} =~ /`(SELECT dispatch\.grant_publish\('app'\))`/);
is(sql('readme', q(SELECT has_function_privilege('app', oid, 'EXECUTE') FROM pg_proc
	WHERE oid::regproc::text = 'dispatch.publish')), 1, 'the role may publish');

# Without Redis
my ($notify) = $page->{text} =~ /`(SELECT dispatch\.create_backend\('default', 'notify'\))`/;
$node->safe_psql('postgres', "CREATE EXTENSION dispatch; $notify");
my $listener = session($node);
$listener->do('LISTEN dispatch');
like($page->runs($node, 'postgres', join '', grep { !/create_backend/ } $page->statements($start)),
	qr/^default\|running\|0\|1$/m, 'the same with LISTEN');
my $heard;
wait_until(sub { $listener->do('SELECT 1'); $heard = $listener->pg_notifies }, 'a notification');
like($heard->[2], qr/"order\.created"/, 'which is heard');
$listener->disconnect;

# ---- docs/redis.md

$redis->client->flushall;
$page = page_for('docs/redis.md', $redis);
my ($streams, $pubsub, $login, @others) = $page->blocks('sql');
my ($consumer, $rights, @other_commands) = $page->blocks('sh');

is(@others + @other_commands, 0, 'docs/redis.md: its blocks');
$node->safe_psql('redis', 'CREATE EXTENSION dispatch');
$page->runs($node, 'redis', $streams);
ok(settled('redis'), 'the events are settled');
my ($plain) = $redis->xrange_all('events');
is("@{ $plain->{names} }", 'event_id event_type source timestamp cloud_event',
	'the fields, in the order of the page');
my ($named) = $redis->xrange_all('orders');
is("@{ $named->{names} }", 'event_id event_type source timestamp cloud_event tenant',
	'those of the event come after ours');
like(fields_read($page, $consumer), qr/order\.created/, 'a consumer reads');

my $subscriber = $redis->client;
$subscriber->subscribe('news', sub { $heard = $_[0] });
# It relies on the port that is Redis's own.
$pubsub =~ s/"mode"/'"port": ' . $redis->port . ', "mode"'/e;
$page->runs($node, 'redis', $pubsub);
sql('redis', q(SELECT dispatch.publish('told', 's', '7', backend => 'news')));
ok(settled('redis', 'news'), 'an event of publish/subscribe');
wait_until(sub { $subscriber->wait_for_messages(0.1); $heard =~ /"told"/ }, 'what is said');
like($heard, qr/\A\{"specversion.*"data": 7}\z/, 'who listens hears the body');

$page->runs_in_shell($rights);
like($page->runs($node, 'redis', $login), $CHECKED, 'the user of the page has rights enough');
sql('redis', q(SELECT dispatch.publish('t', 's', '1')));
ok(settled('redis'), 'an event is sent with them');
is(scalar(my @sent = $redis->xrange_all('events')), 2, 'and has arrived');
sql('redis', q(SELECT dispatch.publish('t', 's', '1', options => '{"stream_name": "orders"}')));
my $last_error = q(SELECT last_error FROM dispatch.backend_status WHERE name = 'default');
wait_until(sub { (sql('redis', $last_error) // '') =~ /NOPERM/ }, 'what they do not include');
is(sql('redis', q(SELECT status || attempts FROM dispatch.events ORDER BY event_id DESC LIMIT 1)),
	'retrying0', 'an event for another key waits, and loses no attempt');

# ---- docs/security.md

$page = page_for('docs/security.md', $locked);
my $stunnel = TcpProxy->new($locked->host, $locked->port);
my ($roles, $secret, $tunnel, @rest) = $page->blocks('sql');

is(scalar @rest, 0, 'docs/security.md: three blocks of SQL');
$node->safe_psql('readme', 'DROP OWNED BY app; DROP ROLE app');
$node->safe_psql('security', 'CREATE EXTENSION dispatch');
create_redis_backend(
	$node, $locked, database => 'security', username => undef, password => undef);
my @grants = $page->statements($roles);
like($grants[-1], qr/revoke_operate/, 'the last one takes away what was given');
$page->runs($node, 'security', join "\n", @grants[ 0 .. $#grants - 1 ]);

my %CAN = (
	publish => q(SELECT dispatch.publish('t', 's', '1')),
	look => 'SELECT name, state FROM dispatch.backend_status',
	read => 'SELECT data FROM dispatch.events',
	operate => q(UPDATE dispatch.backends SET batch_size = 500),
	secret => 'SELECT * FROM dispatch.backend_secrets',
	adopt => 'SELECT dispatch.adopt()');

sub may_ok
{
	my ($role, @can) = @_;
	my @could = grep {
		($node->psql('security', "SET ROLE $role; BEGIN; $CAN{$_}; ROLLBACK", on_error_stop => 1))[0]
		  == 0
	} sort keys %CAN;

	is("@could", join(' ', sort @can), "$role: can what the page says, and no more");
	return;
}

may_ok('app', 'publish');
may_ok('monitoring', 'look');
may_ok('operator', qw(look read operate));
$page->runs($node, 'security', $grants[-1]);
may_ok('operator');

wait_for_state($node, 'default', 'configuration error', 'security');
my $log_position = log_position($node);
$page->runs($node, 'security', $secret);
wait_for_state($node, 'default', 'running', 'security');
my ($log) = join '', log_lines($node, qr/./, $log_position);
unlike($log, qr/"secret"/, 'what is typed so is not logged');
like($log, qr/SET LOCAL/, 'though statements are');
is(sql('security', q(SELECT options ->> 'password' FROM dispatch.backends)), '********',
	'nor shown');
$tunnel =~ s/6390/$stunnel->port/e;
$page->runs($node, 'security', $tunnel);
sql('security', q(SELECT dispatch.publish('t', 's', '1')));
ok(settled('security'), 'through a tunnel');
cmp_ok($stunnel->stats->{accepted}, '>', 0, 'indeed');

log_ok($node, qr/WARNING:.*could not/);
$node->stop;
done_testing();
