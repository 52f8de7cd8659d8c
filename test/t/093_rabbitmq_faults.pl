# Whatever happens to RabbitMQ, events wait and none is lost, none counts an
# attempt, and the server can be stopped at once.

use strict;
use warnings;

use List::Util qw(shuffle uniq);
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use FakeRabbit;
use RabbitServer;
use TcpProxy;

# Short, so that the test is; heartbeats are whole seconds.
my %patience = (connect_timeout => 3, socket_timeout => 3, heartbeat => 1);

# What docs/rabbitmq.md says of a worker, and docs/guarantees.md of a server.
my $WORKER_SECONDS = 3;
my $STOP_SECONDS = 5;
my $BIG = 8_000_000;				# more than sockets hold

my $rabbit = RabbitServer->new;
my $client = $rabbit->client;
my $proxy = TcpProxy->new($rabbit->host, $rabbit->port);
# No attempt but the first: what loses one is a dead letter.
my $node = new_cluster('rabbitfaults', "log_statement = none\ndispatch.sleep_time = '1h'\n"
	  . "max_worker_processes = 30\ndispatch.max_retries = 0");
my $session = session($node);
my %n = map { $_ => 0 } qw(direct proxied);

$session->do('CREATE EXTENSION dispatch');
foreach (sort keys %n)
{
	$client->queue($_);
	$rabbit->create_backend($node, name => $_, exchange => '', routing_key => $_,
		envelope => 'data', %patience,
		port => 0 + ($_ eq 'proxied' ? $proxy->port : $rabbit->port));
}

# Publishes that many events, each in a transaction of its own.
sub publish
{
	my ($backend, $count) = @_;

	$session->do(q(SELECT dispatch.publish('n', 's', ?::jsonb, key => 'k', backend => ?)),
		undef, ++$n{$backend}, $backend)
	  foreach 1 .. $count;
	return;
}

sub publish_big
{
	my ($backend) = @_;

	return $session->selectrow_array(
		q(SELECT dispatch.publish('big', 's', to_jsonb(repeat('x', ?)), backend => ?)),
		undef, $BIG, $backend);
}

sub status
{
	return $session->selectrow_hashref(
		'SELECT * FROM dispatch.backend_status WHERE name = ?', undef, $_[0]);
}

sub sql { return value_of($session, @_); }

# Until all of a backend is delivered; a back-off is cut short.
sub settle
{
	my ($backend) = @_;

	wait_until(
		sub {
			return 1 if sql(q(SELECT dispatch.flush('300ms', ?)), $backend)
			  && !status($backend)->{pending};
			sql('SELECT dispatch.resume_backend(?)', $backend);
			return 0;
		},
		"delivery to $backend", 60);
	return;
}

sub dead_letters
{
	return sql('SELECT count(*) FROM dispatch.dead_letters WHERE backend = ?', @_);
}

my %seen = map { $_ => 0 } keys %n;

# All events that were published since the last call are in the queue, in order;
# how many came twice.
sub arrived
{
	my ($backend, $what) = @_;
	my @data;

	settle($backend);
	@data = map { $_->{body} } $client->drain($backend);
	is_deeply([ uniq @data ], [ $seen{$backend} + 1 .. $n{$backend} ], "$what: all came, in order");
	$seen{$backend} = $n{$backend};
	is(dead_letters($backend), 0, "$what: it has cost no event an attempt");
	return @data - uniq @data;
}

# Its worker can be ended; another one takes its place.
sub worker_ends
{
	my ($backend, $what) = @_;
	my $pid = backend_pid($node, $backend);
	my $started = time;

	sql('SELECT pg_terminate_backend(?)', $pid);
	wait_until(sub { !kill 0, $pid }, "$what: the end of worker $pid", 60);
	cmp_ok(time - $started, '<', $WORKER_SECONDS, "$what: SIGTERM ends the worker");
	note(sprintf 'it took %.1f s', time - $started);
	return;
}

sub server_stops
{
	my ($what) = @_;
	my $started = time;

	$session->disconnect;
	$node->stop('fast');
	cmp_ok(time - $started, '<', $STOP_SECONDS, "$what: the server can be stopped");
	note(sprintf 'it took %.1f s', time - $started);
	$node->start;
	$session = session($node);
	return;
}

# ---- RabbitMQ stops, is killed, comes back

publish('direct', 3);
publish('proxied', 3);
is(arrived('direct', 'peace'), 0, 'peace: each once');
is(arrived('proxied', 'peace'), 0, 'peace: each once, through the proxy, too');

# What a restart leaves of what was confirmed: "kept" is durable, as is "direct"
$client->queue('kept');
$rabbit->create_backend($node, name => 'kept', exchange => '', routing_key => 'kept',
	envelope => 'data', %patience);
foreach my $mode (2, 1)
{
	$session->do(q(SELECT dispatch.publish('n', 's', to_jsonb(?::int), backend => 'kept',
		options => jsonb_build_object('delivery_mode', ?::int))), undef, $mode, $mode);
}
settle('kept');

my $position = log_position($node);
$rabbit->stop;
publish('direct', 5);
wait_for_state($node, 'direct', 'outage');
sleep 1.5;
is(status('direct')->{pending}, 5, 'stopped: events wait');
is(scalar log_lines($node, qr/WARNING:.*"direct"/, $position), 1, 'stopped: a single warning');
ok(status('direct')->{next_attempt_at}, 'stopped: it is said when it is tried again');
worker_ends('direct', 'stopped');
publish('direct', 5);
$rabbit->start;
arrived('direct', 'stopped and started');
is_deeply([ map { $_->{body} } $client->drain('kept') ], [2],
	'a restart leaves persistent messages of a durable queue, and no transient ones');

publish('direct', 200);
$rabbit->kill9;
publish('direct', 5);
wait_for_state($node, 'direct', 'outage');
$rabbit->start;
arrived('direct', 'killed');

publish('direct', 2);
settle('direct');
$rabbit->restart_app;
publish('direct', 2);
arrived('direct', 'stopped within its process');

publish('direct', 2);
settle('direct');
$rabbit->close_connections('enough of it');
publish('direct', 2);
arrived('direct', 'connections closed by an operator');

# ---- RabbitMQ does not answer

publish('direct', 1);
settle('direct');
$rabbit->sigstop;
publish('direct', 20);
wait_until(sub { status('direct')->{in_flight} > 0 }, 'events in flight');
worker_ends('direct', 'frozen, events in flight');
wait_for_state($node, 'direct', 'outage');
server_stops('frozen');
$rabbit->sigcont;
arrived('direct', 'frozen and thawed');

# Half-open: nobody says anything any more.  Also where nothing is in flight.
publish('proxied', 1);
settle('proxied');
$proxy->set('swallow');
wait_for_state($node, 'proxied', 'outage');
publish('proxied', 3);
worker_ends('proxied', 'half-open');
$proxy->set('pass');
arrived('proxied', 'half-open');

# Replies get lost: then events come twice, with the same id
publish('proxied', 1);
settle('proxied');
$proxy->set('drop_reply');
publish('proxied', 10);
wait_for_state($node, 'proxied', 'outage');
$proxy->set('pass');
cmp_ok(arrived('proxied', 'replies lost'), '<=', 10, 'replies lost: copies of those in flight');

# One byte at a time
$proxy->set('slice');
publish('proxied', 20);
is(arrived('proxied', 'segments of one byte'), 0, 'segments of one byte: each once');
$proxy->set('pass');

# ---- RabbitMQ has no room

foreach my $alarm ('memory', 'disk')
{
	publish('direct', 1);
	settle('direct');
	$rabbit->raise_alarm($alarm);
	publish('direct', 10);
	# It is told with the first message that comes while there is an alarm.
	wait_for_state($node, 'direct', 'outage');
	sleep 3 * $patience{heartbeat};
	like(status('direct')->{last_error}, qr/blocks those who publish: low on $alarm/,
		"$alarm alarm: it is said why, also after a while");
	worker_ends('direct', "$alarm alarm") if $alarm eq 'disk';
	$rabbit->clear_alarms;
	my $copies = arrived('direct', "$alarm alarm");
	is($copies, 0, "$alarm alarm: each once") if $alarm eq 'memory';
}

# A queue that is full refuses: its events wait, in order
$client->queue('full', arguments => { 'x-max-length' => 5, 'x-overflow' => 'reject-publish' });
$rabbit->create_backend($node, name => 'full', exchange => '', routing_key => 'full',
	envelope => 'data', %patience);
$n{full} = $seen{full} = 0;
publish('full', 20);
wait_until(sub { (status('full')->{last_error} // '') =~ /nack|full/ }, 'a refusal', 30);
is($client->depth('full'), 5, 'a full queue takes no more');
my @taken;
wait_until(
	sub {
		push @taken, map { $_->{body} } $client->drain('full');
		sql(q(SELECT dispatch.resume_backend('full')));
		return @taken >= 20;
	},
	'the rest', 60);
is_deeply([ uniq @taken ], [ 1 .. 20 ], 'a full queue: all came in the end, in order');
is(dead_letters('full'), 0, 'a full queue: no attempt is counted');

# ---- Another host

my $gone = silent_listener();
my $free_port = PostgreSQL::Test::Cluster::get_free_port();
$rabbit->create_backend($node, name => 'hosts', exchange => '', routing_key => 'direct',
	host => "127.0.0.1:$free_port, 127.0.0.1:" . $proxy->port . ', 127.0.0.1', envelope => 'data',
	%patience);
$client->purge('direct');
sql(q(SELECT dispatch.publish('n', 's', '"by the second"', backend => 'hosts')));
settle('hosts');
is_deeply([ map { $_->{body} } $client->drain('direct') ], ['"by the second"'],
	'hosts: the second, where the first is not there');
$proxy->set('refuse');
sql(q(SELECT dispatch.publish('n', 's', '"by the third"', backend => 'hosts')));
settle('hosts');
is_deeply([ map { $_->{body} } $client->drain('direct') ], ['"by the third"'],
	'hosts: the third, where the second went away');
$proxy->set('pass');
ok(sql(q(SELECT bool_and(ok) FROM dispatch.check_backend('hosts'))), 'hosts: check_backend()');
sql(q(SELECT dispatch.drop_backend('hosts')));

# One that lets nobody in is passed over, until another one has let us in.
my @hosts = map { FakeRabbit->new } 1 .. 2;
$hosts[0]->behave(at => 'start_ok', say => 'close', once => 1);
$rabbit->create_backend($node, name => 'logins', exchange => 'x', routing_key => 'x',
	host => join(', ', map { '127.0.0.1:' . $_->port } @hosts), %patience);
sql(q(SELECT dispatch.publish('n', 's', backend => 'logins')));
settle('logins');
is($hosts[1]->report->{ready}, 1, 'hosts: the second, where the first does not let us in');
$hosts[0]->behave;
$hosts[1]->behave(at => 'publish', say => 'close', once => 1);
sql(q(SELECT dispatch.publish('n', 's', backend => 'logins')));
settle('logins');
is($hosts[0]->report->{ready}, 1, 'hosts: the first again, at the next connection');
sql(q(SELECT dispatch.drop_backend('logins')));

# ---- A queue that is deleted

$client->queue('deleted');
$rabbit->create_backend($node, name => 'deleted', exchange => '', routing_key => 'deleted',
	envelope => 'data', %patience);
$n{deleted} = $seen{deleted} = 0;
publish('deleted', 2);
arrived('deleted', 'a queue');
# An event that nobody wants has failed.
sql(q(UPDATE dispatch.backends SET max_retries = 1000 WHERE name = 'deleted' RETURNING 1));
$client->delete_queue('deleted');
publish('deleted', 2);
wait_until(
	sub { sql(q(SELECT count(*) FROM dispatch.events WHERE last_error ~ 'NO_ROUTE')) },
	'an unroutable event', 30);
$client->queue('deleted');
arrived('deleted', 'a queue deleted and declared again');

# ---- Nothing of all this keeps a server from stopping

my @fakes = map { FakeRabbit->new } 1 .. 3;
my ($full, @fill) = full_listener();
my %hanging = (
	'a big event half sent' => $fakes[0]->port,
	'a login without an answer' => $fakes[1]->port,
	'a channel without an answer' => $fakes[2]->port,
	'nobody accepts' => $gone->sockport,
	'nobody is there' => $full->sockport);
my $hang = 0;

$fakes[0]->behave(confirm => 'none', at => 'publish', say => 'stall');
$fakes[1]->behave(at => 'start_ok', say => 'nothing');
$fakes[2]->behave(at => 'channel_open', say => 'nothing');
foreach my $what (sort keys %hanging)
{
	$rabbit->create_backend($node, name => 'hang' . ++$hang, port => 0 + $hanging{$what},
		exchange => '', routing_key => 'direct');
	publish_big("hang$hang");
}
sql(q(SELECT dispatch.publish('n', 's', '1', backend => 'hang1')));
$client->purge('direct');
publish('direct', 1);
arrived('direct', 'before an alarm');
$rabbit->raise_alarm('memory');
publish_big('direct');
wait_for_state($node, 'direct', 'outage');
wait_until(
	sub { $fakes[0]->report->{ready} && $fakes[1]->report->{met} && $fakes[2]->report->{met} },
	'connections that hang', 30);
server_stops('events half sent, logins half done');
$rabbit->clear_alarms;
settle('direct');
is_deeply([ uniq map { length $_->{body} } $client->drain('direct') ], [ $BIG + 2 ],
	'the big event came');
sql('SELECT dispatch.drop_backend(?, true)', "hang$_") foreach 1 .. $hang;

# Warnings there must be.
log_ok($node, qr/(?!)/);
$node->stop;
done_testing();
