# Our processes are ended in every way: they come back by themselves, and
# deliver on from where they were.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my $redis = RedisServer->new(appendonly => 1);
my $node = new_cluster('worker_dies', 'restart_after_crash = on');
my $n = 0;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);

sub publish
{
	my ($count) = @_;

	sql(qq(SELECT dispatch.publish('n', 's', to_jsonb($n + i), key => 'k')
		FROM generate_series(1, $count) AS i));
	$n += $count;
}

sub all_delivered
{
	my ($what) = @_;

	is(sql(q(SELECT dispatch.flush('30s'))), 't', "$what: events flow");
	is_deeply([ stream_data($redis) ], [ 1 .. $n ], "$what: in order, exactly once");
}

# Ends a process of ours and waits for its successor.
sub end_process
{
	my ($kind, $function) = @_;
	my ($pid) = process_ids($node, $kind);
	my @new;

	is(sql("SELECT $function($pid)"), 't', "$kind: $function()");
	wait_until(
		sub { @new = process_ids($node, $kind); @new == 1 && $new[0] != $pid },
		"another $kind", 10);
}

publish(100);
all_delivered('at first');

# SIGTERM: the position is stored on the way out, so nothing comes twice.
foreach my $kind (qw(worker manager launcher))
{
	foreach my $round (1 .. 2)
	{
		publish(10);
		all_delivered("$kind, before round $round");
		end_process($kind, 'pg_terminate_backend');
		publish(10);
		all_delivered("$kind, after round $round");
	}
}

# With events in flight: Redis gets the time to answer for them.
publish(5_000);
end_process('worker', 'pg_terminate_backend');
all_delivered('worker, in the middle of a stream');

# All three at once
my @old = map { process_ids($node, $_) } qw(launcher manager worker);
sql("SELECT pg_terminate_backend($_)") foreach @old;
publish(10);
all_delivered('all three');
is(scalar(process_ids($node, $_)), 1, "there is one $_") foreach qw(launcher manager worker);

# SIGINT is for statements; a worker has none.
my $pid = backend_pid($node, 'default');
foreach my $kind (qw(worker manager launcher))
{
	sql("SELECT pg_cancel_backend($_)") foreach process_ids($node, $kind);
}
publish(10);
all_delivered('pg_cancel_backend()');
is(backend_pid($node, 'default'), $pid, 'pg_cancel_backend(): the worker is still the same');
log_ok($node, qr/WARNING|ERROR/);

# kill -9: the server recovers from the crash, and so do we.
foreach my $kind (qw(worker manager launcher))
{
	my $position = log_position($node);
	my ($victim) = process_ids($node, $kind);

	publish(1);
	kill 'KILL', $victim;
	wait_until(
		sub {
			log_lines($node, qr/terminated by signal 9/, $position)
			  && sql('SELECT 1') eq '1';
		},
		'recovery');
	publish(10);
	is(sql(q(SELECT dispatch.flush('30s'))), 't', "kill -9 of the $kind: events flow");

	my %seen;
	is_deeply([ grep { !$seen{$_}++ } stream_data($redis) ],
		[ 1 .. $n ], "kill -9 of the $kind: nothing is lost, and the order is kept");
}

$node->stop;
done_testing();
