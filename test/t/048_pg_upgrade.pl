# pg_upgrade, to a cluster of the same version: the upgraded one has everything,
# secrets included, sends nothing before adopt(), and then what was undelivered.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use PostgreSQL::Test::Utils;

my $SETTINGS = "dispatch.max_retries = 0\ndispatch.sleep_time = '1 s'";

my $redis = RedisServer->new;
my $old = new_cluster('old', $SETTINGS);
my $new = new_cluster('new', $SETTINGS);
my $session = session($old);

# to_jsonb(i) for each number, with a few keys.
sub publish
{
	my ($backend, $from, $to) = @_;

	$session->do(
		q(SELECT dispatch.publish('t', 's', to_jsonb(i), backend => ?, key => 'k' || i % 3)
		FROM generate_series(?::int, ?) AS i), undef, $backend, $from, $to);
	return;
}

sub statuses
{
	return join ' ', map { "@$_" } @{
		$session->selectall_arrayref(
			'SELECT status, count(*) FROM dispatch.events GROUP BY status ORDER BY status') };
}

$session->do(q(CREATE EXTENSION dispatch));
create_redis_backend($old, $redis);
create_redis_backend($old, $redis, name => 'paused', stream_name => 'paused');
$session->do(q(SELECT dispatch.create_backend('notify', 'notify')));
publish('default', 1, 20);
publish('paused', 1, 10);
# More than a notification may be
$session->do(
	q(SELECT dispatch.publish('t', 's', to_jsonb(repeat('x', 9000)), backend => 'notify')));
ok($session->selectrow_array(q(SELECT dispatch.flush('20 s'))), 'events are delivered');
$session->do(q(SELECT dispatch.pause_backend('paused')));
wait_for_state($old, 'paused', 'paused');
publish('paused', 11, 30);
$session->do(q(SELECT dispatch.publish('t', 's', '31', backend => 'paused',
	scheduled_at => now() + interval '1 h')));
my $before = 'failed 1 pending 20 published 30 scheduled 1';
is(statuses(), $before, 'and there is one of every kind');
sleep 0.3;						# positions are stored

# ---- The upgrade

$session->disconnect;
$old->stop;
$new->stop;
my $bindir = (grep { -x "$_/pg_upgrade" } split /:/, $ENV{PATH})[0];
command_ok(
	[
		'pg_upgrade', '--no-sync', '--retain', '--link', '-b', $bindir, '-B', $bindir,
		'-d', $old->data_dir, '-D', $new->data_dir, '-s', $old->host,
		'-p', $old->port, '-P', $new->port ],
	'pg_upgrade');
my $logs = join '', map { slurp_file($_) }
  glob $new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log';
like($logs, qr/database system is ready/, 'servers ran for it');
unlike($logs, qr/dispatch (?:launcher|manager|worker)/, 'but none of our processes');
$new->start;
$session = session($new);
is(statuses(), $before, 'all events are there, with their states');
is($session->selectrow_array(
		q(SELECT string_agg(DISTINCT state, ' ') FROM dispatch.backend_status)),
	'not adopted', 'the new cluster is another installation');
sleep 1.5;
is(scalar(process_ids($new, 'worker')), 0, 'no worker runs');
is($redis->client->xlen('paused'), 10, 'nothing is sent');

$session->do('SELECT dispatch.adopt()');
publish('paused', 41, 45);
publish('default', 21, 25);
$session->do(q(SELECT dispatch.resume_backend('paused')));
ok($session->selectrow_array(q(SELECT dispatch.flush('20 s'))), 'adopted, it delivers');
foreach my $row ([ 'paused', 1 .. 30, 41 .. 45 ], [ 'events', 1 .. 25 ])
{
	my ($stream, @expected) = @$row;

	is_deeply([ sort { $a <=> $b } stream_data($redis, $stream) ], \@expected,
		"$stream: what was undelivered, once, and what came since; with its password");
}
my @first = grep { $_ % 3 == 0 } stream_data($redis, 'paused');
is_deeply(\@first, [ sort { $a <=> $b } @first ], 'in the order of the keys');
is($session->selectrow_array('SELECT length(data::text) FROM dispatch.dead_letters'), 9002,
	'a dead letter is still one');
is($session->selectrow_array('SELECT count(*) FROM dispatch.scheduled'), 1,
	'what is scheduled still is');

$new->stop;
log_ok($new, qr/\[\d+\] FATAL|WARNING:.*could not/);
done_testing();
