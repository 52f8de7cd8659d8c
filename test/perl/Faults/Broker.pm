#
# Faults::Broker: Redis itself is frozen, killed, full, a replica, ...
#
package Faults::Broker;

use strict;
use warnings;

use DispatchTest;
use Faults;
use Test::More;
use Time::HiRes qw(sleep time);

my $FREEZE_SECONDS = 2 * $SOCKET_SECONDS;
my $AWAY_SECONDS = 1;
my $KILLS = 50;
my $KILL_SECONDS = 0.04;

# name => what is done to Redis; returns how many connections it may harm.
# Those of the probes that meet the fault count too.
my %FAULT = (
	'frozen for twice the timeout' => sub {
		my ($redis) = @_;

		$redis->sigstop;
		sleep $FREEZE_SECONDS;
		$redis->sigcont;
		return 3;
	},
	'killed, with all that it has acknowledged on disk' => sub {
		my ($redis) = @_;

		foreach my $round (1 .. 3)
		{
			$redis->kill9;
			sleep 0.3;
			$redis->start;
			sleep 0.5;
		}
		return 3;
	},
	'restarted' => sub {
		my ($redis) = @_;

		$redis->stop;
		sleep $AWAY_SECONDS;
		$redis->start;
		return 1;
	},
	'clients killed again and again' => sub {
		my ($redis) = @_;
		my $client = $redis->client;

		foreach my $round (1 .. $KILLS)
		{
			$client->client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
			sleep $KILL_SECONDS;
		}
		return $KILLS;
	},
	'clients paused' => sub {
		my ($redis) = @_;

		$redis->cli('CLIENT', 'PAUSE', 1000 * $FREEZE_SECONDS, 'ALL');
		sleep $FREEZE_SECONDS;
		return 3;
	},
	'full' => sub {
		my ($redis) = @_;

		$redis->cli('CONFIG', 'SET', 'maxmemory', '1');
		sleep $FREEZE_SECONDS;
		$redis->cli('CONFIG', 'SET', 'maxmemory', '0');
		return 0;
	},
	'a replica for a while' => sub {
		my ($redis) = @_;

		# Of a master that is not there, so it keeps its data.
		$redis->cli('REPLICAOF', '127.0.0.1', '1');
		sleep $FREEZE_SECONDS;
		$redis->cli('REPLICAOF', 'NO', 'ONE');
		return 0;
	});

sub storms
{
	my ($bench) = @_;
	my $redis = $bench->{redis};

	return map {
		my $fault = $FAULT{$_};
		[ $_ => sub { $bench->storm($_[0], sub { $fault->($redis) }, via => 'redis') } ]
	} sort keys %FAULT;
}

# What was delivered stays delivered when Redis forgets it.
sub flush_all
{
	my ($bench) = @_;

	return [ 'everything deleted' => sub {
		my ($name) = @_;

		$bench->publish('direct', 10);
		$bench->settle('direct');
		is($bench->{redis}->client->xlen('direct'), 10, "$name: events before");
		$bench->{redis}->cli('FLUSHALL');
		delete $bench->{drill_from};
		$bench->publish('direct', 10);
		$bench->settle('direct');
		$bench->check_drill('direct', "$name: only the events since", sub { $_[0] == 1 });
	} ];
}

1;
