# backend_status.pending with transactions that were open while others had their
# events delivered: theirs are late, and count as others do.

use strict;
use warnings;

use Test::More;

use DispatchTest;

my $MANY = 12_000;				# more than are counted exactly
my $PART = 100;

my $node = new_cluster('pending');
my $session = session($node);

sub publish_many
{
	my ($by, $count) = @_;

	$by->do(q(SELECT count(dispatch.publish('t', 's')) FROM generate_series(1, ?)), undef, $count);
	return;
}

sub pending
{
	return scalar $session->selectrow_array('SELECT pending FROM dispatch.backend_status');
}

# With what these transactions have published, and the worker has not seen yet, nor
# sees when they commit.
sub commit_late
{
	my (@sessions) = @_;

	publish_many($session, 1);
	ok($session->selectrow_array(q(SELECT dispatch.flush('20 s'))), 'others are delivered');
	$session->do(q(SELECT dispatch.pause_backend('default')));
	wait_for_state($node, 'default', 'paused');
	is(pending(), 0, 'nothing is pending while they are open');
	$_->commit foreach @sessions;
	return;
}

sub about
{
	my ($count, $what) = @_;
	my $pending = pending();

	cmp_ok(abs($pending - $count), '<', 0.05 * $count, "$what: $pending of $count are pending");
	return;
}

sub deliver
{
	$session->do(q(SELECT dispatch.resume_backend('default')));
	ok($session->selectrow_array(q(SELECT dispatch.flush('60 s'))), 'all are delivered');
	is(pending(), 0, 'and none is pending');
	return;
}

$session->do('CREATE EXTENSION dispatch');
$session->do(q(SELECT dispatch.create_backend('default', 'notify')));

# ---- Two long transactions, side by side

my @open = map { session($node, 'postgres') } 1 .. 2;

$_->begin_work foreach @open;
foreach (1 .. $MANY / $PART)
{
	publish_many($_, $PART) foreach @open;
}
commit_late(@open);
about(2 * $MANY, 'two late transactions');
publish_many($session, $MANY);
about(3 * $MANY, 'and as many that are not late');
deliver();

# ---- One event from long ago

$open[0]->begin_work;
publish_many($open[0], 1);
publish_many($session, 20 * $MANY);
commit_late($open[0]);
is(pending(), 1, 'one late event');
publish_many($session, 3 * $MANY);
about(3 * $MANY + 1, 'one event from long ago before many');
deliver();

# ---- Late ones, each in a transaction of its own

@open = map { session($node, 'postgres') } 1 .. 20;
foreach (@open)
{
	$_->begin_work;
	publish_many($_, 30);
}
commit_late(@open);
is(pending(), 600, 'twenty late transactions');
publish_many($session, 3 * $MANY);
about(3 * $MANY + 600, 'twenty late transactions before many');
deliver();

log_ok($node);
$node->stop;
done_testing();
