# What the processes of dispatch take: descriptors, memory and time, while
# nothing happens, while Redis is away, and over hundreds of lost connections.
#
# DISPATCH_FAULT_RECONNECTS: how many (300).

use strict;
use warnings;

use DispatchTest;
use Faults;
use List::Util qw(max);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $RECONNECTS = $ENV{DISPATCH_FAULT_RECONNECTS} // 300;
my $EVENTS = 200;				# of each round; some are in flight when it is cut
my $SAMPLE_ROUNDS = 20;
my $WARM_ROUNDS = 2 * $SAMPLE_ROUNDS;
my $MOST_DESCRIPTORS = 5;		# more than at the start
my $MOST_KB = 2 * 1024;			# more than after $WARM_ROUNDS
my $IDLE_SECONDS = 20;
my $MOST_IDLE_PERCENT = 0.5;
my $OUTAGE_SECONDS = 10;
my $MOST_OUTAGE_PERCENT = 2;

my $bench = Faults->new('resources', "autovacuum = off\n");
my ($node, $proxy) = @$bench{qw(node proxy)};

sub descriptors
{
	my ($pid) = @_;

	opendir my $dir, "/proc/$pid/fd" or die "/proc/$pid/fd: $!\n";
	return scalar grep { /\d/ } readdir $dir;
}

# Its own memory, in kB: pages of shared memory count for nobody.
sub memory
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : die "no RssAnon\n";
}

# The share of a core that each process takes meanwhile is no more than that.
sub cpu_ok
{
	my ($what, $seconds, $most, %pids) = @_;
	my %before = map { $_ => cpu_seconds($pids{$_}) } keys %pids;

	sleep $seconds;
	foreach my $name (sort keys %pids)
	{
		my $percent = 100 * (cpu_seconds($pids{$name}) - $before{$name}) / $seconds;

		diag(sprintf '%s, %s: %.2f %% of a core', $what, $name, $percent);
		cmp_ok($percent, '<', $most, "$what: CPU of the $name");
	}
	return;
}

foreach my $backend (qw(direct proxied))
{
	$bench->publish($backend, 1);
	$bench->settle($backend);
}
my %pids = map { $_ => (process_ids($node, $_))[0] } qw(launcher manager);
my %workers = map { ("worker of $_" => backend_pid($node, $_)) } qw(direct proxied);
my $worker = $workers{'worker of proxied'};

# What a publisher wakes has died down.
sleep 1;
cpu_ok('idle', $IDLE_SECONDS, $MOST_IDLE_PERCENT, %pids, %workers);

$proxy->set('refuse');
$bench->publish('proxied', $EVENTS);
wait_for_state($node, 'proxied', 'outage');
cpu_ok('outage', $OUTAGE_SECONDS, $MOST_OUTAGE_PERCENT, worker => $worker);
$proxy->set('pass');
$bench->settle('proxied');

# Every connection is cut at another byte, on the way there or back.
my ($descriptors, $cpu) = (descriptors($worker), cpu_seconds($worker));
my $warm = 0;
my @sizes = memory($worker);
my @open = $descriptors;
my $harmed = 0;
my $started = time;
foreach my $round (1 .. $RECONNECTS)
{
	$proxy->set(
		'cut', side => rand() < 0.5 ? 'server' : 'client', after => int rand 3000, once => 1);
	$bench->publish('proxied', $EVENTS);
	$bench->settle('proxied');
	$harmed += $proxy->stats->{faults};
	next if $round % $SAMPLE_ROUNDS;
	push @sizes, memory($worker);
	push @open, descriptors($worker);
	$warm = $sizes[-1] if $round == $WARM_ROUNDS;
}
is(backend_pid($node, 'proxied'), $worker, 'it is one worker that went through all of it');
is($harmed, $RECONNECTS, "$harmed connections were cut");
cmp_ok(max(@open), '<=', $descriptors + $MOST_DESCRIPTORS, 'no descriptor leaks');
cmp_ok(max(@sizes), '<=', $warm + $MOST_KB, 'nor does memory');
$bench->check_drill('proxied', 'and every event came', sub { 1 });
diag(sprintf 'descriptors %s, memory in kB %s', "@open", "@sizes");
diag(sprintf '%d reconnects in %.0f s, %.1f s of CPU', $harmed, time - $started,
	cpu_seconds($worker) - $cpu);
$bench->check_log;
done_testing();
