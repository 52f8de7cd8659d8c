#
# The judge of the stress tests is judged: made-up accounts of a run, each with
# one defect, which Ledger::Checker must report, and nothing else besides.
#
use strict;
use warnings;
use utf8;

use JSON::PP ();
use Ledger;
use Ledger::Checker;
use Ledger::Plan;
use Test::More;

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

# The account of a run in which all went well.  Client 1: transaction 1 has two
# events of one key and one rolled back to a savepoint, 2 has failed, 3 (lost
# connection) was committed, 4 (lost connection) was not, 5 is asynchronous.
# Client 2: an event of a shared key before and one after those of client 1.
sub good_account
{
	my $account = { run => 'r', ledger => [], committed => [], stream => [] };

	transaction($account, 2, 1, 'ok', [ 'shared', 1 ]);
	transaction($account, 1, 1, 'ok', [ 'own', 1 ], [ 'own', 2, drop => 1 ], [ 'own', 3 ]);
	transaction($account, 1, 2, 'fail', [ 'own', 4 ]);
	transaction($account, 1, 3, 'info', [ 'shared', 2 ], [ undef, undef ]);
	transaction($account, 1, 4, 'info', [ 'own', 5 ]);
	transaction($account, 1, 5, 'ok', [ 'own', 6 ]);
	transaction($account, 2, 2, 'ok', [ 'shared', 3 ]);
	$_->{async} = 1 foreach grep { $_->{what} eq 'plan' && $_->{txn} == 5 } @{ $account->{ledger} };
	# Transaction 4 has not reached the database after all.
	$account->{committed} = [ grep { $_->{txn} != 4 } @{ $account->{committed} } ];
	$account->{stream} = [ grep { $_->{cloud_event} !~ /"txn":4/ } @{ $account->{stream} } ];
	return $account;
}

my $last_id = 0;

sub payload
{
	my ($client, $txn) = @_;

	return { text => "é\n$client/$txn", list => [ 1, undef, JSON::PP::true ] };
}

sub transaction
{
	my ($account, $client, $txn, $outcome, @keys) = @_;
	my @events;

	foreach my $key (@keys)
	{
		my ($name, $n, %more) = @$key;
		my $payload = payload($client, $txn);
		my $event = {
			seq => scalar @events, key => $name, type => 'týpe', source => 's', subject => undef,
			sha => Ledger::Plan::payload_sha($payload), drop => 0, %more };

		push @events, $event;
		next if $event->{drop} || $outcome eq 'fail';
		add_delivery($account, $client, $txn, $event, $n, $payload);
	}
	push @{ $account->{ledger} },
	  {
		what => 'plan', client => $client, txn => $txn, kind => 'plain', async => 0,
		events => \@events },
	  { what => $outcome, client => $client, txn => $txn };
}

sub add_delivery
{
	my ($account, $client, $txn, $event, $n, $payload) = @_;
	my $id = sprintf '00000000-0000-7000-8000-%012d', ++$last_id;
	my %data = (
		run => $account->{run}, client => $client, txn => $txn, seq => $event->{seq},
		key => $event->{key}, n => $n, payload => $payload);
	my $type = $event->{type};

	utf8::encode($type);
	push @{ $account->{committed} },
	  {
		client => $client, txn => $txn, seq => $event->{seq}, key => $event->{key}, n => $n,
		event_id => $id };
	push @{ $account->{stream} },
	  {
		event_id => $id, event_type => $type, source => 's', timestamp => 't',
		cloud_event => $json->encode({
			id => $id, type => $event->{type}, source => 's', specversion => '1.0',
			data => \%data }) };
}

# Changes the JSON of an entry.
sub edit
{
	my ($entry, $change) = @_;
	my $event = $json->decode($entry->{cloud_event});

	$change->($event);
	$entry->{cloud_event} = $json->encode($event);
}

# A defect that only one list may show: title, its list, what makes it.
sub finds
{
	my ($title, $defect, $break, %args) = @_;
	my $account = good_account();

	$break->($account);
	my $report = Ledger::Checker::check_run(%$account, %args);
	my @found = grep { @{ $report->{$_} } } map { $_->[0] } @Ledger::Checker::DEFECTS;

	is("@found", $defect, $title) or diag(explain($report));
	return $report;
}

# The entries of a good stream: 0 shared 1 | 1 own 1 | 2 own 3 | 3 shared 2 |
# 4 no key | 5 own 6 | 6 shared 3.
my $report = finds('a good run is good', '', sub { });
is($report->{events}, 7, 'all events are counted');
is($report->{entries}, 7, 'all entries are counted');
is($report->{duplicates}, 0, 'no duplicates are counted');
is_deeply($report->{kinds}, { plain => { ok => 4, fail => 1, info => 2 } }, 'outcomes are counted');

finds('a lost event', 'lost', sub { splice @{ $_[0]{stream} }, 4, 1 });
finds('all events lost', 'lost', sub { $_[0]{stream} = [] });
finds('the event of an unknown outcome, lost', 'lost', sub { splice @{ $_[0]{stream} }, 3, 1 });

# Delivers an event that was planned, but is not in the database.
sub deliver_undone
{
	my ($account, $txn, $seq, $n) = @_;
	my ($plan) = grep { $_->{what} eq 'plan' && $_->{client} == 1 && $_->{txn} == $txn }
	  @{ $account->{ledger} };

	add_delivery($account, 1, $txn, $plan->{events}[$seq], $n, payload(1, $txn));
	pop @{ $account->{committed} };
}

finds('an event of a failed transaction', 'rolled_back', sub { deliver_undone($_[0], 2, 0, 4) });
finds('an event of a subtransaction that was undone', 'rolled_back',
	sub { deliver_undone($_[0], 1, 1, 2) });
finds('an event of a transaction that did not get through', 'phantom',
	sub { deliver_undone($_[0], 4, 0, 5) });
finds('a ghost: delivered, but gone after the crash', 'phantom',
	sub { $_[0]{committed} = [ grep { $_->{txn} != 5 } @{ $_[0]{committed} } ] }, crashes => 1);
finds('an event that nobody has published', 'phantom', sub {
	push @{ $_[0]{stream} }, { %{ $_[0]{stream}[4] }, event_id => 'x' };
	edit($_[0]{stream}[-1], sub { $_[0]{id} = 'x'; $_[0]{data}{txn} = 99 });
});
finds('an event of another run', 'phantom', sub {
	push @{ $_[0]{stream} }, { %{ $_[0]{stream}[0] }, event_id => 'x' };
	edit($_[0]{stream}[-1], sub { $_[0]{id} = 'x'; $_[0]{data}{run} = 'other' });
});

# Changes in the JSON of the third entry
my %altered = (
	'another payload' => sub { $_[0]{data}{payload}{text} .= ' ' },
	'a true that became 1' => sub { $_[0]{data}{payload}{list}[2] = 1 },
	'a number that became a text' => sub { $_[0]{data}{payload}{list}[0] = '1' },
	'characters encoded twice' => sub { utf8::encode($_[0]{data}{payload}{text}) },
	'no payload' => sub { delete $_[0]{data}{payload} },
	'another key' => sub { $_[0]{data}{key} = 'x' },
	'no key' => sub { $_[0]{data}{key} = undef },
	'another number' => sub { $_[0]{data}{n} = 2 },
	'a subject from nowhere' => sub { $_[0]{subject} = '' });
my %malformed = (
	'another id' => sub { $_[0]{id} = 'x' },
	'no version' => sub { delete $_[0]{specversion} });
foreach my $title (sort keys %altered)
{
	finds($title, 'altered', sub { edit($_[0]{stream}[2], $altered{$title}) });
}
foreach my $title (sort keys %malformed)
{
	finds($title, 'malformed', sub { edit($_[0]{stream}[2], $malformed{$title}) });
}
finds('another source, in field and JSON', 'altered', sub {
	$_[0]{stream}[2]{source} = 'x';
	edit($_[0]{stream}[2], sub { $_[0]{source} = 'x' });
});
finds('only the second copy is altered', 'altered', sub {
	push @{ $_[0]{stream} }, { %{ $_[0]{stream}[2] } };
	edit($_[0]{stream}[-1], sub { $_[0]{data}{payload} = undef });
});
finds('a missing field', 'malformed', sub { delete $_[0]{stream}[2]{timestamp} });
finds('an extra field', 'malformed', sub { $_[0]{stream}[2]{key} = 'own' });
finds('JSON that is cut off', 'lost malformed',
	sub { substr($_[0]{stream}[2]{cloud_event}, -1) = '' });
finds('a field that is not the attribute', 'malformed', sub { $_[0]{stream}[2]{event_type} = 'x' });

finds('two events with one id', 'identity', sub {
	my ($account) = @_;
	my $id = $account->{stream}[0]{event_id};

	$account->{stream}[2]{event_id} = $account->{committed}[2]{event_id} = $id;
	edit($account->{stream}[2], sub { $_[0]{id} = $id });
});
finds('a second copy with an id of its own', 'identity', sub {
	push @{ $_[0]{stream} }, { %{ $_[0]{stream}[2] }, event_id => 'x' };
	edit($_[0]{stream}[-1], sub { $_[0]{id} = 'x' });
});

finds('events of a client out of order', 'order',
	sub { @{ $_[0]{stream} } = @{ $_[0]{stream} }[ 0, 2, 1, 3, 4, 5, 6 ] });
finds('events of two clients out of order', 'order',
	sub { @{ $_[0]{stream} } = @{ $_[0]{stream} }[ 3, 1, 2, 0, 4, 5, 6 ] });
finds('other keys and no key may come in any order', '',
	sub { @{ $_[0]{stream} } = @{ $_[0]{stream} }[ 1, 4, 2, 0, 5, 3, 6 ] });

$report = finds('copies are no defect', '',
	sub { push @{ $_[0]{stream} }, @{ $_[0]{stream} }[ 0, 1, 1 ] });
is($report->{duplicates}, 3, 'copies are counted');
is_deeply($report->{histogram}, { 1 => 5, 2 => 1, 3 => 1 }, 'and how often each came');

finds('strict: a copy behind the next event of its key', 'order',
	sub { push @{ $_[0]{stream} }, $_[0]{stream}[2] }, strict => 1);
finds('strict: copies before the next event of their key', '',
	sub { @{ $_[0]{stream} } = @{ $_[0]{stream} }[ 0, 0, 1, 4, 1, 2, 2, 3, 4, 5, 6 ] },
	strict => 1);

# The database against its clients: rows that are gone, as are their deliveries
sub lose
{
	my ($account, $row) = @_;

	splice @{ $account->{$_} }, $row, 1 foreach qw(committed stream);
}

finds('an asynchronous commit that is gone without a crash', 'database', sub { lose($_[0], 5) });
$report = finds('an asynchronous commit that a crash took', '',
	sub { lose($_[0], 5) }, crashes => 1);
is($report->{async_lost}, 1, 'and that is counted');
finds('a commit that is gone', 'database', sub { lose($_[0], 0) }, crashes => 1);
finds('half a transaction', 'database', sub { lose($_[0], 1) }, crashes => 1);
finds('a failed transaction that was committed', 'database lost', sub {
	push @{ $_[0]{committed} },
	  { client => 1, txn => 2, seq => 0, key => 'own', n => 4, event_id => 'x' };
});

# Troubles of the clients
$report = finds('an error that no client should meet', 'error', sub {
	push @{ $_[0]{ledger} }, { what => 'error', client => 1, state => '40P01', text => 'deadlock' };
});
$report = finds('a lost session', '',
	sub { push @{ $_[0]{ledger} }, { what => 'lost', client => 1 } });
is($report->{sessions_lost}, 1, 'is counted');

# The server log
my @quiet = (
	'LOG:  checkpoint starting: time', '[1] x.pl ERROR:  canceling statement due to lock timeout',
	'LOG:  server process (PID 1) was terminated by signal 9: Killed');
my @loud = (
	'PANIC:  could not write', 'TRAP: FailedAssertion("x", File: "y", Line: 1)',
	'LOG:  background worker "x" (PID 1) was terminated by signal 11: Segmentation fault',
	'LOG:  server process (PID 1) was terminated by signal 6: Aborted',
	'[1] x.pl ERROR:  deadlock detected', '[1] ERROR:  a worker has failed',
	'WARNING:  resource was not closed: relation leak');
sub complaints
{
	my ($lines, %args) = @_;

	return [ log_complaints(join("\n", @$lines), %args) ];
}

is_deeply(complaints(\@quiet, kill9 => 1), [], 'a quiet log');
is_deeply(complaints(\@quiet), [ $quiet[2] ], 'a log with a kill that is not ours');
is_deeply(complaints([ @quiet, @loud ], kill9 => 1), \@loud, 'a log with complaints');

# The plans: the same seed makes the same, and what they drop is what they undo.
sub some_plans
{
	my ($busy) = @_;
	my $plans = Ledger::Plan->new(seed => 7, client => 1, async => 0.5);

	return map { $plans->plan_next($busy) } 1 .. 1000;
}

my @plans = some_plans({});
is_deeply([ some_plans({}) ], \@plans, 'a seed determines the plans');
my %kinds = map { $_->{kind} => 1 } @plans;
is_deeply([ sort keys %kinds ], \@Ledger::Plan::KINDS, 'every kind is planned');

my ($wrong, $dropped) = (0, 0);
sub walk
{
	my ($steps, $drop) = @_;

	foreach my $step (@$steps)
	{
		walk($step->{sub}, $drop || $step->{fate} eq 'rollback' ? 1 : 0) if $step->{sub};
		next if !$step->{publish};
		$wrong++ if $step->{publish}{drop} != $drop;
		$dropped += $drop;
	}
}
walk($_->{steps}, 0) foreach @plans;
is($wrong, 0, 'the events of what is undone, and only these, are marked');
cmp_ok($dropped, '>', 0, 'and there are some');

my @events = map { @{ $_->{events} } } some_plans({ 'own 1.1' => 1 });
my %uses;
$uses{ $_->{key} // '' }++ foreach @events;
is($uses{'own 1.1'} // 0, 0, 'a busy key is not used');
cmp_ok($uses{'own 1.2'}, '>', 0, 'another one is');

done_testing();
