# Of which class each reply code of AMQP is: every row of the table of
# rabbitmq_error.c has its case here, as the code that closes the connection at
# the login, and the channel or the connection because of an event.

use strict;
use warnings;

use Carp;
use Test::More;

use DispatchTest;
use FakeRabbit;
use PostgreSQL::Test::Utils;

my $SECONDS = 30;

# code => [what it is at the login, what it is with an event in flight]
my %CLASSES = (
	311 => [ 'OUTAGE', 'EVENT_REJECTED' ],
	312 => [ 'OUTAGE', 'DESTINATION' ],
	313 => [ 'OUTAGE', 'DESTINATION' ],
	320 => [ 'OUTAGE', 'OUTAGE' ],
	402 => [ 'CONFIGURATION', 'CONFIGURATION' ],
	403 => [ 'CONFIGURATION', 'DESTINATION' ],
	404 => [ 'CONFIGURATION', 'DESTINATION' ],
	405 => [ 'OUTAGE', 'DESTINATION' ],
	406 => [ 'OUTAGE', 'EVENT_REJECTED' ],
	501 => [ 'OUTAGE', 'EVENT_FAILED' ],
	502 => [ 'OUTAGE', 'EVENT_FAILED' ],
	503 => [ 'OUTAGE', 'OUTAGE' ],
	504 => [ 'OUTAGE', 'OUTAGE' ],
	505 => [ 'OUTAGE', 'OUTAGE' ],
	506 => [ 'BACKPRESSURE', 'BACKPRESSURE' ],
	530 => [ 'CONFIGURATION', 'CONFIGURATION' ],
	540 => [ 'CONFIGURATION', 'EVENT_FAILED' ],
	541 => [ 'OUTAGE', 'OUTAGE' ]);
# One that no table knows
my %UNKNOWN = (999 => [ 'OUTAGE', 'OUTAGE' ]);

my $fake = FakeRabbit->new;
my $node = new_cluster('rabbitclasses', q(
	log_statement = none
	dispatch.retry_backoff = off
	dispatch.retry_delay = '200 ms'
	dispatch.max_retries = 1000));
my $session = session($node);
my $n = 0;

$session->do('CREATE EXTENSION dispatch');
$session->do(
	q(SELECT dispatch.create_backend('default', 'rabbitmq', jsonb_build_object(
		'host', '127.0.0.1', 'port', ?::int, 'exchange', 'x'))), undef, $fake->port);

my %rows = slurp_file('src/transports/rabbitmq_error.c')
  =~ /^\t\{(\d+), "\w+", (DISPATCH_\w+, DISPATCH_\w+)\}/mg;
is_deeply(
	\%rows,
	{ map { $_ => join ', ', map { "DISPATCH_$_" } @{ $CLASSES{$_} } } keys %CLASSES },
	'every row of the table has a case');

# Publishes so many events in a transaction, of a type of their own: no other
# event waits for the same destination.
sub publish
{
	my ($count) = @_;

	return @{
		$session->selectcol_arrayref(
			q(SELECT dispatch.publish(?, 's', to_jsonb(i)) FROM generate_series(1, ?::int) AS i),
			undef, 't' . ++$n, $count) };
}

# What is known of some events, and the state of the backend
sub now
{
	return $session->selectrow_hashref(
		q(SELECT string_agg(DISTINCT e.status, ' ') AS status, max(e.attempts) AS attempts,
			max(e.last_error) AS event_error, max(b.state) AS state, max(b.last_error) AS last_error
		FROM dispatch.events AS e, dispatch.backend_status AS b WHERE e.event_id = ANY (?)),
		undef, [@_]);
}

sub wait_for
{
	my ($what, $ids, $condition) = @_;
	my $now;

	eval { wait_until(sub { $now = now(@$ids); $condition->($now) }, $what, $SECONDS); 1 }
	  or croak($@, explain($now));
	pass($what);
	return $now;
}

# The events go out when nothing is wrong any more; that is not waited for.
sub mend
{
	my ($what, @ids) = @_;

	$fake->behave;
	$session->do('SELECT dispatch.retry_failed()');
	$session->do(q(SELECT dispatch.resume_backend('default')));
	$session->do('UPDATE dispatch.exceptions SET next_attempt_at = now()');
	$session->do('SELECT dispatch.announce_exceptions()');
	wait_for("$what: delivered in the end", \@ids,
		sub { $_[0]{status} eq 'published' && $_[0]{state} eq 'running' });
	return;
}

sub backend_waits
{
	my ($what, $class, $code, @ids) = @_;
	my $state = $class eq 'CONFIGURATION' ? 'configuration error' : 'outage';
	my $now = wait_for("$what: state $state", \@ids, sub { $_[0]{state} eq $state });

	is("$now->{status} $now->{attempts}", 'pending 0', "$what: events wait");
	like($now->{last_error}, qr/^$code the text of $code/, "$what: says why");
	return;
}

sub check_event
{
	my ($code, $class, $where, $count) = @_;
	my $what = "$code closes the $where, $count in flight: $class";
	my @ids;

	$fake->behave(confirm => 'close', code => 0 + $code, where => $where);
	@ids = publish($count);
	if ($class =~ /OUTAGE|BACKPRESSURE|CONFIGURATION/)
	{
		backend_waits($what, $class, $code, @ids);
	}
	else
	{
		my $status = $class eq 'EVENT_REJECTED' ? 'failed' : 'retrying';
		my $attempts = $class eq 'DESTINATION' ? '0' : '[1-9]\d*';
		my $now = wait_for("$what: $status", \@ids,
			sub { $_[0]{status} eq $status });

		like($now->{attempts}, qr/^$attempts$/, "$what: attempts");
		like($now->{event_error}, qr/^$code the text of $code/, "$what: says why");
	}
	mend($what, @ids);
	return;
}

my %all = (%CLASSES, %UNKNOWN);

foreach my $code (sort keys %all)
{
	check_event($code, $all{$code}[1], $_, 1) foreach 'channel', 'connection';
}
# Several in flight: the one to blame is found singly
check_event($_, $all{$_}[1], 'channel', 3) foreach 320, 406, 501;

foreach my $code (sort keys %all)
{
	my $what = "$code at the login: $all{$code}[0]";
	my @ids;

	$fake->behave(at => 'open', say => 'close_code', code => 0 + $code);
	# A change of its options makes a backend connect anew.
	$session->do(
		q(SELECT dispatch.alter_backend('default', jsonb_build_object('app_id', ?::text))),
		undef, $what);
	@ids = publish(1);
	backend_waits($what, $all{$code}[0], $code, @ids);
	mend($what, @ids);
}

log_ok($node, qr/could not (?:read|store|take)/);
$node->stop;
done_testing();
