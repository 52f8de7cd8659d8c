# A server that is set up in another way than workers would like, and commands
# that get into their way: nothing is lost, and nothing loops.

use strict;
use warnings;

use IPC::Run ();
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use SqlSink;

my $redis = RedisServer->new;
my $node = new_cluster('surroundings', q(
	shared_preload_libraries = 'auto_explain,dispatch,pg_stat_statements'
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	auto_explain.log_analyze = on
	wal_level = minimal
	max_wal_senders = 0
	max_locks_per_transaction = 10
	autovacuum = off
	temp_tablespaces = 'space'
	default_tablespace = 'space'
	synchronous_commit = off
	fsync = off
	full_page_writes = off
	log_statement = none
	dispatch.sleep_time = '300ms'
	dispatch.retry_delay = '200ms'
	dispatch.max_retries = 1000));
my $session = session($node);
my $n = 0;

mkdir $node->basedir . '/space' or die "mkdir: $!";
$session->do('CREATE TABLESPACE space LOCATION ' . $session->quote($node->basedir . '/space'));
$session->do('CREATE EXTENSION dispatch; CREATE EXTENSION pg_stat_statements');
create_redis_backend($node, $redis);

sub publish
{
	my ($count) = @_;

	$session->do(q(SELECT dispatch.publish('n', 's', to_jsonb(i), key => (i % 7)::text)
		FROM generate_series(?::int, ?::int) AS i), undef, $n + 1, $n + $count);
	$n += $count;
	return;
}

# All that was published is there; whether it is so once depends on the case.
sub is_delivered
{
	my ($what, $how) = @_;
	my %seen;

	ok($session->selectrow_array("SELECT dispatch.flush('40 s')"), "$what: all is settled");
	$seen{$_}++ foreach stream_data($redis);
	is(scalar(grep { !$seen{$_} } 1 .. $n), 0, "$what: all is delivered");
	is(scalar(grep { $_ > 1 } values %seen), 0, "$what: once") unless $how;
	return;
}

sub restart_with
{
	$node->append_conf('postgresql.conf', $_[0]);
	$node->restart;
	$session = session($node);
	return;
}

# ---- Settings, and other libraries

publish(3000);
is_delivered('few locks, little WAL, auto_explain after us');
cmp_ok(scalar(log_lines($node, qr/duration: .* plan:/)), '>', 10, 'auto_explain explains');
cmp_ok($session->selectrow_array('SELECT count(*) FROM pg_stat_statements'), '>', 5,
	'pg_stat_statements counts');

# ---- Commands while it delivers

publish(100);
$redis->sigstop;
publish(20000);
$redis->sigcont;
my $started = log_position($node);
foreach my $round (1 .. 3)
{
	foreach my $table ('outbox_0', 'positions', 'exceptions', 'backends')
	{
		$session->do("VACUUM FULL dispatch.$table");
		$session->do("REINDEX TABLE dispatch.$table");
	}
	$session->do('CLUSTER dispatch.outbox_0 USING outbox_0_new_idx');
	publish(1000);
}
is_delivered('VACUUM FULL, REINDEX and CLUSTER');

# The owner takes rows away: what is not sent yet is gone, the rest is not
foreach my $what ('TRUNCATE dispatch.outbox', 'DELETE FROM dispatch.outbox',
	q(UPDATE dispatch.outbox SET data = data))
{
	my $position = log_position($node);

	$redis->sigstop;
	$session->do(q(SELECT dispatch.publish('gone', 's', '0') FROM generate_series(1, 20000)));
	sleep 0.2;
	$redis->sigcont;
	$session->do($what);
	publish(100);
	my $worker = backend_pid($node, 'default');
	ok($session->selectrow_array("SELECT dispatch.flush('40 s')"), "$what: all that is left is settled");
	my %seen = map { $_ => 1 } stream_data($redis);
	is(scalar(grep { !$seen{$_} } 1 .. $n), 0, "$what: what came later is delivered");
	is(backend_pid($node, 'default'), $worker, "$what: by the same worker");
	is_deeply([ log_lines($node, qr/WARNING|ERROR/, $position) ], [], "$what: without a word");
	$redis->cli('DEL', 'events');
	$n = 0;
}

# Somebody cancels and ends all that he sees
my $position = log_position($node);
my ($cancels, $ends) = (0, 0);
$redis->sigstop;
publish(5000);
$redis->sigcont;
foreach my $round (1 .. 40)
{
	$cancels += $session->selectrow_array(q(SELECT count(pg_cancel_backend(pid))
		FROM pg_stat_activity WHERE backend_type LIKE 'dispatch%'));
	publish(50);
	sleep 0.01;
}
is_delivered('a storm of cancels');
is_deeply([ log_lines($node, qr/\[\d+\] FATAL/, $position) ], [], "$cancels cancels end nobody");
cmp_ok(scalar(log_lines($node, qr/WARNING/, $position)), '<=', 10, 'nor make the log grow');
foreach my $round (1 .. 15)
{
	$ends += $session->selectrow_array(q(SELECT count(pg_terminate_backend(pid))
		FROM pg_stat_activity WHERE backend_type LIKE 'dispatch%'));
	publish(50);
	sleep 0.1;
}
is_delivered("a storm of ends ($ends)", 'at least once');
$position = log_position($node);
sleep 1.5;
cmp_ok(scalar(log_lines($node, qr/dispatch (worker|manager)|WARNING|FATAL/, $position)), '<=', 3,
	'and then there is quiet');

# ---- Event triggers that refuse commands are nobody's business here

$session->do(q(CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE 'hostile event trigger'; END$$));
$session->do('CREATE EVENT TRIGGER hostile ON ddl_command_start EXECUTE FUNCTION refuse()');
$session->do('CREATE EVENT TRIGGER hostile_drop ON sql_drop EXECUTE FUNCTION refuse()');
$session->do(q(SELECT dispatch.create_backend('second', 'notify'),
	dispatch.drop_backend('second')));
publish(100);
is_delivered('event triggers', 'at least once');
wait_until(sub { 1 == $session->selectrow_array('SELECT count(*) FROM dispatch.backends') },
	'a backend is dropped all the same', 15);
ok(!eval { $session->do('DROP EXTENSION dispatch'); 1 }, 'DROP EXTENSION is refused');
publish(10);
is_delivered('after that', 'at least once');
$session->do('DROP EVENT TRIGGER hostile; DROP EVENT TRIGGER hostile_drop');

# ---- A publication of all tables: without a key, updates would be refused

restart_with(q(
	shared_preload_libraries = 'pg_stat_statements,dispatch,auto_explain'
	wal_level = logical
	max_wal_senders = 10));
$session->do('CREATE PUBLICATION everything FOR ALL TABLES');
$position = log_position($node);
publish(1000);
create_failing_backend($session, permanent => 1);
$session->do(q(SELECT dispatch.publish('bad', 's', backend => 'failing')));
$session->do(q(SELECT dispatch.publish('later', 's', scheduled_at => now() + '0.5 s')));
$session->do(q(SELECT dispatch.create_backend('second', 'notify'),
	dispatch.pause_backend('second')));
$session->do(q(SELECT dispatch.define_event_type('x'), dispatch.define_event_type('x', 'second')));
$session->do(q(SELECT dispatch.drop_event_type('x'), dispatch.drop_backend('second')));
$session->do(q(SELECT dispatch.create_backend('third', 'redis', '{"port": 1, "password": "x"}')));
$session->do(q(SELECT dispatch.alter_backend('third', '{"password": "y"}'),
	dispatch.drop_backend('third')));
is_delivered('a publication of all tables', 'at least once');
wait_until(sub { 1 == $session->selectrow_array('SELECT count(*) FROM dispatch.dead_letters') },
	'a dead letter', 10);
$session->do(q(SELECT dispatch.discard(event_id) FROM dispatch.dead_letters));
$session->do(q(SELECT dispatch.drop_backend('failing')));
$session->do(q(ALTER SYSTEM SET dispatch.published_retention = '1s'));
$session->do('SELECT pg_reload_conf()');
wait_until(sub { 0 == $session->selectrow_array(q(SELECT count(*) FROM dispatch.exceptions)) &&
	1 == $session->selectrow_array('SELECT count(*) FROM dispatch.backends') },
	'retention, and the end of backends', 20);
is_deeply([ log_lines($node, qr/replica identity/, $position) ], [],
	'every table that is updated has a key');

# A manager that starts says which publications have tables of ours.
sub warnings_of_manager
{
	my ($old) = process_ids($node, 'manager');
	my $from = log_position($node);

	$session->do('SELECT pg_terminate_backend(?)', undef, $old);
	wait_until(sub { $session->selectrow_array(q(SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'dispatch manager' AND pid <> ?), undef, $old) },
		'another manager', 20);
	$session->do(q(SELECT dispatch.publish('later', 's', scheduled_at => now() + '0.5 s')));
	wait_until(sub { !$session->selectrow_array('SELECT count(*) FROM dispatch.scheduled') },
		'its second turn', 20);
	return [ map { /WARNING:  (.*)/ } log_lines($node, qr/\[\d+\] WARNING:/, $from) ];
}

is_deeply(warnings_of_manager(), ['publications replicate tables of dispatch: everything'],
	'all tables: the manager warns, once');
like((log_lines($node, qr/HINT:  Name what is to be published/))[-1], qr/dispatch\.backend_secrets/,
	'and says what to leave out');
$session->do(q(
	DROP PUBLICATION everything;
	CREATE TABLE mine (id integer PRIMARY KEY);
	CREATE PUBLICATION harmless FOR TABLE mine, TABLES IN SCHEMA public));
is_deeply(warnings_of_manager(), [], 'a publication of other tables is none of its business');
$session->do(q(
	CREATE PUBLICATION "Secret" FOR TABLE dispatch.backend_secrets, mine;
	CREATE PUBLICATION schema FOR TABLES IN SCHEMA dispatch));
is_deeply(warnings_of_manager(), ['publications replicate tables of dispatch: "Secret", schema'],
	'those that name our tables, or their schema');
$session->do('DROP PUBLICATION harmless, "Secret", schema');

$node->stop;
log_ok($node, qr/leak/);
done_testing();
