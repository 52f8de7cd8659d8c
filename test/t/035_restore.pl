# A restored copy of a database sends nothing before dispatch.adopt(), and then
# exactly what the original had not delivered, and what was published in the
# copy since: each once, in the order of its key. So it is in a new server with
# much lower transaction numbers, in one with higher ones, and for a copy made
# with CREATE DATABASE ... TEMPLATE.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use SqlSink;
use PostgreSQL::Test::Utils;

my $SETTINGS = "dispatch.retry_backoff = off\ndispatch.retry_delay = '1 h'";
my $SECRET = canary();

my $redis = RedisServer->new;
my $origin = new_cluster('origin', $SETTINGS);
my $dir = PostgreSQL::Test::Utils::tempdir('dumps');

sub ask
{
	my ($node, $database, $query, @arguments) = @_;

	return value_of(session($node, $database), $query, @arguments);
}

sub status_counts
{
	my ($node, $database, $backend) = @_;

	return {
		map { @$_ } @{
			session($node, $database)->selectall_arrayref(
				'SELECT status, count(*) FROM dispatch.events WHERE backend = ? GROUP BY status',
				undef, $backend) } };
}

sub burn_xids
{
	my ($node, $count) = @_;

	session($node)->do("DO \$\$ BEGIN FOR i IN 1 .. $count LOOP
		PERFORM pg_current_xact_id(); COMMIT; END LOOP; END \$\$");
	return;
}

# ---- The original: events in all states, for several backends

burn_xids($origin, 20_000);
$origin->safe_psql('postgres', 'CREATE DATABASE app');
my $app = session($origin, 'app');
$app->do('CREATE EXTENSION dispatch');
create_sink($app, q(
		CREATE TABLE sink.got (id bigserial, key text, data text)),
	each_event => q(
		IF event.event_type LIKE 'bad%' AND NOT EXISTS (
			SELECT FROM pg_class WHERE relname = 'mended') THEN
			RETURN NEXT (event.event_id, 'bad',
				event.event_type = 'bad.for.ever')::dispatch.failure;
		ELSE
			INSERT INTO sink.got (key, data) VALUES (event.key, event.body);
		END IF;));
$redis->cli('ACL', 'SETUSER', 'alice', 'on', ">$SECRET", '~*', '+@all');
create_redis_backend($origin, $redis, database => 'app', username => 'alice', password => $SECRET);
create_redis_backend($origin, $redis, database => 'app', name => 'paused', stream_name => 'paused');
create_sink_backend($app, 'sink');

# to_jsonb(i) for each number, with keys k0 ... k2.
sub publish
{
	my ($session, $backend, $type, $from, $to) = @_;

	$session->do(
		q(SELECT dispatch.publish(?, 's', to_jsonb(i), backend => ?, key => 'k' || i % 3)
		FROM generate_series(?::int, ?) AS i), undef, $type, $backend, $from, $to);
	return;
}

create_redis_backend($origin, $redis, database => 'app', name => 'old', stream_name => 'old');

publish($app, 'default', 't', 1, 20);
publish($app, 'paused', 't', 1, 10);
publish($app, 'sink', 't', 1, 10);
$app->do('SELECT dispatch.flush()');
$app->do(q(SELECT dispatch.pause_backend('paused'), dispatch.pause_backend('old')));
publish($app, 'old', 't', 1, 3);
publish($app, 'sink', 'bad', 11, 11);			# key k2
publish($app, 'sink', 'bad.for.ever', 12, 12);
$app->do('SELECT dispatch.flush()');
publish($app, 'sink', 't', 13, 18);
$app->do('SELECT dispatch.flush()');
wait_for_state($origin, 'paused', 'paused', 'app');

# Transactions that commit out of the order of their ids; one is still open
# when the dump is taken.
my $slow = session($origin, 'app');
$slow->begin_work;
publish($slow, 'paused', 't', 11, 12);
my $open = session($origin, 'app');
$open->begin_work;
publish($open, 'paused', 't', 901, 910);
publish($app, 'paused', 't', 13, 30);
$slow->commit;
$app->do(q(SELECT dispatch.publish('t', 's', data => d, backend => 'paused', key => 'odd')
	FROM unnest(ARRAY['null', '"text"', '[1]', NULL]::jsonb[]) AS d));
$app->do(q(SELECT dispatch.publish('t', 's', '31', backend => 'paused', key => 'k1',
	scheduled_at => now() + interval '1 h')));
$app->do(q(SELECT dispatch.publish('t', 's', '32', backend => 'paused',
	scheduled_at => now() + interval '1 ms')));
wait_until(
	sub { ask($origin, 'app', 'SELECT count(*) FROM dispatch.scheduled') == 1 }, 'what is due');
sleep 0.3;						# positions are stored
is_deeply(status_counts($origin, 'app', 'sink'),
	{ published => 14, retrying => 1, failed => 1, parked => 2 }, 'the original: retries');
is_deeply(status_counts($origin, 'app', 'paused'),
	{ published => 10, pending => 25, scheduled => 1 }, 'the original: a backlog');


$origin->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", $origin->connstr('app') ], 'pg_dump');
$open->rollback;
sub entries { return $redis->client->xlen('events') + $redis->client->xlen('paused') }
my $delivered = entries();

# What a copy of it must deliver, in the order of each key.
my @odd = (undef, 'text', [1], undef);
my %backlog = (
	k0 => [ 12, 15, 18, 21, 24, 27, 30 ],
	k1 => [ 13, 16, 19, 22, 25, 28 ],
	k2 => [ 11, 14, 17, 20, 23, 26, 29 ]);

# Entries of a stream since then, as lists of data by key; "none" for no key.
sub by_key
{
	my ($stream, $skip) = @_;
	my @entries = $redis->xrange_all($stream);
	my %by_key;

	foreach my $entry (@entries[ $skip .. $#entries ])
	{
		my $event = JSON::PP->new->utf8->allow_nonref->decode($entry->{fields}{cloud_event});
		my $data = $event->{data};
		my $key = ref $data || !defined $data || $data =~ /^t/ ? 'odd'
		  : $data == 32 ? 'none' : 'k' . $data % 3;

		push @{ $by_key{$key} }, exists $event->{data} ? $data : 'no data';
	}
	return \%by_key;
}

# ---- Copies

sub check_copy
{
	my ($node, $database, $what, $has_secret) = @_;
	my $session = session($node, $database);
	my $before = $redis->client->xlen('paused');
	my $events_before = $redis->client->xlen('events');

	is_deeply(status_counts($node, $database, 'sink'),
		{ published => 14, retrying => 1, failed => 1, parked => 2 }, "$what: retries are there");
	is_deeply(status_counts($node, $database, 'paused'),
		{ published => 10, pending => 25, scheduled => 1 }, "$what: so is the backlog");
	is(ask($node, $database,
			q(SELECT string_agg(DISTINCT state, ' ') FROM dispatch.backend_status)),
		'not adopted', "$what: it is not adopted");

	# The copy is used before it is adopted: what is published waits. A backend
	# of its own works at once; another one of its own is paused.
	publish($session, 'paused', 't', 101, 106);
	publish($session, 'default', 't', 101, 103);
	publish($session, 'sink', 't', 101, 103);
	create_redis_backend($node, $redis, database => $database, name => $_, stream_name => $_)
	  foreach qw(own own2);
	$session->do(q(SELECT dispatch.pause_backend('own2')));
	publish($session, 'own', 't', 1, 3);
	publish($session, 'own2', 't', 1, 3);
	wait_until(sub { $redis->client->xlen('own') == 3 }, 'the own backend of the copy');
	sleep 0.5;
	is($redis->client->xlen('paused') - $before + $redis->client->xlen('events') - $events_before,
		0, "$what: nothing is sent");
	is(ask($node, $database, q(SELECT count(*) FROM dispatch.events
		WHERE data IN ('101', '102', '103', '104', '105', '106') AND status = 'published')),
		0, "$what: what is published there does not count as published");
	is(ask($node, $database, q(SELECT pending FROM dispatch.backend_status WHERE name = 'paused')),
		32, "$what: it is pending");

	# By the transaction numbers of this server nothing can be told of them.
	ok(!eval { $session->do(q(SELECT dispatch.drop_backend('old'))); 1 },
		"$what: a backend that is not adopted cannot be dropped");
	like($session->errstr, qr/not adopted.*HINT:.*adopt\(\).*force/s, "$what: ... with a hint");
	is(ask($node, $database, q(SELECT dispatch.flush('0.5 s', 'old'))), 0,
		"$what: and flush() does not take it for empty");
	$session->do(q(SELECT dispatch.drop_backend('old', force => true)));
	my $remains = q(SELECT count(*) FROM dispatch.backends WHERE name = 'old');
	wait_until(sub { !ask($node, $database, $remains) }, "$what: it can be given up", 20);

	$session->begin_work;
	$session->do('SELECT dispatch.adopt()');
	$session->rollback;
	is(ask($node, $database, q(SELECT state FROM dispatch.backend_status WHERE name = 'sink')),
		'not adopted', "$what: adopt() rolled back");
	is_deeply(status_counts($node, $database, 'sink')->{failed}, 1, "$what: ... changes nothing");

	# Events that come with adopt() or after it do not overtake.
	$session->do('CREATE TABLE mended ()');
	$session->begin_work;
	$session->do('SELECT dispatch.adopt()');
	publish($session, 'paused', 't', 107, 109);
	publish($session, 'sink', 't', 104, 106);
	$session->commit;
	publish($session, 'paused', 't', 110, 112);
	is(ask($node, $database, q(SELECT state FROM dispatch.backend_status WHERE name = 'paused')),
		'paused', "$what: what was paused still is");
	$session->do(q(SELECT dispatch.resume_backend('paused')));
	$session->do(q(SELECT dispatch.resume_backend('own2')));
	unless ($has_secret)
	{
		wait_for_state($node, 'default', 'configuration error', $database);
		$session->do('SELECT dispatch.alter_backend(?, ?)', undef, $_,
			qq({"password": "$SECRET"})) foreach qw(default paused);
	}
	# What is to be tried again has its time, which has come now.
	$session->do('UPDATE dispatch.exceptions SET next_attempt_at = now()');
	$session->do('SELECT dispatch.announce_exceptions()');
	wait_until(
		sub {
			$session->selectrow_array('SELECT sum(pending) FROM dispatch.backend_status') == 1;
		},
		"$what: all but what is scheduled is delivered", 12);

	my $got = by_key('paused', $before);
	is_deeply($got,
		{
			k0 => [ @{ $backlog{k0} }, 102, 105, 108, 111 ],
			k1 => [ @{ $backlog{k1} }, 103, 106, 109, 112 ],
			k2 => [ @{ $backlog{k2} }, 101, 104, 107, 110 ],
			none => [32],
			odd => [ undef, 'text', [1], 'no data' ]
		},
		"$what: adopted, the backlog is delivered, in order, once");
	is_deeply(by_key('events', $events_before),
		{ k0 => [102], k1 => [103], k2 => [101] }, "$what: and nothing that was delivered before");
	is_deeply([ stream_data($redis, 'own2') ], [ 1 .. 3 ],
		"$what: backends of the copy's own keep their events");
	is($redis->client->xlen('own'), 3, "$what: and do not send them again");
	is_deeply(
		session($node, $database)->selectall_arrayref(
			q(SELECT key, string_agg(data, ' ' ORDER BY id) FROM sink.got WHERE data::int > 10
			GROUP BY key ORDER BY key)),
		[
			[ 'k0', '15 18 102 105' ], [ 'k1', '13 16 103 106' ], [ 'k2', '11 14 17 101 104' ] ],
		"$what: retries and what was parked behind them, too");
	is(ask($node, $database, q(SELECT data FROM dispatch.dead_letters)), '12',
		"$what: a dead letter is still one");
	$session->do('SELECT dispatch.retry_failed()');
	wait_until(
		sub { ask($node, $database, q(SELECT count(*) FROM sink.got WHERE data = '12')) },
		"$what: it can be tried again", 20);
	is(ask($node, $database, 'SELECT count(*) FROM dispatch.scheduled'), 1,
		"$what: what is scheduled still is");

	my @notices;
	local $SIG{__WARN__} = sub { push @notices, @_ };
	my $again = session($node, $database);
	$again->do('SELECT dispatch.adopt()');
	like("@notices", qr/nothing to adopt/, "$what: there is nothing to adopt any more");
	$session->do(q(SELECT dispatch.publish('t', 's', '"last"')));
	ok(ask($node, $database, q(SELECT dispatch.flush('20 s'))), "$what: and it goes on");
	is((stream_data($redis))[-1], 'last', "$what: as a database of its own");
	$redis->cli('DEL', 'own', 'own2');
	return;
}

sub restored
{
	my ($name, $xids) = @_;
	my $node = new_cluster($name, $SETTINGS);

	burn_xids($node, $xids) if $xids;
	$node->safe_psql('postgres', 'CREATE ROLE sink');
	$node->safe_psql('postgres', 'CREATE DATABASE app');
	$node->command_ok([ 'pg_restore', '-d', $node->connstr('app'), "$dir/dump" ],
		"pg_restore: $name");
	return $node;
}

foreach my $row ([ 'lower', 0 ], [ 'higher', 60_000 ])
{
	my ($name, $xids) = @$row;
	my $node = restored($name, $xids);
	my $relation = ask($node, 'app', 'SELECT pg_snapshot_xmax(pg_current_snapshot())::text')
	  <=> ask($origin, 'app', 'SELECT pg_snapshot_xmax(pg_current_snapshot())::text');

	is($relation, $name eq 'lower' ? -1 : 1, "the server has $name transaction numbers");
	check_copy($node, 'app', $name, 0);
	log_ok($node, qr/\[\d+\] (?:FATAL|WARNING:.*could not)/);
	$node->stop;
}

$_->disconnect foreach $app, $slow, $open;
$origin->safe_psql('postgres', 'CREATE DATABASE template TEMPLATE app');
check_copy($origin, 'template', 'TEMPLATE', 1);
ask($origin, 'app', q(SELECT dispatch.drop_backend('old', force => true)));

# The original is as it was, and goes on.
is_deeply(status_counts($origin, 'app', 'paused'),
	{ published => 10, pending => 25, scheduled => 1 }, 'the original has its backlog');
my $before = $redis->client->xlen('paused');
ask($origin, 'app', q(SELECT dispatch.resume_backend('paused')));
ask($origin, 'app', q(SELECT dispatch.flush('20 s')));
is_deeply(by_key('paused', $before),
	{ %backlog, none => [32], odd => [ undef, 'text', [1], 'no data' ] }, 'and delivers it');

my @notices;
$SIG{__WARN__} = sub { push @notices, @_ };
ask($origin, 'app', 'SELECT dispatch.adopt()');
like("@notices", qr/nothing to adopt/, 'adopt() in an ordinary database has nothing to do');

log_ok($origin, qr/\[\d+\] FATAL/);
$origin->stop;
done_testing();
