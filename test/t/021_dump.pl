# A database with events can be dumped in every way; what is restored from it
# has all rows but the secrets, and sends nothing.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use PostgreSQL::Test::Utils;

my $SECRET = canary();

my $redis = RedisServer->new;
my $node = new_cluster('origin');
my $dir = PostgreSQL::Test::Utils::tempdir('dumps');

$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', q(
	CREATE EXTENSION dispatch;
	CREATE TABLE mine (n int);
	INSERT INTO mine VALUES (1)));
# The numbers of transactions are far above those of a new server.
$node->safe_psql('app', q(DO $$ BEGIN
	FOR i IN 1 .. 2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP;
	END $$));
$redis->cli('ACL', 'SETUSER', 'alice', 'on', ">$SECRET", '~*', '+@all');
create_redis_backend($node, $redis, database => 'app', username => 'alice', password => $SECRET);
create_redis_backend($node, $redis, database => 'app', name => 'paused', stream_name => 'paused');
$node->safe_psql('app', q(
	SELECT dispatch.publish('t', 's', to_jsonb(i)) FROM generate_series(1, 10) AS i));
is($node->safe_psql('app', 'SELECT dispatch.flush()'), 't', 'some events are delivered');
$node->safe_psql('app', q(
	SELECT dispatch.pause_backend('paused');
	SELECT dispatch.publish('t', 's', to_jsonb(i), backend => 'paused', key => 'k')
		FROM generate_series(1, 5) AS i;
	SELECT dispatch.publish('t', 's', '"later"', backend => 'paused',
		scheduled_at => now() + interval '1 day')));
sleep 0.5;						# the position is stored

my $EVENTS = q(
	SELECT event_id, backend, event_type, data, key, status FROM dispatch.events ORDER BY event_id);
my $SEQUENCES = q(
	SELECT o.last_value, b.last_value
	FROM dispatch.outbox_id_seq AS o, dispatch.backend_id_seq AS b);
my $events = $node->safe_psql('app', $EVENTS);
is(scalar(split /\n/, $events), 16, 'ten events are published, five are pending, one is scheduled');

sub dump_database
{
	my ($name, @options) = @_;

	$node->command_ok(
		[ 'pg_dump', '-f', "$dir/$name", @options, $node->connstr('app') ], "pg_dump: $name");
}

dump_database('plain.sql');
dump_database('custom', '-Fc');
dump_database('directory', '-Fd', '-j2');
dump_database('schema.sql', '--schema-only');
dump_database('data.sql', '--data-only');
dump_database('inserts.sql', '--inserts', '--data-only');
dump_database('ours.sql', '-n', 'dispatch');
$node->command_ok(
	[ 'pg_dumpall', '-f', "$dir/all.sql", '-d', $node->connstr('postgres') ], 'pg_dumpall');
foreach my $name (qw(plain schema data inserts ours all))
{
	is(index(slurp_file("$dir/$name.sql"), $SECRET), -1, "$name.sql has no secret");
}
$node->command_ok([ 'pg_restore', '-f', "$dir/custom.sql", "$dir/custom" ], 'pg_restore: custom');
is(index(slurp_file("$dir/custom.sql"), $SECRET), -1, 'custom has no secret');
isnt(index(slurp_file("$dir/plain.sql"), '********'), -1, 'a masked one is there');
isnt(index(slurp_file("$dir/plain.sql"), '"later"'), -1, 'so are scheduled events');
is(index(slurp_file("$dir/schema.sql"), '"later"'), -1, 'but not in --schema-only');

# Restore, in another server and beside the original
sub entries { return $redis->client->xlen('events') + $redis->client->xlen('paused') }
my $delivered = entries();
my $copy = new_cluster('restored');

sub restore
{
	my ($where, $database, $what, @command) = @_;

	$where->command_ok([ @command, '-d', $where->connstr($database) ], "restore: $what");
	restored($where, $database, $what);
}

sub restored
{
	my ($where, $database, $what) = @_;
	my $ask = sub { return $where->safe_psql($database, $_[0]) };

	is($ask->($EVENTS), $events, "$what: all events are there, with their states");
	is($ask->('SELECT count(*) FROM dispatch.backend_secrets'), 0, "$what: no secret is");
	is($ask->(q(SELECT string_agg(DISTINCT state, ' ') FROM dispatch.backend_status)),
		'not adopted', "$what: it is not adopted");
	is($ask->('SELECT count(*) FROM mine'), 1, "$what: so is the rest");
	# The numbers of events and backends go on, or they would be used twice.
	is($ask->($SEQUENCES), $node->safe_psql('app', $SEQUENCES), "$what: sequences, too");
	$ask->(q(SELECT dispatch.publish('t', 's', '"new"')));
	is($ask->(q(SELECT status FROM dispatch.events WHERE data = '"new"')),
		'scheduled', "$what: what is published there is put aside");
	sleep 0.5;
	is(scalar(process_ids($where, 'worker', $database)), 0, "$what: no worker runs");
	is(entries(), $delivered, "$what: nothing is sent");
}

$copy->safe_psql('postgres', "CREATE DATABASE $_") foreach
  qw(plain custom directory parts copied sections);
my @psql = ('psql', '-qX', '-v', 'ON_ERROR_STOP=1');
my @pg_restore = ('pg_restore', '--exit-on-error');
restore($copy, 'plain', 'plain', @psql, '-f', "$dir/plain.sql");
restore($copy, 'custom', 'custom', @pg_restore, '-1', "$dir/custom");
restore($copy, 'directory', 'directory', @pg_restore, '-j2', "$dir/directory");
restore($copy, 'parts', 'schema and data',
	@psql, '-f', "$dir/schema.sql", '-f', "$dir/inserts.sql");
restore($copy, 'copied', 'schema, and data by COPY',
	@psql, '-f', "$dir/schema.sql", '-f', "$dir/data.sql");
$copy->command_ok(
	[ @pg_restore, "--section=$_", '-d', $copy->connstr('sections'), "$dir/custom" ], "section $_")
  foreach qw(pre-data data);
restore($copy, 'sections', 'section by section',
	@pg_restore, '--section=post-data', "$dir/custom");

$node->safe_psql('postgres', 'CREATE DATABASE beside');
restore($node, 'beside', 'beside the original', @pg_restore, "$dir/custom");

# The original goes on.
$node->safe_psql('app', q(SELECT dispatch.resume_backend('paused')));
is($node->safe_psql('app', 'SELECT dispatch.flush()'), 't', 'the original delivers');
is_deeply([ stream_data($redis, 'paused') ], [ 1 .. 5 ], 'what was pending');

log_ok($_, qr/\[\d+\] (WARNING|ERROR|FATAL)/) foreach $node, $copy;
$copy->stop;
$node->stop;
done_testing();
