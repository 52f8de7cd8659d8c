# Databases and extensions come and go, and our processes go with them: no
# command has to wait for us, none needs a restart of the server.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use PostgreSQL::Test::Utils;

my $LIMIT = 5;

my $redis = RedisServer->new;
my $node = new_cluster('databases');

sub sql { return $node->safe_psql('postgres', $_[0]); }

sub create_database
{
	my ($database) = @_;

	sql("CREATE DATABASE $database");
	install($database);
}

sub install
{
	my ($database) = @_;

	$node->safe_psql($database, 'CREATE EXTENSION dispatch');
	create_redis_backend($node, $redis, database => $database, stream_name => $database);
}

# Publishes an event in a database; says whether it arrives.
sub delivers
{
	my ($database, $what, $stream) = @_;
	my $before = $redis->client->xlen($stream // $database);
	my $started = time;

	$node->safe_psql($database, q(SELECT dispatch.publish('a', 'b', '1')));
	is($node->safe_psql($database, q(SELECT dispatch.flush('10s'))),
		't', "$database: settled, $what");
	is($redis->client->xlen($stream // $database), $before + 1, "$database: delivered, $what");
	cmp_ok(time - $started, '<', $LIMIT, "$database: in time, $what");
}

# Runs a statement, which must be done in time.
sub quickly
{
	my ($database, $what, @statements) = @_;
	my $started = time;
	my ($code, $stderr) = (0, '');

	foreach my $statement (@statements)
	{
		my ($result, undef, $error) = $node->psql($database, $statement, timeout => 60);

		$code ||= $result;
		$stderr .= $error;
	}
	is("$code$stderr", 0, "$what: is done");
	cmp_ok(time - $started, '<', $LIMIT, "$what: in time");
}

sub nobody_left
{
	my ($database, $what) = @_;

	ok(eval {
		wait_until(
			sub { !grep { process_ids($node, $_, $database) } qw(manager worker) },
			"the end of our processes in $database", 5);
		1;
	}, "$what: our processes are gone");
}

# Several databases, without a restart
create_database($_) foreach qw(one two three);
delivers($_, 'at first') foreach qw(one two three);
is(scalar(process_ids($node, 'manager', $_)), 1, "$_: has a manager") foreach qw(one two three);
is(scalar(process_ids($node, 'manager', 'postgres')),
	0, 'a database without the extension has none');

# DROP EXTENSION: idle, then again in a transaction that is undone
quickly('one', 'DROP EXTENSION when idle', 'DROP EXTENSION dispatch CASCADE');
nobody_left('one', 'DROP EXTENSION when idle');
is($node->safe_psql('one', q(SELECT count(*) FROM pg_namespace WHERE nspname = 'dispatch')),
	0, 'nothing is left of the schema');
install('one');
delivers('one', 'after CREATE EXTENSION');
quickly('one', 'DROP EXTENSION, undone', 'BEGIN; DROP EXTENSION dispatch; ROLLBACK');
delivers('one', 'after a DROP that was undone');
quickly('one', 'DROP and CREATE in one transaction',
	'BEGIN; DROP EXTENSION dispatch; CREATE EXTENSION dispatch; COMMIT');
create_redis_backend($node, $redis, database => 'one', stream_name => 'one');
delivers('one', 'after DROP and CREATE in one transaction');
is($node->safe_psql('one', 'SELECT published FROM dispatch.backend_status'),
	1, 'the worker knows nothing of the extension that was dropped');

# DROP EXTENSION with traffic
my $traffic = IPC::Run::start(
	[ 'psql', '-qAtX', '-d', $node->connstr('one'), '-c',
		q(DO $$ BEGIN LOOP PERFORM dispatch.publish('t', 's', '1'); COMMIT; END LOOP; END $$) ],
	'>', \my $out, '2>', \my $err);
my $before = $redis->client->xlen('one');
wait_until(sub { $redis->client->xlen('one') > $before + 100 }, 'traffic');
quickly('one', 'DROP EXTENSION with traffic', 'DROP EXTENSION dispatch CASCADE');
nobody_left('one', 'DROP EXTENSION with traffic');
$traffic->finish;
like($err, qr/does not exist|cache lookup failed|dispatch/, 'the publisher gets an error');
install('one');
delivers('one', 'after CREATE EXTENSION with traffic before');

# DROP EXTENSION has to wait for a publisher, as for any transaction, but for
# nobody else.
my $publisher = session($node, 'one');
$publisher->begin_work;
$publisher->do(q(SELECT dispatch.publish('a', 'b', '1')));
my $drop = IPC::Run::start(
	[ 'psql', '-qAtX', '-d', $node->connstr('one'), '-c', 'DROP EXTENSION dispatch CASCADE' ],
	'2>', \$err);
wait_until(
	sub {
		sql(q(SELECT count(*) FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND query LIKE 'DROP EXT%')) eq '1';
	},
	'DROP EXTENSION waits');
$publisher->commit;
my $started = time;
ok($drop->finish, 'DROP EXTENSION goes on when the publisher commits');
cmp_ok(time - $started, '<', $LIMIT, 'in time');
$publisher->disconnect;
nobody_left('one', 'DROP EXTENSION with a publisher');
install('one');
delivers('one', 'after all of this');

# Commands that want a database for themselves
quickly('postgres', 'CREATE DATABASE ... TEMPLATE', 'CREATE DATABASE copy TEMPLATE two');
delivers('two', 'after it was a template');
is(backend_state($node, 'default', 'copy'), 'not adopted', 'the copy has not been adopted');
$node->safe_psql('copy', q(SELECT dispatch.publish('a', 'b', '"copy"')));
sleep 1;
is(scalar(grep { $_ eq 'copy' } stream_data($redis, 'two')), 0, 'the copy does not deliver');
is(scalar(process_ids($node, 'worker', 'copy')), 0, 'it has no worker');

quickly('postgres', 'RENAME', 'ALTER DATABASE two RENAME TO second');
delivers('second', 'after RENAME', 'two');
quickly('postgres', 'RENAME there and back',
	'ALTER DATABASE second RENAME TO two',
	('ALTER DATABASE two RENAME TO second', 'ALTER DATABASE second RENAME TO two') x 3);
delivers('two', 'after RENAME there and back');
mkdir $node->basedir . '/space' or die "mkdir: $!";
sql("CREATE TABLESPACE space LOCATION '" . $node->basedir . "/space'");
quickly('postgres', 'SET TABLESPACE', 'ALTER DATABASE two SET TABLESPACE space');
delivers('two', 'after SET TABLESPACE');
foreach my $round (1 .. 3)
{
	quickly('postgres', "RENAME, round $round",
		'ALTER DATABASE two RENAME TO second', 'ALTER DATABASE second RENAME TO two');
	delivers('two', "after RENAME, round $round");
}

# A command that fails lets us in again
my $guest = session($node, 'two');
$started = time;
isnt($node->psql('postgres', 'ALTER DATABASE two RENAME TO second'),
	0, 'RENAME fails while somebody is connected');
$guest->disconnect;
delivers('two', 'after a RENAME that failed');

# With events in flight that Redis does not answer
$redis->sigstop;
$node->safe_psql($_, q(SELECT dispatch.publish('a', 'b', '1'))) foreach qw(two three);
sleep 0.3;
quickly('postgres', 'DROP DATABASE', 'DROP DATABASE two');
quickly('three', 'DROP EXTENSION', 'DROP EXTENSION dispatch CASCADE');
$redis->sigcont;
nobody_left('three', 'DROP EXTENSION with events in flight');
install('three');
sql('CREATE DATABASE plain');
quickly('postgres', 'DROP DATABASE of another', 'DROP DATABASE plain');
quickly('postgres', 'CREATE and DROP DATABASE at once',
	'CREATE DATABASE plain', 'DROP DATABASE plain');
create_database('two');
quickly('postgres', 'DROP DATABASE of one just made', 'DROP DATABASE two');
delivers($_, 'at last') foreach qw(one three);

# Somebody else's schema is not taken over
sql('CREATE ROLE mallory; CREATE DATABASE trap');
$node->safe_psql('trap', 'CREATE SCHEMA dispatch AUTHORIZATION mallory');
my ($code, undef, $error) = $node->psql('trap', 'CREATE EXTENSION dispatch');
isnt($code, 0, 'CREATE EXTENSION refuses a schema of somebody else');
like($error, qr/schema "dispatch" already exists/, 'and says why');

# The extension in the template of all databases to come
$node->safe_psql('template1', 'CREATE EXTENSION dispatch');
quickly('postgres', 'CREATE DATABASE, with the extension', 'CREATE DATABASE heir');
create_redis_backend($node, $redis, database => 'heir', stream_name => 'heir');
delivers('heir', 'which it has from its template');

# An ERROR right after the pid is one of a background process.
log_ok($node, qr/\[\d+\] (ERROR|FATAL|WARNING)/);
$node->stop;
done_testing();
