# A dump that is restored into the very database that it was taken from: nothing
# is sent while it is being loaded, the backends are there although no dump has
# their secrets, and after adopt() what was undelivered is sent, once.  Retention
# never takes events of a backend that is missing, unless it was dropped.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use PostgreSQL::Test::Utils;

my $SECRET = canary();

my $redis = RedisServer->new;
my $node = new_cluster('in_place', "dispatch.published_retention = '3 s'");
my $dir = PostgreSQL::Test::Utils::tempdir('dumps');

sub ask
{
	my ($query, @arguments) = @_;

	return scalar session($node, 'app')->selectrow_array($query, undef, @arguments);
}

$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', 'CREATE EXTENSION dispatch');
$redis->cli('ACL', 'SETUSER', 'alice', 'on', ">$SECRET", '~*', '+@all');
create_redis_backend($node, $redis, database => 'app', username => 'alice', password => $SECRET);
create_redis_backend($node, $redis, database => 'app', name => 'paused', stream_name => 'paused',
	username => 'alice', password => $SECRET);
$node->safe_psql('app', q(
	SELECT dispatch.create_backend('local', 'notify');
	SELECT dispatch.pause_backend('local');
	SELECT dispatch.publish('t', 's', to_jsonb(i)) FROM generate_series(1, 10) AS i));
is(ask('SELECT dispatch.flush(backend => ?)', 'default'), 1, 'some events are delivered');
$node->safe_psql('app', q(
	SELECT dispatch.pause_backend('paused');
	SELECT dispatch.publish('t', 's', to_jsonb(i), backend => 'paused', key => 'k')
		FROM generate_series(1, 5) AS i;
	SELECT dispatch.publish('t', 's', to_jsonb(i), backend => 'local', key => 'k')
		FROM generate_series(1, 3) AS i));
wait_for_state($node, 'paused', 'paused', 'app');
sleep 0.3;						# the position is stored
my $backends = ask(q(SELECT string_agg(id || name || options || owner, ' ' ORDER BY id)
	FROM dispatch.backends));
my $positions = ask('SELECT count(*) FROM dispatch.positions');

$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', "$dir/dump", $node->connstr('app') ], 'pg_dump');
$node->command_ok(
	[ 'pg_restore', '--clean', '--exit-on-error', '-d', $node->connstr('app'), "$dir/dump" ],
	'pg_restore --clean into the same database');

is(ask(q(SELECT string_agg(id || name || options || owner, ' ' ORDER BY id)
	FROM dispatch.backends)), $backends, 'the backends are there');
is(ask(q(SELECT string_agg(DISTINCT state, ' ') FROM dispatch.backend_status)), 'not adopted',
	'they send nothing yet');
is(ask(q(SELECT count(*) FROM dispatch.events WHERE status = 'pending')), 8,
	'what was undelivered still is');
is(ask('SELECT count(*) FROM dispatch.positions'), $positions,
	'how far they were settled is known');

# Longer than events are kept
sleep 8;
is(ask(q(SELECT count(*) FROM dispatch.events WHERE status = 'pending')), 8,
	'and retention takes none of it');
is($redis->client->xlen('paused') + $redis->client->xlen('events'), 10, 'nothing was sent');

my $session = session($node, 'app');
$session->do('SELECT dispatch.adopt()');
$session->do(q(SELECT dispatch.resume_backend(name) FROM dispatch.backends));
wait_for_state($node, $_, 'configuration error', 'app') foreach qw(default paused);
like(ask(q(SELECT last_error FROM dispatch.backend_status WHERE name = 'paused')),
	qr/"password".*must be set/, 'adopted, it says which secret is missing');
$session->do('SELECT dispatch.alter_backend(?, ?)', undef, $_, qq({"password": "$SECRET"}))
  foreach qw(default paused);
is(ask(q(SELECT dispatch.flush('20 s'))), 1, 'with the secrets all is delivered');
is_deeply([ stream_data($redis, 'paused') ], [ 1 .. 5 ], 'what was undelivered, once, in order');
is_deeply([ stream_data($redis) ], [ 1 .. 10 ], 'what was delivered before, not again');

# ---- A backend that is missing

$session->do(q(SELECT dispatch.pause_backend('paused'), dispatch.pause_backend('local')));
wait_for_state($node, $_, 'paused', 'app') foreach qw(paused local);
$session->do(q(SELECT dispatch.publish('lost', 's', to_jsonb(i), backend => 'paused')
	FROM generate_series(1, 3) AS i));
$session->do(q(SELECT dispatch.publish('given up', 's', to_jsonb(i), backend => 'local')
	FROM generate_series(1, 3) AS i));
my $lost = ask(q(SELECT id FROM dispatch.backends WHERE name = 'paused'));
# As a restore does that went wrong.
$session->do(q(SET session_replication_role = replica));
$session->do(q(DELETE FROM dispatch.backends WHERE name = 'paused'));
$session->do(q(RESET session_replication_role));
$session->do(q(SELECT dispatch.drop_backend('local', force => true)));
wait_until(
	sub {
		# Something must go on for segments to be in turn.
		ask(q(SELECT dispatch.publish('t', 's', '11')));
		sleep 0.3;
		(ask('SELECT blocked_by FROM dispatch.segments ORDER BY opened_at LIMIT 1') // '')
		  =~ /backend $lost/;
	},
	'blocked_by: a backend that is missing', 20);
is(ask(q(SELECT count(*) FROM dispatch.outbox WHERE event_type = 'lost')), 3,
	'its undelivered events stay');
$session->do('DELETE FROM dispatch.outbox WHERE backend_id = ?', undef, $lost);
wait_until(
	sub {
		ask(q(SELECT dispatch.publish('t', 's', '12')));
		sleep 0.3;
		!ask(q(SELECT count(*) FROM dispatch.outbox WHERE event_type = 'given up'));
	},
	'events that were given up go with their segment', 20);
wait_until(
	sub { !ask('SELECT count(*) FROM dispatch.positions WHERE dropped') },
	'and the last that is known of their backend', 10);

log_ok($node, qr/\[\d+\] (?:FATAL|WARNING:.*could not)/);
$node->stop;
done_testing();
