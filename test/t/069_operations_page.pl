# docs/operations.md: its SQL runs as the page says, most of it by an operator who
# can become the owner of the backends, and does what the page says.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use DocPage;

my $LAST_ID = '18446744073709551615-18446744073709551615';
my @KEYS = (41, 42, 43);

my $redis = RedisServer->new(conf => { requirepass => 'secret' });
my $node = new_cluster('operations', q(
	wal_level = logical
	dispatch.sleep_time = '1h'
	dispatch.max_retries = 0
	dispatch.retry_delay = '1h'));
my $page = DocPage->new('docs/operations.md', localhost => '127.0.0.1', 6379 => $redis->port);
my @blocks = $page->blocks('sql');

# The block that has this; each is taken once.
sub block
{
	my ($pattern) = @_;
	my ($i) = grep { $blocks[$_] =~ $pattern } 0 .. $#blocks;

	return splice @blocks, $i // die("no block $pattern\n"), 1;
}

sub sql
{
	my ($query, @arguments) = @_;

	return scalar session($node, 'shop')->selectrow_array($query, undef, @arguments);
}

# As the one who is called at night
sub by_operator { return $page->runs($node, 'shop', $_[0], 'operator'); }

sub publish_all
{
	my ($backend, $data) = @_;

	sql(q(SELECT count(dispatch.publish('order.created', 's', ?, backend => ?, key => k))
		FROM unnest(?::text[]) AS k), $data, $backend, \@KEYS);
	return;
}

sub count_dead
{
	return sql('SELECT count(*) FROM dispatch.dead_letters WHERE backend = ?', @_);
}

$node->safe_psql('postgres', 'CREATE DATABASE shop');
my $port = $redis->port;
$node->safe_psql('shop', qq(
	CREATE EXTENSION dispatch;
	CREATE ROLE shop_owner;
	CREATE ROLE operator LOGIN IN ROLE shop_owner, pg_monitor;
	SELECT dispatch.grant_operate('shop_owner');
	SELECT dispatch.grant_operate('operator');
	SET ROLE shop_owner;
	SELECT dispatch.create_backend('default', 'redis', '{"password": "secret", "port": $port}');
	SELECT dispatch.create_backend('local', 'notify');
	SELECT dispatch.create_backend('old', 'notify')));

# ---- What to watch

my $watch = block(qr/^SELECT name, state, pending, now\(\)/);
wait_for_state($node, $_, 'running', 'shop') foreach qw(default local old);
is(by_operator($watch), '', 'nothing to be seen while all is well');

# The stream takes no more entries, and what is too large for a notification
$redis->client->xadd('events', $LAST_ID, 'a', 'b');
publish_all('default', '1');
publish_all('local', '"' . 'x' x 10_000 . '"');
wait_until(sub { count_dead('default') + count_dead('local') == 2 * @KEYS }, 'dead letters');
like(by_operator($watch), qr/^default\|running\|0\|\|0\|3\|.*\nlocal\|/, 'dead letters are');

# ---- Events that fail

my $failing = block(qr/^SELECT backend, event_type, count/);
my ($dead, $retrying, $waiting) = $page->statements($failing);
like(by_operator($dead), qr/^default\|order\.created\|3\|.*\nlocal\|order\.created\|3\|/,
	'dead letters by backend and type');
by_operator(q(UPDATE dispatch.backends SET max_retries = 5 WHERE name = 'default'));
foreach my $n (1 .. 3)
{
	sql(q(SELECT dispatch.publish('t', 's', '1', key => 'k')));
	wait_until(sub { sql(q(SELECT count(*) FROM dispatch.exceptions WHERE key = 'k')) == $n },
		'an event that is retried, or waits behind it');
}
is(join(' ', map { (split /\|/)[4] } split /\n/, by_operator($retrying)),
	'retrying parked parked', 'what is retried or waits');
is(by_operator($waiting), 'k|3', 'keys that are held up');

# An end to the attempts, as the text says
my ($no_more) = $page->{text} =~ /`(UPDATE dispatch\.backends SET max_retries = 0.*?)`/;
by_operator($no_more);
is(sql(q(SELECT max_retries FROM dispatch.backends WHERE name = 'default')), 0, 'no more attempts');

# The words for dead letters, one after the other; the cause is mended before.
$redis->client->del('events');
my ($all, $typed, $by_key, $discard) = $page->statements(block(qr/retry_failed/));
by_operator($by_key);
wait_until(sub { count_dead('default') == 2 }, 'one less');
is(by_operator($typed), 2, 'retry_failed() of a type says how many');
wait_until(sub { count_dead('default') == 0 }, 'none');
is(by_operator($all), 0, 'retry_failed() of the whole backend has none left');
# The other backend's of that key could not be helped.
wait_until(sub { count_dead('local') == 3 }, 'a dead letter that is one again');
by_operator($discard);
is(count_dead('local'), 0, 'what is too large for a notification is discarded');
is(sql(q(SELECT count(*) FROM dispatch.events WHERE status = 'discarded')), 3, 'all of it');
is(scalar(my @entries = $redis->xrange_all('events')), 3, 'what was retried has arrived');

# ---- An outage: found again at once

my $resume = $page->{text} =~ /with `(SELECT dispatch\.resume_backend\('default'\))`/ && $1;
$redis->stop;
publish_all('default', '2');
wait_for_state($node, 'default', 'outage', 'shop');
$redis->start;
by_operator($resume);
ok(sql(q(SELECT dispatch.flush('20s', 'default'))), 'resume_backend() ends an outage');

# ---- Pausing, changing, dropping

my ($pause, $back, @changes) = $page->statements(block(qr/pause_backend/));
by_operator($pause);
wait_for_state($node, 'default', 'paused', 'shop');
by_operator($back);
wait_for_state($node, 'default', 'running', 'shop');
by_operator($_) foreach @changes;
is( join(' ', session($node, 'shop')->selectrow_array(
		q(SELECT ordering, batch_size, max_retries, retry_delay, options ->> 'max_len' IS NULL
		FROM dispatch.backends WHERE name = 'default'))),
	'strict 500 10 00:00:05 1', 'what was changed');
my ($look, $drop) = $page->statements(block(qr/drop_backend/));
is(by_operator($look), '0|0', 'the old one has nothing to do');
by_operator($drop);
wait_until(sub { sql(q(SELECT count(*) = 0 FROM dispatch.backends WHERE name = 'old')) },
	'its end');

# ---- Processes and retention

like(by_operator(block(qr/pg_stat_activity/)), qr/^dispatch worker\|shop\|2$/m, 'the processes');
my @segments = split /\n/, by_operator(block(qr/pg_total_relation_size/));
is(@segments, 1, 'the segment in use');
like($segments[0], qr/^0\|\d{4}-[^|]+\|\|\|\d+ (?:bytes|kB)$/,
	'opened, not closed, blocked by nothing');

# ---- A copy delivers when it was told to

sql(q(SELECT dispatch.flush('20s')));
sql(q(SELECT dispatch.pause_backend('default')));
publish_all('default', '3');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE shop');
my $copy = session($node, 'copy');
my ($states) = $copy->selectrow_array(
	q(SELECT string_agg(DISTINCT state, ' ') FROM dispatch.backend_status));
is($states, 'not adopted', 'a copy does not deliver');
$copy->do(q(SELECT dispatch.resume_backend('default')));

my $before = $redis->client->xlen('events');
$page->runs($node, 'copy', block(qr/adopt\(\)/));
ok($copy->selectrow_array(q(SELECT dispatch.flush('20s'))), 'and does when it is adopted');
is($redis->client->xlen('events'), $before + @KEYS, 'what was undelivered');
$copy->disconnect;

# ---- Publications, and the end

$node->safe_psql('shop', q(
	CREATE TABLE public.mine (n int PRIMARY KEY);
	SELECT dispatch.resume_backend('default')));
$page->runs($node, 'shop', block(qr/CREATE PUBLICATION/));
is($node->safe_psql('shop', 'SELECT tablename FROM pg_publication_tables'), 'mine',
	'a publication of ours alone');
like($page->runs($node, 'shop', block(qr/DROP EXTENSION/)), qr/^t\n/, 'all is settled at the end');
is("@blocks", '', 'no block is left');

# The copy's real manager may have met with the locks of the one above.
log_ok($node, qr/could not (?!move scheduled events: canceling .* lock timeout)|ERROR/);
$node->stop;
done_testing();
