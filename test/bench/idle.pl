# What it costs to wait: the processors' time of the launcher, the managers and
# the workers while nothing is published, against that of PostgreSQL's own
# background processes on the same idle server.

use strict;
use warnings;

use Bench;
use Bench::Process;
use Bench::Server;
use DispatchTest;
use Time::HiRes qw(sleep);

my $SECONDS = sized(1, 12, 60);
my @COUNTS = sized([ 1, 3 ], [ 1, 10, 100 ], [ 1, 10, 100 ])->@*;

my $node = bench_server("max_worker_processes = 120\n");
my $session = session($node);
my $redis = RedisServer->new(conf => { maxclients => 1000 });
my $made = 0;

sub pids_of
{
	my ($condition) = @_;

	return $session->selectcol_arrayref(
		"SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend' AND $condition");
}

# Milliseconds a minute, of ours and of the others, by what they are called.
sub measure
{
	my %pids = (
		ours => pids_of(q(backend_type LIKE 'dispatch %')),
		theirs => pids_of(q(backend_type NOT LIKE 'dispatch %')));
	my %before = map { $_ => cpu_seconds(@{ $pids{$_} }) } keys %pids;
	my %taken;

	sleep $SECONDS;
	$taken{$_} = cpu_seconds(@{ $pids{$_} }) - $before{$_} foreach keys %pids;
	return map { $_ => $taken{$_} * 1000 * 60 / $SECONDS } keys %taken;
}

foreach my $count (@COUNTS)
{
	create_redis_backend($node, $redis, name => 'backend_' . ++$made) while $made < $count;
	wait_until(
		sub {
			sql($session,
				q(SELECT count(*) FROM dispatch.backend_status WHERE state = 'running')) == $count;
		},
		"$count workers", 120);
	# Each has delivered once, and so is past its first steps.
	publish_many($session, 10, backend => "backend_$_") foreach 1 .. $count;
	sql($session, q(SELECT dispatch.flush('1 min')));
	sleep sized(0, 3, 5);

	my %cost = measure();
	my @workers = @{ pids_of(q(backend_type = 'dispatch worker')) };

	record(
		case => "$count backends, idle", unit => 'ms of CPU a minute', ours => $cost{ours},
		counterpart => 'background processes of PostgreSQL', theirs => $cost{theirs});
	record(
		case => "$count backends, private memory of a worker", unit => 'MB',
		ours => [ map { private_megabytes($_) } @workers ]);
}
