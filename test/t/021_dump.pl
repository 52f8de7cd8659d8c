# A database with events can be dumped in every way; what is restored from it
# has all rows but the secrets, and sends nothing.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use PostgreSQL::Test::Utils;

my $SECRET = 'Kieselguhr';

my $redis = RedisServer->new;
my $node = new_cluster('origin');
my $dir = PostgreSQL::Test::Utils::tempdir('dumps');

$node->safe_psql('postgres', 'CREATE DATABASE app');
$node->safe_psql('app', 'CREATE EXTENSION dispatch; CREATE TABLE mine (n int); INSERT INTO mine VALUES (1)');
# The numbers of transactions are far above those of a new server.
$node->safe_psql('app', q(DO $$ BEGIN FOR i IN 1 .. 2000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$));
$redis->cli('ACL', 'SETUSER', 'alice', 'on', ">$SECRET", '~*', '+@all');
create_redis_backend($node, $redis, database => 'app', username => 'alice', password => $SECRET);
create_redis_backend($node, $redis, database => 'app', name => 'paused', stream_name => 'paused');
$node->safe_psql('app', q(
	SELECT dispatch.publish('t', 's', to_jsonb(i)) FROM generate_series(1, 10) AS i));
is($node->safe_psql('app', 'SELECT dispatch.flush()'), 't', 'some events are delivered');
$node->safe_psql('app', q(
	SELECT dispatch.pause_backend('paused');
	SELECT dispatch.publish('t', 's', to_jsonb(i), backend => 'paused', key => 'k') FROM generate_series(1, 5) AS i;
	SELECT dispatch.publish('t', 's', '"later"', backend => 'paused', scheduled_at => now() + interval '1 day')));
sleep 0.5;						# the position is stored

my $EVENTS = q(SELECT event_id, backend, event_type, data, key, status FROM dispatch.events ORDER BY event_id);
my $events = $node->safe_psql('app', $EVENTS);
is(scalar(split /\n/, $events), 16, 'ten events are published, five are pending, one is scheduled');

sub dump_database
{
	my ($name, @options) = @_;

	$node->command_ok([ 'pg_dump', '-f', "$dir/$name", @options, $node->connstr('app') ], "pg_dump: $name");
}

dump_database('plain.sql');
dump_database('custom', '-Fc');
dump_database('directory', '-Fd', '-j2');
dump_database('schema.sql', '--schema-only');
dump_database('data.sql', '--data-only');
dump_database('inserts.sql', '--inserts', '--data-only');
dump_database('ours.sql', '-n', 'dispatch');
$node->command_ok([ 'pg_dumpall', '-f', "$dir/all.sql", '-d', $node->connstr('postgres') ], 'pg_dumpall');
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
my $delivered = $redis->client->xlen('events') + $redis->client->xlen('paused');
my $copy = new_cluster('restored');

sub restored
{
	my ($where, $database, $what) = @_;

	is($where->safe_psql($database, $EVENTS), $events, "$what: all events are there, with their states");
	is($where->safe_psql($database, 'SELECT count(*) FROM dispatch.backend_secrets'), 0, "$what: no secret is");
	is($where->safe_psql($database, q(SELECT string_agg(DISTINCT state, ' ') FROM dispatch.backend_status)),
		'not adopted', "$what: it is not adopted");
	is($where->safe_psql($database, 'SELECT count(*) FROM mine'), 1, "$what: so is the rest");
	# The numbers of events and backends go on, or they would be used twice.
	my $sequences = q(SELECT o.last_value, b.last_value FROM dispatch.outbox_id_seq AS o, dispatch.backend_id_seq AS b);
	is($where->safe_psql($database, $sequences), $node->safe_psql('app', $sequences), "$what: sequences, too");
	$where->safe_psql($database, q(SELECT dispatch.publish('t', 's', '"new"')));
	is($where->safe_psql($database, q(SELECT status FROM dispatch.events WHERE data = '"new"')),
		'pending', "$what: what is published there is pending");
	sleep 0.5;
	is(scalar(process_ids($where, 'worker', $database)), 0, "$what: no worker runs");
	is($redis->client->xlen('events') + $redis->client->xlen('paused'), $delivered, "$what: nothing is sent");
}

$copy->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(plain custom directory parts);
$copy->command_ok([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-qf', "$dir/plain.sql", $copy->connstr('plain') ], 'restore: plain');
restored($copy, 'plain', 'plain');
foreach my $name (qw(custom directory))
{
	$copy->command_ok(
		[ 'pg_restore', '--exit-on-error', $name eq 'directory' ? '-j2' : '-1', '-d', $copy->connstr($name), "$dir/$name" ],
		"restore: $name");
	restored($copy, $name, $name);
}
foreach my $part (qw(schema inserts))
{
	$copy->command_ok(
		[ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-qf', "$dir/$part.sql", $copy->connstr('parts') ], "restore: $part");
}
restored($copy, 'parts', 'schema and data');

$node->safe_psql('postgres', 'CREATE DATABASE beside');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('beside'), "$dir/custom" ], 'restore: beside the original');
restored($node, 'beside', 'beside the original');

# The original goes on.
$node->safe_psql('app', q(SELECT dispatch.resume_backend('paused')));
is($node->safe_psql('app', 'SELECT dispatch.flush()'), 't', 'the original delivers');
is_deeply([ stream_data($redis, 'paused') ], [ 1 .. 5 ], 'what was pending');

is_deeply([ log_lines($_, qr/PANIC|TRAP|signal \d|\[\d+\] (WARNING|ERROR|FATAL)/) ], [], 'the log has no complaint')
  foreach $node, $copy;
$copy->stop;
$node->stop;
done_testing();
