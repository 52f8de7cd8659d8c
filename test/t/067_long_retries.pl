# Long events that are tried again: they are read and sent together, as many as
# dispatch.batch_bytes allows, not one at a time.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use SqlSink;

my $node = new_cluster('long', q(
	dispatch.batch_bytes = '8MB'
	dispatch.max_retries = 0
	log_statement = none));
my $session = session($node);

sub sql { return value_of($session, @_); }

$session->do('CREATE EXTENSION dispatch');
create_sink($session, q(
		CREATE TABLE sink.calls (events int);
		CREATE TABLE sink.state (mended boolean);
		INSERT INTO sink.state VALUES (false)),
	sql => q(
		INSERT INTO sink.calls SELECT cardinality(events);
		SELECT event_id, 'not yet', false FROM unnest(events)
		WHERE NOT (SELECT mended FROM sink.state)));
create_sink_backend($session, 'default');

# Publishes, lets all of it fail, and tries it again; returns how often the function
# was called until all was delivered.
sub calls_for
{
	my ($count, @publish) = @_;

	$session->do('UPDATE sink.state SET mended = false');
	$session->do($_) foreach @publish;
	wait_until(sub { sql('SELECT count(*) FROM dispatch.dead_letters') == $count },
		'dead letters', 60);
	$session->do('TRUNCATE sink.calls');
	$session->do('UPDATE sink.state SET mended = true');
	is(sql('SELECT dispatch.retry_failed()'), $count, 'all are to be tried again');
	wait_until(sub { (sql('SELECT sum(events) FROM sink.calls') // 0) == $count }, 'delivery', 120);
	return sql('SELECT count(*) FROM sink.calls');
}

my $noise = q(SELECT to_jsonb(string_agg(md5(i || '.' || j), ''))
	FROM generate_series(1, 600) AS j);
my $calls = calls_for(900, qq(SELECT count(dispatch.publish('t', 's', ($noise)))
	FROM generate_series(1, 900) AS i));
cmp_ok($calls, '<=', 10, '900 events of 20 kB: 18 MB, in pieces of 8 MB');

$calls = calls_for(301,
	q(SELECT count(dispatch.publish('t', 's', to_jsonb(i))) FROM generate_series(1, 300) AS i),
	q(SELECT dispatch.publish('t', 's', to_jsonb(repeat('0123456789abcdef', 1250000)))));
cmp_ok($calls, '<=', 5, 'small ones before one of 20 MB');

$node->stop;
done_testing();
