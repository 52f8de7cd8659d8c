# Whatever is done to our tables by those who may: publishers get an error that
# says what is wrong, or none; the worker works, or says why not, and does not
# loop; and when it is undone all that was published is delivered.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('hostile', q(
	wal_level = logical
	dispatch.sleep_time = '500ms'
	dispatch.retry_delay = '200ms'
	dispatch.retry_backoff = off
	dispatch.max_retries = 1000));
my $session = session($node);
my (@published, $n);
my $failing = 0;

$session->do('CREATE EXTENSION dispatch');
$session->do('CREATE ROLE app; GRANT ALL ON SCHEMA public TO app');
create_redis_backend($node, $redis);
# One whose events fail and are tried again all along: exceptions move, too.
$session->do(q(
	GRANT USAGE ON SCHEMA dispatch TO app;
	GRANT USAGE ON TYPE dispatch.event, dispatch.failure TO app;
	CREATE FUNCTION fail(dispatch.event[]) RETURNS SETOF dispatch.failure LANGUAGE sql
		AS $$SELECT e.event_id, 'not today', false FROM unnest($1) AS e$$;
	INSERT INTO dispatch.backends (name, transport, options, owner)
	VALUES ('failing', 'sql', '{"function": "public.fail(dispatch.event[])"}', 'app')));

# The error of a statement; empty if it has none.
sub error_of
{
	return eval { $session->do($_[0]); 1 } ? '' : $@;
}

# Publishes some events; the first error ends it.
sub publish
{
	my ($count) = @_;

	foreach (1 .. $count)
	{
		my $k = ++$n % 3;
		my $error = error_of("SELECT dispatch.publish('n', 's', '$n', key => '$k')");

		return $error if $error;
		push @published, $n;
	}
	return '';
}

sub is_delivered
{
	my ($what, $seconds) = @_;

	ok(eval { wait_until(sub {
		my %seen = map { $_ => 1 } stream_data($redis);

		return !grep { !$seen{$_} } @published;
	}, $what, $seconds // 15); 1 }, "$what: all is delivered") or diag $@ . backend_state($node,
		'default');
	return;
}

# How much is said in the log, and how many processes are started, at the most
sub is_calm
{
	my ($position, $what, $limit) = @_;

	# Lines of sessions have a name before the level.
	cmp_ok(scalar(log_lines($node, qr/\[\d+\] (WARNING|ERROR|LOG|FATAL):/, $position)),
		'<=', $limit, "$what: the log is calm");
	return;
}

# One thing that is done, and undone: [what, do, undo, error of publish() or
# nothing, state of the backend meanwhile]
sub try_out
{
	my ($what, $do, $undo, $error, $state) = @_;
	my $position = log_position($node);
	my @workers = process_ids($node, 'worker');

	is(error_of($do), '', "$what: done");
	my $got = publish(3);
	$error ? like($got, $error, "$what: publish() says so") : is($got, '', "$what: publish() works");
	$failing++ unless error_of(q(SELECT dispatch.publish('bad', 's', backend => 'failing')));
	# From shared memory: the view needs the tables, too.
	wait_until(sub { $session->selectrow_array(
		'SELECT count(*) FROM dispatch.workers() WHERE state = ?', undef, $state) },
		"$what: state $state", 20) if $state;
	sleep($state ? 0.6 : 0.2);
	is_calm($position, $what, $state ? 10 : 2);
	is_delivered($what) unless $state;
	is(error_of($undo), '', "$what: undone");
	is(publish(3), '', "$what: publish() works again");
	is_delivered("$what, undone", 40);
	ok(eval { wait_until(sub { $failing == $session->selectrow_array(
		q(SELECT count(*) FROM dispatch.events WHERE event_type = 'bad' AND status = 'retrying')) },
		'the others', 8); 1 }, "$what, undone: those that failed are tried again");
	$failing = $session->selectrow_array(
		q(SELECT count(*) FROM dispatch.events WHERE event_type = 'bad' AND status = 'retrying'));
	is_deeply([ sort { $a <=> $b } process_ids($node, 'worker') ], [ sort { $a <=> $b } @workers ],
		"$what: the workers are the same");
	return;
}

my @TABLES = (
	qw(backends backend_secrets event_types exceptions),
	qw(outbox positions scheduled segments),
	map { "outbox_$_" } 0 .. 7);
sub on_all { return join ';', map { my $sql = $_[0]; $sql =~ s/%/dispatch.$_/g; $sql } @TABLES; }

is(publish(10), '', 'events');
is_delivered('as it is');

try_out('row security', on_all('ALTER TABLE % ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY'),
	on_all('ALTER TABLE % DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY'));
try_out('another owner with row security',
	on_all('ALTER TABLE % OWNER TO app') . ';'
	  . on_all('ALTER TABLE % ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY'),
	on_all('ALTER TABLE % OWNER TO CURRENT_USER') . ';'
	  . on_all('ALTER TABLE % DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY'));

$session->do(q(
	CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
		AS $$BEGIN RAISE 'hostile trigger'; END$$;
	CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN COALESCE(NEW,
		OLD); END'));
sub trigger
{
	my ($function, $when, $table) = @_;

	return "CREATE TRIGGER hostile $when INSERT OR UPDATE OR DELETE ON dispatch.$table
		FOR EACH ROW EXECUTE FUNCTION $function()", "DROP TRIGGER hostile ON dispatch.$table";
}
try_out("a trigger on $_", trigger('pass', 'BEFORE', $_)) foreach qw(outbox_0 exceptions);
try_out("a trigger that refuses, on $_", trigger('refuse', 'BEFORE', $_), undef, 'database error')
  foreach qw(positions exceptions);
try_out('an AFTER trigger that refuses, on positions', trigger('refuse', 'AFTER', 'positions'),
	undef,
	'database error');
try_out("a trigger that returns NULL, on $_", trigger('nothing', 'BEFORE', $_)) foreach qw(positions exceptions);

# Constraints and columns
sub constraint
{
	my ($table, $check) = @_;

	return "ALTER TABLE dispatch.$table ADD CONSTRAINT hostile CHECK ($check) NOT VALID",
	  "ALTER TABLE dispatch.$table DROP CONSTRAINT hostile";
}
try_out('a CHECK of the outbox', constraint('outbox', 'false'),
	qr/violates check constraint "hostile"/);
try_out('a CHECK of positions', constraint('positions', 'false'), undef, 'database error');
try_out('a CHECK of exceptions', constraint('exceptions', 'false'), undef, 'database error');
sub column
{
	my ($table, $type) = @_;

	return "ALTER TABLE dispatch.$table ADD hostile $type", "ALTER TABLE dispatch.$table DROP hostile";
}
try_out("a column more in $_", column($_, 'int')) foreach qw(outbox positions backends);
try_out('a column with a default in the outbox', column('outbox', 'int NOT NULL DEFAULT 7'),
	qr/null value in column "hostile"/);
try_out('a column NOT NULL in exceptions', column('exceptions', 'int NOT NULL DEFAULT 7'));

# Names
sub renamed
{
	my ($kind, $old) = @_;

	return "ALTER $kind dispatch.$old RENAME TO hostile", "ALTER $kind dispatch.hostile RENAME TO $old";
}
my $gone = qr/relation "dispatch\.\w+" does not exist/;
try_out("$_ renamed", renamed('TABLE', $_), $gone, 'database error')
  foreach qw(outbox_5 positions exceptions);
try_out('backends renamed', renamed('TABLE', 'backends'), $gone, 'database error');
try_out('an index renamed', renamed('INDEX', 'outbox_0_new_idx'), $gone, 'database error');
try_out('the sequence renamed', renamed('SEQUENCE', 'outbox_id_seq'), $gone, 'database error');

# An index that is gone, and one like it
try_out('a dropped index', 'DROP INDEX dispatch.outbox_new_idx',
	'CREATE INDEX outbox_new_idx ON dispatch.outbox (backend_id, id);' . join(';',
	map { "ALTER INDEX dispatch.outbox_${_}_backend_id_id_idx RENAME TO outbox_${_}_new_idx" } 0 .. 7),
	$gone, 'database error');

# The schema
my $position = log_position($node);
$session->do('ALTER SCHEMA dispatch RENAME TO hostile');
like(publish(1), qr/schema "dispatch" does not exist/, 'schema renamed: publish() says so');
sleep 3;
is_calm($position, 'schema renamed', 8);
$session->do('ALTER SCHEMA hostile RENAME TO dispatch');
is(publish(3), '', 'schema renamed back: publish() works');
is_delivered('schema renamed back');
# Its back-off may have grown to 16 s by now.
ok( eval {
		wait_until(sub { backend_state($node, 'failing') eq 'running' }, 'running', 20);
		1;
	},
	'schema renamed back: the other one does not wait for long')
  or diag backend_state($node, 'failing');

# The owner of an "sql" backend
$position = log_position($node);
$session->do('DROP OWNED BY app; DROP ROLE app');
ok( eval {
		wait_until(
			sub {
				$session->selectrow_array(q(SELECT state = 'configuration error'
					AND last_error ~ 'role "app" does not exist'
					FROM dispatch.backend_status WHERE name = 'failing'));
			},
			'the reason', 15);
		1;
	},
	'role dropped: the reason') or diag backend_state($node, 'failing');
is(publish(3), '', 'role dropped: publish() works');
is_delivered('role dropped');

$node->stop;
log_ok($node, qr/FATAL:(?!.*due to administrator command)/);
done_testing();
