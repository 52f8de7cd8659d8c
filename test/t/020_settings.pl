# Whatever an administrator sets for the sake of sessions, workers deliver the
# same bytes; our own settings take effect with a reload; and what goes on the
# wire is UTF-8, whatever the encoding of the database.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my %HOSTILE = (
	default_transaction_read_only => 'on',
	default_transaction_isolation => 'serializable',
	default_transaction_deferrable => 'on',
	lock_timeout => '1ms',
	statement_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	idle_session_timeout => '1ms',
	search_path => 'evil, pg_catalog',
	session_replication_role => 'replica',
	DateStyle => 'SQL, DMY',
	IntervalStyle => 'sql_standard',
	TimeZone => 'Asia/Kathmandu',
	extra_float_digits => '-15',
	client_encoding => 'latin1',
	default_tablespace => 'space',
	bytea_output => 'escape',
	array_nulls => 'off',
	transform_null_equals => 'on',
	standard_conforming_strings => 'off',
	quote_all_identifiers => 'on',
	plan_cache_mode => 'force_generic_plan',
	enable_indexscan => 'off',
	force_parallel_mode => 'on',
	row_security => 'off',
	check_function_bodies => 'off');

# For the sessions of this test: what would keep it from working.
$ENV{PGOPTIONS} = join ' ', map { "-c $_" } qw(
  default_transaction_read_only=off statement_timeout=0 idle_session_timeout=0
  idle_in_transaction_session_timeout=0 client_encoding=utf8 session_replication_role=origin
  standard_conforming_strings=on);

my $redis = RedisServer->new;
my $node = new_cluster('settings', 'autovacuum = off', extra => [ '--no-sync', '--encoding=UTF8' ]);
$HOSTILE{debug_parallel_query} = delete $HOSTILE{force_parallel_mode} if $node->pg_version >= 16;

sub sql { return $node->safe_psql('postgres', $_[0]); }

mkdir $node->basedir . '/space' or die "mkdir: $!";
sql("CREATE TABLESPACE space LOCATION '" . $node->basedir . "/space'");
sql(q(
	CREATE EXTENSION dispatch;
	CREATE SCHEMA evil;
	CREATE FUNCTION evil.int_int(int, int) RETURNS bool
		LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
	CREATE FUNCTION evil.text_text(text, text) RETURNS bool
		LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
	CREATE FUNCTION evil.jsonb_jsonb(jsonb, jsonb) RETURNS jsonb
		LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
	CREATE FUNCTION evil.now() RETURNS timestamptz
		LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
	CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.int_int);
	CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_text);
	CREATE OPERATOR evil.|| (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = evil.jsonb_jsonb)));

sub reload
{
	my ($setting, $value) = @_;

	sql("ALTER SYSTEM SET $setting = '$value'");
	$node->reload;
}

sub publish_all
{
	my ($backend) = @_;

	sql(qq(
		SELECT dispatch.publish(
			't', 's', data, backend => '$backend', key => 'k', subject => data::text)
		FROM (VALUES ('{"a": "\xC3\xA9\\\\n", "b": 1.10000000000000001}'::jsonb), ('null'),
			('"''\\\\u0001"')) AS v (data)));
	is(sql("SELECT dispatch.flush('10s', '$backend')"), 't', "$backend: delivered");
}

# What differs from run to run is left out.
sub bodies
{
	my $stamps = qr/"id": "[-0-9a-f]{36}", "time": "[-0-9T:.]*\+00:00"/;

	return [ map { $_->{fields}{cloud_event} =~ s/$stamps/STAMPS/r } $redis->xrange_all($_[0]) ];
}

# The same events under plain settings, and under hostile ones of every source
create_redis_backend($node, $redis, name => 'plain', stream_name => 'plain');
publish_all('plain');
is(scalar(grep { /STAMPS/ } @{ bodies('plain') }), 3, 'three events have their stamps');
$node->append_conf('postgresql.conf', "$_ = '$HOSTILE{$_}'") foreach sort keys %HOSTILE;
sql("ALTER $_ SET search_path = $HOSTILE{search_path}") foreach 'DATABASE postgres', 'ROLE ALL';
sql("ALTER DATABASE postgres SET $_ = '$HOSTILE{$_}'")
  foreach grep { $_ ne 'search_path' } sort keys %HOSTILE;
$node->restart;
is(sql("SELECT current_setting('search_path') || current_setting('lock_timeout')"),
	'evil, pg_catalog1ms', 'the settings are in effect');
create_redis_backend($node, $redis, name => 'hostile', stream_name => 'hostile');
publish_all('hostile');
is_deeply(bodies('hostile'), bodies('plain'), 'hostile settings do not change a byte');
sql(q(SELECT dispatch.alter_backend('hostile', '{"max_len": 1000}')));
publish_all('plain');
publish_all('hostile');
is_deeply(bodies('hostile'), bodies('plain'), 'nor after alter_backend()');
sql(q(SELECT dispatch.publish('t', 's', '1', backend => 'plain',
	scheduled_at => clock_timestamp() + '1 s'::interval)));
wait_until(sub { @{ bodies('plain') } == 7 }, 'a scheduled event', 10);
is(sql(q(SELECT count(*) FROM dispatch.backend_status
		WHERE state OPERATOR(pg_catalog.=) 'running')),
	2, 'the status can be seen');
is(sql(q(SELECT count(*) FROM dispatch.events WHERE status OPERATOR(pg_catalog.=) 'published')),
	13, 'the events can be seen');
is_deeply([ log_lines($node, qr/ERROR:.*evil|WARNING/) ], [], 'nobody has met anything evil');
sql("ALTER DATABASE postgres RESET search_path; ALTER ROLE ALL RESET search_path");
$node->append_conf('postgresql.conf', "search_path = 'public'");
$node->reload;

# dispatch.enabled
reload('dispatch.enabled', 'off');
wait_for_state($node, 'plain', 'disabled');
is(scalar(process_ids($node, 'worker')), 0, 'dispatch.enabled = off: no worker');
sql(q(SELECT dispatch.publish('t', 's', '"off"', backend => 'plain')));
sleep 0.5;
is(scalar(grep { /"off"/ } @{ bodies('plain') }), 0, 'dispatch.enabled = off: events wait');
reload('dispatch.enabled', 'on');
is(sql(q(SELECT dispatch.flush('10s'))), 't', 'dispatch.enabled = on: they go out');
is(scalar(grep { /"off"/ } @{ bodies('plain') }), 1, 'dispatch.enabled = on: once');

# dispatch.allowed_cluster_name
reload('dispatch.allowed_cluster_name', 'another');
wait_for_state($node, 'plain', 'other cluster');
reload('dispatch.allowed_cluster_name', 'settings');
wait_for_state($node, 'plain', 'running');

# dispatch.sleep_time: how soon a row is found that nobody has announced
sub insert_unannounced
{
	sql(q(
		INSERT INTO dispatch.outbox
			(xid, id, created_at, event_id, backend_id, segment, event_type, source, data)
		SELECT pg_current_xact_id(), nextval('dispatch.outbox_id_seq'), clock_timestamp(),
			gen_random_uuid(), id, 0, 't', 's', '"found"'
		FROM dispatch.backends WHERE name = 'plain'));
}
sub found { return scalar grep { /"found"/ } @{ bodies('plain') } }
reload('dispatch.sleep_time', '1h');
sleep 0.5;
insert_unannounced();
sleep 1;
is(found(), 0, 'sleep_time = 1h: a row that nobody announced waits');
reload('dispatch.sleep_time', '50ms');
wait_until(sub { found() == 1 }, 'the row, by a reload', 10);
sleep 0.2;
insert_unannounced();
wait_until(sub { found() == 2 }, 'the row, by sleep_time', 1);
is(found(), 2, 'sleep_time = 50ms: it is found');

# Looking costs nothing that lasts
my $activity = 'SELECT pg_snapshot_xmax(pg_current_snapshot()), pg_current_wal_insert_lsn()';
sleep 0.5;						# the position is stored
my $before = sql($activity);
sleep 1;
is(sql($activity), $before, 'an idle worker takes no transaction id and writes no WAL');
reload('dispatch.sleep_time', '1h');

# What is under way at most while Redis hangs
sub most_in_flight
{
	my ($count, $bytes) = @_;
	my $most = 0;
	my $session = session($node);

	$redis->sigstop;
	$session->do(
		q(SELECT dispatch.publish('t', 's', to_jsonb(repeat('x', ?)), backend => 'plain')
		FROM generate_series(1, ?::int)), undef, $bytes, $count);
	foreach (1 .. 20)
	{
		my ($now) = $session->selectrow_array(
			q(SELECT max(in_flight) FROM dispatch.backend_status));

		$most = $now if $now > $most;
		sleep 0.02;
	}
	$redis->sigcont;
	return $most;
}

# dispatch.batch_size: how much is under way
foreach my $size (10, 500)
{
	reload('dispatch.batch_size', $size);
	sleep 0.3;
	my $most = most_in_flight(5000, 1);
	ok($most > 0 && $most <= 8 * $size, "batch_size = $size: at most eight batches are in flight");
	cmp_ok($most, '>', 20, "batch_size = $size: but more than before") if $size > 20;
	is(sql(q(SELECT dispatch.flush('30s'))), 't', "batch_size = $size: all is delivered");
}

# dispatch.batch_bytes: the same by their size, which bounds what a worker holds.
# It reads as much on top of what is under way, and one event more each time;
# without a bound it would be a chunk for Redis, of half a megabyte.
my $LARGE = 20_000;
my $BOUND = int 2 * (64 * 1024 / $LARGE + 1);
foreach my $size ('64kB', '2MB')
{
	reload('dispatch.batch_bytes', $size);
	sleep 0.3;
	my $most = most_in_flight(400, $LARGE);
	if ($size eq '64kB')
	{
		ok($most > 0 && $most <= $BOUND, "batch_bytes = $size: few large ones are in flight")
		  or diag("$most in flight");
	}
	else { cmp_ok($most, '>', $BOUND, "batch_bytes = $size: but more than before"); }
	is(sql(q(SELECT dispatch.flush('30s'))), 't', "batch_bytes = $size: all is delivered");
}

# Other encodings
sql("CREATE DATABASE $_ TEMPLATE template0 ENCODING $_ LC_COLLATE 'C' LC_CTYPE 'C'")
  foreach qw(latin1 sql_ascii);
foreach my $database (qw(latin1 sql_ascii))
{
	$node->safe_psql($database, 'CREATE EXTENSION dispatch');
	create_redis_backend(
		$node, $redis, database => $database, stream_name => "$database {subject}");
	$node->safe_psql($database,
		qq(SELECT dispatch.publish('caf\xC3\xA9', 's', '{"\xC3\xBC": "\xC3\xA9"}',
			subject => '\xC3\xA8')));
	is($node->safe_psql($database, "SELECT dispatch.flush('10s')"), 't', "$database: delivered");

	my ($entry) = $redis->xrange_all("$database \xC3\xA8");
	is($entry->{fields}{event_type}, "caf\xC3\xA9", "$database: a field is UTF-8");
	like($entry->{fields}{cloud_event}, qr/"subject": "\xC3\xA8",.*{"\xC3\xBC": "\xC3\xA9"}}$/,
		"$database: the body is UTF-8");
}

$node->stop;
log_ok($node);
done_testing();
