# Several backends at once: what they deliver together, against one alone. Each
# has a worker and a stream of its own, on one Redis, and the same backlog.

use strict;
use warnings;

use Bench;
use Bench::Server;
use DispatchTest;
use List::Util qw(max min);

my $COUNT = sized(500, 100_000, 200_000);

my $node = bench_server();
my $session = session($node);
my $redis = RedisServer->new;
my @names = map { "backend_$_" } 1 .. 8;

foreach my $name (@names)
{
	create_redis_backend($node, $redis, name => $name, stream_name => $name);
	pause($session, $name);
}

# Events a second of all together, from the first entry to the last.
sub total_rate
{
	my (@active) = @_;
	my $client = $redis->client;
	my (@from, @to);

	publish_many($session, $COUNT, backend => $_) foreach @active;
	# At once: they are started by the same look at the table.
	$session->do('UPDATE dispatch.backends SET enabled = true WHERE name = ANY (?)',
		undef, \@active);
	foreach my $name (@active)
	{
		sql($session, q(SELECT dispatch.flush('10 min', ?)), $name);
		die "$name is not drained\n" if $client->xlen($name) != $COUNT;
		push @from, ($client->xrange($name, '-', '+', 'COUNT', 1))[0][0] =~ /^(\d+)/;
		push @to, ($client->xrevrange($name, '+', '-', 'COUNT', 1))[0][0] =~ /^(\d+)/;
	}
	pause($session, $_) foreach @active;
	$client->flushall;
	return @active * $COUNT / (max(1, max(@to) - min(@from)) / 1000);
}

total_rate($names[0]);
foreach my $active (4, 8)
{
	my %rates = in_turns(
		sized(1, 3, 5),
		ours => sub { total_rate(@names[ 0 .. $active - 1 ]) },
		theirs => sub { total_rate($names[0]) });

	record(
		case => "$active backends at once", unit => 'events/s', ours => $rates{ours},
		counterpart => 'one backend', theirs => $rates{theirs});
}
