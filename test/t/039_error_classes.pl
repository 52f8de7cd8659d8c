# What follows from each class of errors, and of which class each error of Redis
# is: every row of the table of error_class.c, and of that of redis_reply.c, has
# its case here, in the words of Redis.

use strict;
use warnings;

use Carp;
use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;
use FakeRedis;
use PostgreSQL::Test::Utils;

my $SECONDS = 20;

# What Redis 5 to 8 and Valkey say
my @ERRORS = (
	OUTAGE => [
		'LOADING Redis is loading the dataset in memory',
		q(MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.),
		'CLUSTERDOWN The cluster is down',
		'TRYAGAIN Multiple keys request during rehashing of slot',
		q(READONLY You can't write against a read only replica.) ],
	BACKPRESSURE => [
		q(OOM command not allowed when used memory > 'maxmemory'.),
		'BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.',
		'MISCONF Redis is configured to save RDB snapshots, but it is unable to persist on disk.',
		'NOREPLICAS Not enough good replicas to write.',
		'ERR max number of clients reached' ],
	CONFIGURATION => [
		'NOAUTH Authentication required.',
		'WRONGPASS invalid username-password pair or user is disabled.',
		'ERR invalid password',
		'ERR Client sent AUTH, but no password is set',
		'ERR AUTH <password> called without any password configured for the default user.',
		q(ERR wrong number of arguments for 'auth' command),
		q(ERR unknown command `XADD`, with args beginning with: ),
		'DENIED Redis is running in protected mode because protected mode is enabled',
		'MOVED 3999 127.0.0.1:6381',
		'ASK 3999 127.0.0.1:6381',
		q(CROSSSLOT Keys in request don't hash to the same slot),
		q(NOPERM this user has no permissions to run the 'xadd' command) ],
	DESTINATION => [
		q(NOPERM this user has no permissions to access one of the keys used as arguments),
		'WRONGTYPE Operation against a key holding the wrong kind of value' ],
	EVENT_FAILED => [
		'ERR something that no table knows',
		'BUSYGROUP Consumer Group name already exists',
		'OOMPH is not a word of the table' ],
	CULPRIT_UNKNOWN => [ 'ERR Protocol error: invalid bulk length' ]);

my $redis = FakeRedis->new;
my $node = new_cluster('error_classes', q(
	dispatch.retry_backoff = off
	dispatch.retry_delay = '200 ms'
	dispatch.max_retries = 1000));
my $session = session($node);
my $n = 0;

$session->do('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);

# ---- The tables have no row that has no case

my %case_of = @ERRORS;
my @class_of = map { my $class = $ERRORS[$_]; map { [ $_, $class ] } @{ $ERRORS[ $_ + 1 ] } }
  grep { $_ % 2 == 0 } 0 .. $#ERRORS;
my @rows = slurp_file('src/transports/redis_reply.c')
  =~ /^\t\{("[^"]+", (?:NULL|"[^"]*"), DISPATCH_\w+)\}/mg;
cmp_ok(scalar @rows, '>', 20, 'there are rows');
my %hit;
foreach my $case (@class_of)
{
	my ($text, $class) = @$case;
	my ($row) = grep {
		my ($prefix, $part) = /"([^"]+)", (?:NULL|"([^"]*)")/;

		$text =~ /^\Q$prefix\E(?![A-Za-z0-9])/ && (!defined $part || index($text, $part) >= 0)
	} @rows;

	$hit{$row} = 1 if $row;
	is($row ? $row =~ s/.*DISPATCH_//r : 'EVENT_FAILED', $class, "class of: $text");
}
is_deeply([ grep { !$hit{$_} } @rows ], [], 'every error in the table of Redis has a case');
is_deeply(
	[ sort grep { !$case_of{$_} } slurp_file('src/error_class.c') =~ /\[DISPATCH_(\w+)\]/g ],
	['EVENT_REJECTED'],
	'and every class has one: EVENT_REJECTED is what comes of CULPRIT_UNKNOWN, alone');

# ---- What is done about them

# Publishes so many events in a transaction; returns their ids.
sub publish
{
	my ($count) = @_;

	return @{
		$session->selectcol_arrayref(
			q(SELECT dispatch.publish('t', 's', to_jsonb(i)) FROM generate_series(1, ?::int) AS i),
			undef, $count) };
}

# What is known of some events, and the state of the backend
sub now
{
	my (@ids) = @_;

	return $session->selectrow_hashref(
		q(SELECT string_agg(DISTINCT e.status, ' ') AS status, max(e.attempts) AS attempts,
			max(e.last_error) AS event_error, max(b.state) AS state, max(b.last_error) AS last_error
		FROM dispatch.events AS e, dispatch.backend_status AS b WHERE e.event_id = ANY (?)),
		undef, \@ids);
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

# Nothing that was refused counts as published, nor is it lost: it goes out when
# there is no error any more.
sub check
{
	my ($class, $text, $where, $count) = @_;
	my $what = "$class, $where: $text";
	my ($now, @ids);

	$redis->answer($where => "-$text");
	@ids = publish($count);
	if ($class =~ /OUTAGE|BACKPRESSURE|CONFIGURATION/)
	{
		my $state = $class eq 'CONFIGURATION' ? 'configuration error' : 'outage';

		$now = wait_for("$what: state", \@ids, sub { $_[0]{state} eq $state });
		is("$now->{status} $now->{attempts}", 'pending 0', "$what: events wait");
		is(index($now->{last_error}, $text), 0, "$what: says why") or diag($now->{last_error});
	}
	elsif ($class eq 'CULPRIT_UNKNOWN')
	{
		$now = wait_for("$what: dead letters", \@ids, sub { $_[0]{status} eq 'failed' });
		is($now->{attempts}, 1, "$what: at once, when it was alone");
	}
	else
	{
		my $attempts = $class eq 'EVENT_FAILED' ? '[1-9]\d*' : '0';

		$now = wait_for("$what: events", \@ids, sub { $_[0]{status} eq 'retrying' });
		like($now->{attempts}, qr/^$attempts$/, "$what: attempts");
		is($now->{state}, 'running', "$what: the backend goes on");
		is($now->{event_error}, $text, "$what: says why");
	}
	$redis->answer;
	$session->do('SELECT dispatch.retry_failed()');
	# A back-off is cut short: to wait is not what is tested here.
	$session->do(q(SELECT dispatch.resume_backend('default')));
	$session->do('UPDATE dispatch.exceptions SET next_attempt_at = now()');
	$session->do('SELECT dispatch.announce_exceptions()');
	wait_for("$what: delivered in the end", \@ids,
		sub { $_[0]{status} eq 'published' && $_[0]{state} eq 'running' });
	return;
}

# A single event goes without MULTI.
check($_->[1], $_->[0], 'XADD', 1) foreach @class_of;
# Several: refused when queued, in the answer to EXEC, or instead of it
foreach my $class (sort keys %case_of)
{
	check($class, $case_of{$class}[0], $_, 3)
	  foreach $class eq 'CULPRIT_UNKNOWN' ? 'XADD' : qw(XADD ELEMENT);
}
check('BACKPRESSURE', $case_of{BACKPRESSURE}[0], 'EXEC', 3);

# ---- At login, whatever Redis says is about the backend

my $odd = qr/unknown command|no table|BUSYGROUP|OOMPH/;
foreach my $case (@class_of)
{
	my ($text, $class) = @$case;
	my $state = $class =~ /OUTAGE|BACKPRESSURE/ ? 'outage' : 'configuration error';
	my $what = "AUTH: $text";
	my (@ids, $now);

	# Redis repeats what it does not understand.
	$redis->answer(AUTH => "-$text" . ($text =~ $odd ? canary() : ''));
	$session->do('SELECT dispatch.alter_backend(?, ?)', undef, 'default',
		'{"max_len": ' . (1000 + ++$n) . '}');
	@ids = publish(1);
	$now = wait_for("$what: state", \@ids, sub { $_[0]{state} eq $state });
	is("$now->{status} $now->{attempts}", 'pending 0', "$what: events wait");
	unlike($now->{last_error}, $odd, "$what: is not repeated") if $text =~ $odd;
	$redis->answer;
	$session->do(q(SELECT dispatch.resume_backend('default')));
	wait_for("$what: delivered in the end", \@ids, sub { $_[0]{status} eq 'published' });
}

is($session->selectrow_array('SELECT count(*) FROM dispatch.exceptions'), 0, 'nothing is left');
$node->stop;
log_ok($node, qr/could not (?:read|store|take)/);
done_testing();
