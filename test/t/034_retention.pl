# Retention: published events go with their segment when their time has come,
# those that are needed never do, and nobody waits for it. All of this while
# somebody publishes without patience for locks and somebody else holds a
# snapshot from before the beginning.

use strict;
use warnings;

use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use SqlSink;

my $node = new_cluster('retention', q(
	dispatch.published_retention = '4 s'
	dispatch.sleep_time = '500 ms'
	dispatch.retry_backoff = off
	dispatch.retry_delay = '300 ms'
	autovacuum_naptime = '1 s'));
my $session = session($node);

# Of a row that is kept though it is dead, with its part of the indexes; and what
# a table takes besides.
my $ROW_BYTES = 500;
my $SPARE_BYTES = 100_000;

sub sql { return value_of($session, @_); }

$session->do(q(CREATE EXTENSION dispatch));
create_sink($session, q(
		CREATE TABLE sink.got (event_id uuid, type text, data jsonb);
		CREATE TABLE sink.once (event_id uuid PRIMARY KEY);
		CREATE TABLE sink.mended (mended boolean);
		INSERT INTO sink.mended VALUES (false)),
	each_event => q(
		IF event.event_type LIKE 'bad%' AND NOT (SELECT mended FROM sink.mended) THEN
			RETURN NEXT (event.event_id, 'bad',
				event.event_type = 'bad.letter')::dispatch.failure;
		ELSIF event.event_type = 'once' AND NOT EXISTS (
			SELECT FROM sink.once AS o WHERE o.event_id = event.event_id) THEN
			INSERT INTO sink.once VALUES (event.event_id);
			RETURN NEXT (event.event_id, 'once', false)::dispatch.failure;
		ELSIF event.event_type <> 'stream' THEN
			INSERT INTO sink.got VALUES (event.event_id, event.event_type, event.body::jsonb);
		END IF;));
my @backends = qw(default paused idle);
create_sink_backend($session, $_, max_retries => 100_000) foreach @backends;
$session->do(q(SELECT dispatch.pause_backend('paused')));

sub segments
{
	return @{
		$session->selectall_arrayref(
			'SELECT *, now() - closed_at AS closed_for FROM dispatch.segments ORDER BY opened_at',
			{ Slice => {} }) };
}

sub outbox_bytes
{
	return sql(q(SELECT sum(pg_total_relation_size(oid)) FROM pg_class
		WHERE relname ~ '^outbox_\d$'));
}

# Twenty small events.
my $PUBLISH = q(SELECT dispatch.publish('stream', 's', to_jsonb(repeat('x', 200)), key => 'k' || i)
	FROM generate_series(1, 20) AS i);

# Ten that fail at first.
my $PUBLISH_ONCE = q(SELECT dispatch.publish('once', 's', to_jsonb(i), key => 'o' || i)
	FROM generate_series(1, 10) AS i);

# Publishes without patience, in a process of its own, for so many seconds;
# returns what tells the number of events and of errors.
sub start_publishing
{
	my ($seconds) = @_;
	my ($reader, $writer);

	pipe($reader, $writer) or die "pipe: $!\n";
	my $pid = fork;
	die "fork: $!\n" unless defined $pid;
	if ($pid == 0)
	{
		my $mine = session($node);
		my ($events, @errors) = (0);
		my $until = time + $seconds;

		$mine->do(q(SET lock_timeout = '1 ms'));
		while (time < $until)
		{
			if (eval { $mine->do($PUBLISH); 1 })
			{
				$events += 20;
			}
			else
			{
				push @errors, $mine->errstr;
			}
			sleep 0.01;
		}
		syswrite $writer, join "\n", $events, @errors;
		POSIX::_exit(0);
	}
	close $writer;
	return sub { waitpid $pid, 0; local $/; return split /\n/, readline $reader };
}

# ---- What must never go

my @letters = @{
	$session->selectcol_arrayref(
		q(SELECT dispatch.publish('bad.letter', 's',
			jsonb_build_object('letter', i, 'x', repeat('y', 5000)))
		FROM generate_series(1, 3) AS i)) };
my @retrying = @{
	$session->selectcol_arrayref(
		q(SELECT dispatch.publish('bad', 's', to_jsonb(i), key => 'k')
		FROM generate_series(1, 2) AS i)) };
my @waiting = @{
	$session->selectcol_arrayref(
		q(SELECT dispatch.publish('waiting', 's', to_jsonb(i), backend => 'paused')
		FROM generate_series(1, 5) AS i)) };
$session->do(q(SELECT dispatch.publish('t', 's', '1', backend => 'idle')));
ok(sql(q(SELECT dispatch.flush('20 s', 'default'))), 'some fail');

# ---- A run with everything in it

# One who holds xmin, but has not touched the outbox.
my $snapshot = session($node);
$snapshot->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
$snapshot->do('SELECT count(*) FROM pg_class');

my $RUN = 14;
my $started = time;
my $published = start_publishing($RUN);
my (@sizes, %seen, $most, $holder, $held);
my ($longest, $once) = (0, 0);
while (time - $started < $RUN)
{
	my $at = time - $started;

	push @sizes, [ $at, outbox_bytes() ];
	$session->do($PUBLISH_ONCE);
	$once += 10;
	$seen{ $_->{segment} }++ foreach segments();

	# One that reads a segment in a transaction: it must stop nobody.
	if (!$holder && $at > 4)
	{
		$holder = session($node);
		$holder->do('BEGIN ISOLATION LEVEL REPEATABLE READ');
		$held = (grep { !defined $_->{closed_at} } segments())[0]{segment};
		$holder->do("SELECT count(*) FROM dispatch.outbox_$held");
	}
	my $begin = time;
	sql('SELECT count(*) FROM dispatch.outbox');
	$longest = time - $begin if time - $begin > $longest;
	sleep 0.25;
}
my ($events, @errors) = $published->();
is_deeply(\@errors, [], 'publish() with lock_timeout = 1 ms never fails');
cmp_ok($events, '>', 2_000, 'and there were many of them');
cmp_ok($longest, '<', 2, 'a reader of all segments is not kept waiting');
cmp_ok(scalar(keys %seen), '>=', 5, 'segments were in turn');

# All was delivered; those at the beginning have gone.
ok(sql(q(SELECT dispatch.flush('20 s', 'default'))), 'the stream is delivered');
my ($kept, $oldest) = $session->selectrow_array(
	q(SELECT count(*), extract(epoch FROM now() - min(created_at)) FROM dispatch.outbox
	WHERE event_type = 'stream'));
cmp_ok($kept, '<', $events, 'published events go');
my ($early) = grep { $_->[0] > 2 } @sizes;
cmp_ok($sizes[-1][1], '<', 6 * $early->[1], 'disk use does not grow with the run')
  or diag(join ' ', map { int($_->[1] / 1024) } @sizes);

# Its xmin is no hindrance, and nothing was left to vacuum.
is(sql(q(SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname ~ '^outbox_\d$')), 0,
	'no dead tuples in any segment, though xmin is held');
is(sql(q(SELECT sum(n_tup_del + n_tup_upd) FROM pg_stat_user_tables
	WHERE relname ~ '^outbox_\d$')), 0,
	'no event was ever updated or deleted');

# A position is stored ten times a second at the most, however many events there
# are; an exception costs what its event and its attempts cost, others nothing.
wait_until(
	sub { sql(q(SELECT count(*) FROM sink.got WHERE type = 'once')) == $once },
	"$once events are tried again", 20);
my $seconds = time - $started;
my %most_rows = (
	positions => 10 * $seconds * @backends,
	# Each of them comes, is tried again and goes; another one fails all the time.
	exceptions => 3 * $once + 10 * $seconds);
foreach my $table (sort keys %most_rows)
{
	my $bytes = sql('SELECT pg_total_relation_size(?::regclass)', "dispatch.$table");

	note(sprintf '%s: %d kB', $table, $bytes / 1024);
	cmp_ok($bytes, '<', $SPARE_BYTES + $ROW_BYTES * $most_rows{$table},
		"dispatch.$table does not grow with the events that are delivered");
}
# Who stands in the way is told.
my ($segment) = grep { $_->{segment} == $held } segments();
like($segment->{blocked_by}, qr/in use/, 'blocked_by: a transaction has the segment in use');
my ($first) = segments();
like($first->{blocked_by}, qr/"paused"/,
	'blocked_by: a paused backend has events in the first one');
$holder->do('COMMIT');
wait_until(
	sub {
		!grep { $_->{segment} == $held && $_->{opened_at} eq $segment->{opened_at} } segments();
	},
	'the segment is emptied once it is free', 10);
$snapshot->disconnect;
$holder->disconnect;

is_deeply($session->selectcol_arrayref(
		q(SELECT status FROM dispatch.events WHERE event_id = ANY (?)), undef, \@waiting),
	[ ('pending') x 5 ], 'events of a paused backend stay');
$session->do(q(SELECT dispatch.resume_backend('paused')));
ok(sql(q(SELECT dispatch.flush('20 s', 'paused'))), 'until they are delivered');
is(sql(q(SELECT string_agg(data::text, ' ' ORDER BY data) FROM sink.got WHERE type = 'waiting')),
	'1 2 3 4 5', 'all of them');

# ---- Once its segment is gone

wait_until(
	sub { !sql(q(SELECT count(*) FROM dispatch.outbox WHERE event_type <> 'stream')) },
	'the first segments are emptied', 15);
is(sql(q(SELECT count(*) FROM dispatch.dead_letters WHERE length(data ->> 'x') = 5000)), 3,
	'dead letters keep their payload');
like(sql(q(SELECT string_agg(status, ' ' ORDER BY event_id) FROM dispatch.events
		WHERE event_id = ANY (?)), \@retrying),
	qr/^retrying (?:retrying|parked)$/, 'events that are still tried are still shown');
is_deeply($session->selectcol_arrayref(
		q(SELECT status FROM dispatch.events WHERE event_id = ANY (?)), undef, \@letters),
	[ ('failed') x 3 ], 'so are dead letters');
$session->do('UPDATE sink.mended SET mended = true');
is(sql('SELECT dispatch.retry_failed()'), 3, 'dead letters can be tried again');
wait_until(
	sub { sql(q(SELECT count(*) FROM sink.got WHERE type LIKE 'bad%')) == 5 },
	'all that had failed is delivered', 10);
is(sql(q(SELECT count(*) FROM sink.got WHERE type = 'bad.letter' AND length(data ->> 'x') = 5000)),
	3, 'with its payload');
wait_until(sub { !sql('SELECT count(*) FROM dispatch.exceptions') }, 'no row is left', 5);

# All is empty in the end, also after a restart: what is published before the
# manager is there goes to some segment, and that is emptied in its time.
$session->begin_work;
$session->do('LOCK TABLE dispatch.segments IN ACCESS EXCLUSIVE MODE');
$session->do(q(PREPARE TRANSACTION 'blocks'));
$session->disconnect;
$node->restart;
$session = session($node);
$session->do($PUBLISH);
$session->do(q(ROLLBACK PREPARED 'blocks'));
ok(sql(q(SELECT dispatch.flush('20 s', 'default'))), 'events are published right after a restart');
wait_until(
	sub {
		# Something must go on for segments to be in turn.
		sql(q(SELECT dispatch.publish('t', 's', '1')));
		sleep 0.3;
		!sql(q(SELECT count(*) FROM dispatch.outbox WHERE event_type = 'stream'));
	},
	'they go, too', 15);

# ---- Switched off

$session->do('ALTER SYSTEM SET dispatch.cleanup_published = off');
$session->do('SELECT pg_reload_conf()');
sleep 1;
my $before = sql('SELECT count(*) FROM dispatch.outbox');
$session->do($PUBLISH);
sleep 7;
is(sql('SELECT count(*) FROM dispatch.outbox'), $before + 20, 'cleanup_published off: all is kept');

log_ok($node, qr/WARNING.*could not|manager.*ERROR/);
$node->stop;
done_testing();
