# From publish() to a reader of the stream, at several rates, against a program
# that adds the same entries to Redis itself: less is not possible.
#
# The time begins when publish() is called, inside the transaction, and ends
# when a client that waits for the stream has the entry: both by the same clock.

use strict;
use warnings;

use Bench;
use Bench::Load;
use Bench::Server;
use DispatchTest;
use IPC::Run;

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;
my $probe = './test/bench/c/redis_probe';
my $seconds = sized(1, 4, 30);
my $AFTER = sized(0.3, 1, 1);		# seconds, for what comes late
my @PERCENTILES = ([ 50, 2 ], [ 99, 10 ]);

create_redis_backend($node, $redis);

# Runs the code while a reader waits for the stream; the times in milliseconds.
sub read_meanwhile
{
	my ($stream, $code) = @_;
	my ($out, $err) = ('', '');
	my $reader = IPC::Run::start(
		[ $probe, 'read', $redis->port, $stream, $seconds + $AFTER ],
		'<', \undef, '>', \$out, '2>', \$err);

	IPC::Run::pump($reader) until $err =~ /ready/;
	$code->();
	IPC::Run::finish($reader) or die "redis_probe: $err\n";
	return [ map { $_ / 1000 } split /\n/, $out ];
}

# A transaction each, as many clients as it takes to keep the pace.
sub ours
{
	my ($rate) = @_;

	return read_meanwhile('events',
		sub {
			pgbench_tps($node, publish_script(),
				seconds => $seconds, rate => $rate, clients => $rate > 1000 ? 4 : 1);
		});
}

sub theirs
{
	my ($rate) = @_;

	return read_meanwhile('bare',
		sub {
			my $body = payload(300);

			system($probe, 'write', $redis->port, 'bare', $seconds, $rate, $body) == 0
			  or die "redis_probe: $?\n";
		});
}

foreach my $rate (sized([100], [ 10, 1000, 5000 ], [ 10, 1000, 5000 ])->@*)
{
	my %times = in_turns(
		sized(1, 3, 5),
		ours => sub { ours($rate) },
		theirs => sub { theirs($rate) });

	foreach my $wanted (@PERCENTILES)
	{
		my ($percent, $target) = @$wanted;
		my %at = map {
			my $side = $_;
			$side => [ map { percentile($percent / 100, @$_) } @{ $times{$side} } ];
		} keys %times;

		record(
			case => "p$percent at $rate events/s", unit => 'ms', ours => $at{ours},
			counterpart => 'bare XADD', theirs => $at{theirs},
			target => $rate == 1000 ? "< $target" : '');
	}
	# What the view tells of the same, to a fifth: until the reply of Redis.
	my ($p50, $p99) = $session->selectrow_array(
		'SELECT extract(epoch FROM latency_p50) * 1000, extract(epoch FROM latency_p99) * 1000'
		  . ' FROM dispatch.backend_status');

	record(case => "p50 at $rate events/s, backend_status", unit => 'ms', ours => $p50);
	record(case => "p99 at $rate events/s, backend_status", unit => 'ms', ours => $p99);
	# The histogram is of the worker.
	pause($session, 'default');
	resume($session, 'default');
	wait_for_state($node, 'default', 'running');
}
