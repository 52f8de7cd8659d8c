# What an event consists of is all in the views, whatever it consists of: the
# attributes of a CloudEvent, and bytes.  So a dead letter can be looked at, and
# is sent whole when it is tried again, as it was the first time; when it has
# expired, its content is gone.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use SqlSink;

my $CLOUDEVENT = '{"specversion": "1.0", "id": "i-1", "source": "/s", "type": "given", "time": '
  . '"2025-06-25T10:11:12Z", "datacontenttype": "a/b", "tenant": "acme", "data_base64": "AP8="}';
my $SHOWN = q(event_type, data, attributes, encode(content, 'hex'));

my $node = new_cluster('whole', q(
	dispatch.max_retries = 2
	dispatch.retry_backoff = off
	dispatch.retry_delay = '50 ms'
	dispatch.published_retention = '30 s'), extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);

sub rows { return $session->selectall_arrayref("SELECT $SHOWN FROM $_[0] ORDER BY event_type"); }

$session->do('CREATE EXTENSION dispatch');
# Refuses every event until it is mended, and remembers every attempt.
create_sink($session, q(
		CREATE TABLE sink.attempts (event_id uuid, event_type text, body text);
		CREATE TABLE sink.mended (mended boolean);
		INSERT INTO sink.mended VALUES (false)),
	sql => q(
		INSERT INTO sink.attempts SELECT event_id, event_type, body FROM unnest(events);
		SELECT event_id, 'refused', false FROM unnest(events)
		WHERE NOT (SELECT mended FROM sink.mended)));
create_sink_backend($session, 'default', envelope => undef);

sub mend { $session->do('UPDATE sink.mended SET mended = ?', undef, @_); return; }

my @expected = (
	[ 'binary', undef, '{"datacontenttype": "application/avro"}', '00ff' ],
	[ 'extended', '{"a": 1}', '{"n": 7}', undef ],
	[ 'given', undef, '{"id": "i-1", "time": "2025-06-25T10:11:12Z", "tenant": "acme", '
		  . '"datacontenttype": "a/b"}', '00ff' ],
	[ 'plain', '{"a": 1}', undef, undef ]);

# publish(further arguments of the calls): one event of each kind
sub publish
{
	my ($more) = @_;

	$session->do("SELECT dispatch.publish('plain', 's', '{\"a\": 1}' $more)");
	$session->do("SELECT dispatch.publish('extended', 's', '{\"a\": 1}',
		options => '{\"extensions\": {\"n\": 7}}' $more)");
	$session->do(
		"SELECT dispatch.publish_binary('binary', 's', '\\x00ff', 'application/avro' $more)");
	$session->do("SELECT dispatch.publish_cloudevent('$CLOUDEVENT' $more)");
	return;
}

# ---- Not sent yet

publish(", scheduled_at => 'epoch'::timestamptz + '900 years'");
is_deeply(rows(q(dispatch.events WHERE status = 'scheduled')), \@expected,
	'scheduled events are whole in dispatch.events');
$session->do('TRUNCATE dispatch.scheduled');

# ---- Dead letters

publish('');
wait_until(sub { @{ rows('dispatch.dead_letters') } == 4 }, 'four dead letters');
is_deeply(rows('dispatch.dead_letters'), \@expected, 'dead letters are whole');
is_deeply(rows(q(dispatch.events WHERE status = 'failed')), \@expected,
	'so they are in dispatch.events');

mend(1);
is($session->selectrow_array('SELECT dispatch.retry_failed()'), 4, 'they are tried again');
my $published = q(dispatch.events WHERE status = 'published');
wait_until(sub { @{ rows($published) } == 4 }, 'their delivery');
is_deeply(
	$session->selectall_arrayref(
		q(SELECT event_type, count(*), count(DISTINCT body) FROM sink.attempts
		GROUP BY event_id, event_type ORDER BY event_type)),
	[ map { [ $_, 4, 1 ] } qw(binary extended given plain) ],
	'and go out as in each of the attempts before: with the same id, source and time');
my %body = map { @$_ } @{
	$session->selectall_arrayref('SELECT event_type, body FROM sink.attempts') };
is( $body{plain},
	$session->selectrow_array(
		q(SELECT format('{"specversion": "1.0", "type": "plain", "source": "s", "id": "%s", '
			'"time": "%s", "datacontenttype": "application/json", "data": {"a": 1}}', event_id,
			to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00'))
		FROM dispatch.events WHERE event_type = 'plain')),
	'which are those of its publication');
like($body{binary}, qr/"datacontenttype": "application\/avro", "data_base64": "AP8="}$/,
	'the bytes, and what they are');
like($body{extended}, qr/"n": 7, "data": \{"a": 1}}$/, 'the extension');
like($body{given}, qr/"i-1", "time": "2025-06-25T10:11:12Z", .*"tenant": "acme", "data_base64": "AP8/,
	'all that was given');
is_deeply(rows($published), \@expected,
	'published events are whole in dispatch.events');

# ---- Expired

mend(0);
publish('');
wait_until(sub { @{ rows('dispatch.dead_letters') } == 4 }, 'four dead letters again');
$session->do(q(ALTER SYSTEM SET dispatch.failed_retention = '1 s'));
$session->do('SELECT pg_reload_conf()');
wait_until(sub { !@{ rows('dispatch.dead_letters') } }, 'the end of dead letters', 30);
is($session->selectrow_array(
		q(SELECT count(*) FROM dispatch.exceptions
		WHERE coalesce(data::text, options::text, content::text) IS NOT NULL)),
	0, 'the content of an expired dead letter is gone');
is($session->selectrow_array(
		q(SELECT count(*) FROM dispatch.exceptions WHERE status = 'expired')),
	4, 'but not that there was one');

is_deeply([ log_lines($node, qr/PANIC|TRAP|terminated by signal|leak/) ],
	[], 'no crash in the log');
$node->stop;
done_testing();
