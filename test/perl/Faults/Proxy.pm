#
# Faults::Proxy: the network between a worker and Redis misbehaves.
#
# The cuts are drills, for every byte of a request and of a reply: a chunk that
# Redis has not got in full is not executed, so it comes once; a chunk whose
# reply has not come in full is executed and must not be credited, so it comes
# twice.  Exactly: one copy where two are due is a wrong credit.
#
package Faults::Proxy;

use strict;
use warnings;

use DispatchTest;
use Faults;
use List::Util qw(uniq);
use Test::More;
use Time::HiRes qw(sleep);

my $BACKEND = 'proxied';
my $FLAPS = 10;
my $FLAP_SECONDS = 0.2;
my $CUTS = 5;
my $SECONDS = 2.5;

# name => mode of the proxy, and whether any connection may come to harm
my %TOXIC = (
	refuse => [ ['refuse'], 1 ],
	reset => [ ['reset'], 1 ],
	swallow => [ ['swallow'], 1 ],
	'drop reply' => [ ['drop_reply'], 1 ],
	'late replies' => [ [ 'late', seconds => 1.5 * $SOCKET_SECONDS ], 1 ],
	'slow but in time' => [ [ 'delay', seconds => 0.3 * $SOCKET_SECONDS ], 0 ],
	'slower than the timeout' => [ [ 'delay', seconds => 1.5 * $SOCKET_SECONDS ], 1 ],
	'segments of one byte' => [ ['slice'], 0 ]);

# Storms, one for each kind of trouble.
sub toxics
{
	my ($bench) = @_;
	my $proxy = $bench->{proxy};
	my @cases;

	foreach my $name (sort keys %TOXIC)
	{
		my ($mode, $harmful) = @{ $TOXIC{$name} };
		my $trouble = sub {
			$proxy->set(@$mode);
			sleep $SECONDS;
			my $stats = $proxy->stats;

			return $harmful ? $stats->{accepted} + 1 : 0;
		};
		push @cases, [ $name => sub { $bench->storm($name, $trouble) } ];
	}
	foreach my $side (qw(server client))
	{
		my $name = "cuts of all that goes to the $side";
		my $trouble = sub {
			my $after = int rand 4000;

			note("$name: after $after bytes");
			$proxy->set('cut', side => $side, after => $after);
			sleep $SECONDS;
			return $proxy->stats->{accepted} + 1;
		};
		push @cases, [ $name => sub { $bench->storm($name, $trouble) } ];
	}
	my $flap = sub {
		foreach my $round (1 .. $FLAPS)
		{
			$proxy->set('refuse');
			sleep $FLAP_SECONDS;
			$proxy->set('pass');
			sleep $FLAP_SECONDS;
		}
		return $FLAPS;
	};
	push @cases, [ flapping => sub { $bench->storm('flapping', $flap) } ];
	return @cases;
}

# Strict order while connections break: the ledger judges the order of copies, too,
# and of what Redis has executed no chunk had two events of a key.
sub strict
{
	my ($bench) = @_;
	my $proxy = $bench->{proxy};
	my $cut = sub {
		foreach (1 .. $CUTS)
		{
			my $side = rand() < 0.5 ? 'server' : 'client';

			$proxy->set('cut', side => $side, after => int rand 4000, once => 1);
			wait_until(sub { $proxy->stats->{faults} }, 'a cut');
		}
		return $CUTS;
	};

	return [ 'cuts, ordering strict' => sub {
		my ($name) = @_;
		my $stop = $bench->{redis}->start_monitor;
		my $run = $bench->storm($name, $cut, ordering => 'strict');

		_check_chunks($bench, $name, $run, $stop->());
	} ];
}

sub _check_chunks
{
	my ($bench, $name, $run, @commands) = @_;
	my %key = map { @$_ } @{
		$bench->session_now->selectall_arrayref(
			'SELECT event_id, key FROM ledger.events WHERE run = ? AND key IS NOT NULL',
			undef, $run) };
	my ($largest, $twice, %chunk) = (0, 0);

	foreach (@commands)
	{
		my ($client, $command) = /^[\d.]+ \[\d+ (\S+)\] "(\w+)"/ or next;

		if ($command eq 'MULTI')
		{
			$chunk{$client} = [];
		}
		elsif ($command eq 'XADD')
		{
			push @{ $chunk{$client} }, grep { defined } map { $key{$_} } /"event_id" "([^"]+)"/;
		}
		elsif ($command eq 'EXEC')
		{
			my @keys = @{ delete $chunk{$client} };

			$largest = @keys if @keys > $largest;
			$twice++ if uniq(@keys) < @keys;
		}
	}
	cmp_ok($largest, '>', 1, "$name: there were chunks of several events, of $largest at the most");
	is($twice, 0, "$name: none of them had two of a key");
	return;
}

# How many bytes a transaction of so many events is, there and back.
sub _measure
{
	my ($bench, $count) = @_;

	$bench->publish($BACKEND, 1);
	$bench->settle($BACKEND);
	$bench->{proxy}->set('pass');
	$bench->publish($BACKEND, $count);
	$bench->settle($BACKEND);
	my $stats = $bench->{proxy}->stats;

	$bench->check_drill($BACKEND, "$count events that nothing happens to", sub { $_[0] == 1 });
	return ($stats->{to_server}, $stats->{to_client});
}

sub _cut
{
	my ($bench, $side, $count, $after, $copies) = @_;

	$bench->{proxy}->set('cut', side => $side, after => $after, once => 1);
	$bench->publish($BACKEND, $count);
	wait_until(sub { $bench->{proxy}->stats->{faults} }, 'the cut');
	$bench->settle($BACKEND);
	$bench->check_drill(
		$BACKEND, "$count events, cut after byte $after to the $side: $copies copies",
		sub { $_[0] == $copies });
	return;
}

# The reply to the login, which is cut before anything was sent.
sub login_cuts
{
	my ($bench) = @_;
	my (undef, $reply) = _measure($bench, 1);
	my ($proxy, $login) = ($bench->{proxy});

	$proxy->set('refuse');
	$proxy->set('pass');
	$bench->publish($BACKEND, 1);
	$bench->settle($BACKEND);
	$login = $proxy->stats->{to_client} - $reply;
	$bench->check_drill($BACKEND, "a login with a reply of $login bytes", sub { $_[0] == 1 });
	return map { my $n = $_; [ "login, byte $n" => sub {
		$proxy->set('refuse');
		_cut($bench, 'client', 2, $n, 1);
	} ] } 0 .. $login - 1;
}

# A single event needs no MULTI; two are a transaction, and so are five.
sub cuts
{
	my ($bench) = @_;
	my @cases;

	foreach my $count (1, 2, 5)
	{
		my ($request, $reply) = _measure($bench, $count);

		diag("$count events: a request of $request bytes, a reply of $reply");
		push @cases, map { my $n = $_; [ "reply of $count, byte $n" =>
			sub { _cut($bench, 'client', $count, $n, $n < $reply ? 2 : 1) } ] } 0 .. $reply;
		push @cases, map { my $n = $_; [ "request of $count, byte $n" =>
			sub { _cut($bench, 'server', $count, $n, $n < $request ? 1 : 2) } ] } 0 .. $request
		  if $count == 2;
	}
	return @cases;
}

# The reply to one request comes when the reply to another is waited for, and
# that one has never reached Redis.
sub late_replies
{
	my ($bench) = @_;
	my $proxy = $bench->{proxy};

	return (
		[ 'a late reply is not taken for that to another request' => sub {
			my ($name) = @_;

			$bench->publish($BACKEND, 1);
			$bench->settle($BACKEND);
			sleep 0.5;
			$proxy->set('late', seconds => 1.2 * $SOCKET_SECONDS);
			$bench->publish($BACKEND, 3);
			sleep 0.5 * $SOCKET_SECONDS;
			$bench->publish($BACKEND, 3);
			sleep 1.5 * $SOCKET_SECONDS;
			cmp_ok($proxy->stats->{faults}, '>', 0, "$name: a reply was held");
			$proxy->set('pass');
			$bench->settle($BACKEND);
			$bench->check_drill($BACKEND, $name, sub { $_[0] <= 3 });
		} ],
		[ 'a dropped reply' => sub {
			my ($name) = @_;

			$proxy->set('drop_reply');
			$bench->publish($BACKEND, 5);
			wait_for_state($bench->{node}, $BACKEND, 'outage');
			$proxy->set('pass');
			$bench->settle($BACKEND);
			$bench->check_drill($BACKEND, $name, sub { $_[0] == 2 });
		} ]);
}

1;
