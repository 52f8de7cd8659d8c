# Redis refuses events: where the stream is to blame its events wait, without an
# attempt being counted, and those of other streams flow; where the event is to
# blame it becomes a dead letter and its neighbours are delivered. An event
# whose destination cannot be told any more has failed by itself.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('destinations', q(
	dispatch.retry_backoff = off
	dispatch.retry_delay = '1 s'
	dispatch.max_retries = 2));
my $session = session($node);

sub sql { return value_of($session, @_); }

$session->do('CREATE EXTENSION dispatch');
$redis->cli('ACL', 'SETUSER', 'alice', 'on', '>' . canary(), '~*', '+@all');
create_redis_backend($node, $redis,
	username => 'alice', password => canary(), stream_name => '{event_type}');

sub publish
{
	my ($stream, $data, $key, $backend) = @_;

	return sql(q(SELECT dispatch.publish(?, 's', ?, key => ?, backend => ?)),
		$stream, $data, $key, $backend);
}

sub event
{
	return $session->selectrow_hashref('SELECT * FROM dispatch.events WHERE event_id = ?',
		undef, @_);
}

sub statuses { return join ' ', map { event($_)->{status} } @_; }

sub flush
{
	my ($what) = @_;

	ok(sql(q(SELECT dispatch.flush('20 s'))), "$what: all have been looked at");
	return;
}

# ---- A key of another type, and one that we may not write

$redis->cli('SET', 'taken', 'by a string');
$redis->cli('ACL', 'SETUSER', 'alice', 'resetkeys', '~taken', '~free');
my $worker = backend_pid($node, 'default');
my @taken = (publish('taken', 1, 'k'));
wait_until(sub { statuses(@taken) eq 'retrying' }, 'a failure', 20);
push @taken, publish('taken', 2, 'k');
my @denied = map { publish('denied', $_) } 1 .. 2;
my @free = map { publish('free', $_, $_ == 1 ? 'k' : undef) } 1 .. 3;
flush('destinations');
is(statuses(@taken), 'retrying parked', 'WRONGTYPE: the events wait');
is(statuses(@denied), 'retrying retrying', 'a stream that ACL denies: the events wait');
is(statuses(@free), 'parked published published', 'those of other streams flow');
like(event($taken[0])->{last_error}, qr/WRONGTYPE/, 'WRONGTYPE: Redis has said why');
like(event($denied[0])->{last_error}, qr/NOPERM/, 'denied: Redis has said why');
is(event($_)->{attempts}, 0, 'no attempt is counted') foreach $taken[0], @denied;
ok(sql(q(SELECT bool_and(next_attempt_at BETWEEN now() + interval '5 s' AND now() + interval '11 s')
	FROM dispatch.events WHERE status = 'retrying')), 'they are tried again in ten seconds');
is(sql('SELECT state FROM dispatch.backend_status'), 'running', 'the backend is running');
is(sql('SELECT pending FROM dispatch.backend_status'), 5, 'what waits is pending');

# Mended: more than max_retries of such waits would cost no event its life.
$redis->cli('DEL', 'taken');
$redis->cli('ACL', 'SETUSER', 'alice', '~*');
my $from = time;
wait_until(sub { statuses(@taken, @denied, @free) !~ /retrying|parked/ }, 'all are delivered', 25);
cmp_ok(time - $from, '<', 14, 'within the ten seconds');
is(statuses(@taken, @denied, @free), join(' ', ('published') x 7), 'mended: they go by themselves');
is_deeply([ stream_data($redis, 'taken') ], [ 1, 2 ], 'in order');
is(sql('SELECT count(*) FROM dispatch.exceptions'), 0, 'no row is left');

# ---- A destination that refuses one event is spared the others

# How often Redis has refused an XADD
sub refusals
{
	my ($failed) = $redis->cli('INFO', 'commandstats') =~ /cmdstat_xadd:.*failed_calls=(\d+)/;

	return $failed // 0;
}
$redis->cli('SET', 'taken', 'by a string again');
@taken = (publish('taken', 0, 'first'));
wait_until(sub { statuses(@taken) eq 'retrying' }, 'a failure', 20);
my $refusals = refusals();
$session->begin_work;
push @taken, map { publish('taken', $_, 'k' . $_ % 7) } 1 .. 2000;
my @others = map { publish('free', $_, 'k' . $_ % 7) } 5000 .. 5001;
$session->commit;
flush('a gate');
is(refusals(), $refusals, 'the gate is closed: Redis is not asked again');
is_deeply($session->selectall_arrayref(q(SELECT DISTINCT status, attempts, last_error ~ 'WRONGTYPE'
			FROM dispatch.events WHERE status <> 'published' ORDER BY 1)),
	[ [ 'parked', 0, undef ], [ 'retrying', 0, 1 ] ], 'the others wait, and say why');
sleep 11;
flush('a probe');
cmp_ok(refusals() - $refusals, '<=', 2, 'then one event is sent to find out');
cmp_ok(refusals() - $refusals, '>=', 1, 'it was');
$redis->cli('DEL', 'taken');
$from = time;
wait_until(sub { !sql(q(SELECT count(*) FROM dispatch.exceptions)) }, 'all are delivered', 25);
cmp_ok(time - $from, '<', 14, 'mended: all go within ten seconds');
is_deeply([ sort { $a <=> $b } stream_data($redis, 'taken') ], [ 0 .. 2000 ], 'once each');
my (%last, @disorder);
foreach my $n (stream_data($redis, 'taken'))
{
	push @disorder, $n if $n && $n < ($last{ $n % 7 } // 0);
	$last{ $n % 7 } = $n;
}
is_deeply(\@disorder, [], 'in the order of their keys');
is(statuses(@others), 'published published', 'other streams have not noticed');

# ---- An event that Redis can never take

$redis->cli('CONFIG', 'SET', 'proto-max-bulk-len', '1mb');
$session->begin_work;
my @around = map { publish('free', $_, 'big') } 10, 11;
my $big = publish('free', '"' . 'x' x 2_000_000 . '"', 'big');
push @around, map { publish('free', $_, 'big') } 12, 13;
push @around, map { publish('free', $_) } 14 .. 15;
$session->commit;
wait_until(sub { statuses(@around, $big) !~ /pending|retrying|parked/ }, 'the verdict', 30);
is(statuses($big), 'failed', 'too large: a dead letter at once');
is_deeply([ $session->selectrow_array(q(SELECT attempts, length(data::text)
			FROM dispatch.dead_letters WHERE event_id = ?), undef, $big) ],
	[ 1, 2_000_002 ], 'after one attempt, with its payload');
like(event($big)->{last_error}, qr/\S/, 'with a reason');
is(statuses(@around), join(' ', ('published') x 6), 'its neighbours are delivered');
my %seen;
is_deeply([ grep { /^1[0-3]$/ && !$seen{$_}++ } stream_data($redis, 'free') ], [ 10 .. 13 ],
	'those of its key in order');
wait_for_state($node, 'default', 'running');
$redis->cli('CONFIG', 'SET', 'proto-max-bulk-len', '512mb');
$session->do('SELECT dispatch.retry(?)', undef, $big);
wait_until(sub { statuses($big) eq 'published' }, 'retry() once Redis takes it', 20);

# ---- A destination that cannot be told

create_redis_backend($node, $redis, name => 'told', stream_name => 'told');
my @first = publish('t', '{"n": 0}', undef, 'told');
flush('told');
$session->do(q(SELECT dispatch.pause_backend('told')));
wait_for_state($node, 'told', 'paused');
my @bad = map { publish('t', qq({"n": $_}), 'k', 'told') } 1 .. 3;
my @good = map { publish('t', qq({"n": $_, "to": "told"}), 'k', 'told') } 4 .. 5;
$session->do(q(SELECT dispatch.alter_backend('told', '{"stream_name": "{data.to}"}')));
$session->do(q(SELECT dispatch.resume_backend('told')));
flush('no destination');
wait_until(sub { event($bad[0])->{attempts} == 1 }, 'the first attempt', 10);
like(statuses(@bad, @good), qr/^retrying (?:retrying|parked) (?:retrying|parked) parked parked$/,
	'an event without a destination fails, and holds up its key');
like(event($bad[0])->{last_error}, qr/data\.to/, 'it says why');

# Each has three attempts, a second apart; the last two wait for all of that.
my (@order, %most);
wait_until(
	sub {
		# at one moment
		my $events = $session->selectall_hashref(
			'SELECT event_id, status, attempts FROM dispatch.events WHERE event_id = ANY (?)',
			'event_id', undef, [ @bad, @good ]);
		my @now = @$events{ @bad, @good };

		foreach my $i (0 .. $#now)
		{
			$most{$i} = $now[$i]{attempts} if $now[$i]{attempts} > ($most{$i} // 0);
		}
		my $states = join ' ', map { $_->{status} } @now;
		push @order, $states if !@order || $order[-1] ne $states;
		return $states !~ /retrying|parked|pending/;
	},
	'all are settled', 30);
is(statuses(@bad, @good), 'failed failed failed published published', 'dead letters, at last');
is_deeply([ @most{ 0 .. 2 } ], [ 3, 3, 3 ], 'after as many attempts as any');
is_deeply([ grep { /(?:retrying|parked).*published/ } @order ], [],
	'no event overtakes one whose failure is known');
is_deeply($session->selectall_arrayref(q(SELECT DISTINCT attempts,
		date_trunc('second', last_failed_at - first_failed_at) >= interval '1 s'
		FROM dispatch.dead_letters WHERE backend = 'told')), [ [ 3, 1 ] ],
	'and with the delays between them');
$session->do(q(SELECT dispatch.alter_backend('told', '{"stream_name": "told"}')));
is(sql(q(SELECT dispatch.retry_failed('told'))), 3, 'altering the backend mends what is left');
wait_until(sub { statuses(@bad) eq 'published published published' }, 'they are delivered', 20);
# ---- A failure is known: what was collected for the next chunk does not pass it

$redis->cli('ACL', 'SETUSER', 'alice', '~*');
$redis->cli('SET', 'full', 'a string');
$redis->sigstop;
my $ids = $session->selectcol_arrayref(
	q(SELECT dispatch.publish(CASE i WHEN 1 THEN 'full' ELSE 'free' END, 's', to_jsonb(i),
		key => CASE WHEN i IN (1, 600) THEN 'chunks' END) FROM generate_series(1, 1000) AS i));
wait_until(
	sub {
		1000 == sql(q(SELECT in_flight FROM dispatch.backend_status WHERE name = 'default'));
	},
	'two chunks are full');
$redis->sigcont;
flush('two chunks');
is(statuses(@$ids[ 0, 599 ]), 'retrying parked', 'the next chunk knows of the failure');
is(statuses($ids->[598]), 'published', 'what has another key goes on');

is(backend_pid($node, 'default'), $worker, 'one worker has gone through all of that');

log_ok($node, qr/could not (?:read|store|take)/);
$node->stop;
done_testing();
