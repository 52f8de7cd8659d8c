# The worked examples of docs/writing-a-transport.md, run as they are printed:
# transports in PL/pgSQL and in PL/Python, with events that fail and events
# that do not.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use PostgreSQL::Test::Utils;

my $page = slurp_file('docs/writing-a-transport.md');

# The first block of code in that language below a heading.
sub example
{
	my ($heading, $language) = @_;

	$page =~ /^### \Q$heading\E.*?^```$language\n(.*?)^```$/ms
	  or die "the page has no $language example \"$heading\"\n";
	return $1;
}

my $node = new_cluster('sql_transport', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
my $session = session($node);

# A list of data, as texts of JSON, published in one transaction.
sub publish
{
	my ($backend, @data) = @_;

	$session->begin_work;
	my @ids = map {
		$session->selectrow_array(
			q(SELECT dispatch.publish('thing.done', 'test', ?, backend => ?)), undef, $_, $backend)
	} @data;
	$session->commit;
	return @ids;
}

sub flush
{
	my ($backend, $what) = @_;

	ok($session->selectrow_array('SELECT dispatch.flush(?, ?)', undef, '60 s', $backend),
		"$what: all is settled");
}

# Status and error of events, in their order.
sub fates
{
	return $session->selectall_arrayref(
		'SELECT status, last_error FROM dispatch.events WHERE event_id = ANY (?) ORDER BY event_id',
		undef, \@_);
}

# Lets retries be due soon.
sub retry_soon
{
	$session->do(
		q(UPDATE dispatch.backends SET retry_delay = '200 ms', retry_backoff = false
		WHERE name = ?), undef, @_);
}

# ---- PL/pgSQL

$session->do(example('PL/pgSQL', 'sql'));
retry_soon('ledger');
$session->do(q(INSERT INTO ledger.accounts VALUES ('rent'), ('wages')));
$session->do(q(UPDATE dispatch.backends SET max_retries = 1000 WHERE name = 'ledger'));

my @ids = publish('ledger',
	'{"account": "rent", "amount": 100}', '{"account": "new", "amount": 7}',
	'{"account": "rent", "amount": "much"}', '{"account": "wages", "amount": -2.50}',
	'{"account": "wages"}');
my $entries = 'SELECT account, amount FROM ledger.entries ORDER BY event_id';
flush('ledger', 'PL/pgSQL');
is_deeply($session->selectall_arrayref($entries), [ [ 'rent', 100 ], [ 'wages', '-2.50' ] ],
	'PL/pgSQL: what can be posted is');
my $fates = fates(@ids);
is_deeply([ map { $_->[0] } @$fates ], [qw(published retrying failed published failed)],
	'the fate of each event');
like($fates->[1][1], qr/violates foreign key constraint/, 'one may come right');
like($fates->[2][1], qr/invalid input syntax for type numeric: "much"/, 'one never will');
like($fates->[4][1], qr/null value in column "amount"/, 'nor will another');

$session->do(q(INSERT INTO ledger.accounts VALUES ('new')));
wait_until(sub { fates($ids[1])->[0][0] eq 'published' }, 'the event that was tried again');
is_deeply($session->selectall_arrayref($entries),
	[ [ 'rent', 100 ], [ 'new', 7 ], [ 'wages', '-2.50' ] ],
	'it is posted once its account is there');

# Again by hand: posted once all the same.
$session->do('UPDATE ledger.entries SET amount = 99 WHERE event_id = ?', undef, $ids[0]);
$session->do(
	q(SELECT ledger.post(ARRAY(
		SELECT (event_id, event_type, source, subject, key, created_at, data::text)::dispatch.event
		FROM dispatch.events WHERE event_id = ?))), undef, $ids[0]);
is($session->selectrow_array('SELECT sum(amount) FROM ledger.entries'),
	'103.50', 'an event that comes twice is posted once');

# ---- PL/Python

# The receiver: answers with the status that the data asks for, and notes what
# it has got in a pipe.
my $listener = IO::Socket::INET->new(Listen => 20, LocalAddr => '127.0.0.1', Proto => 'tcp')
  or die "listen: $!\n";
my ($notes, $note);
pipe($notes, $note) or die "pipe: $!\n";
my $receiver = fork;
die "fork: $!\n" unless defined $receiver;
if ($receiver == 0)
{
	$SIG{TERM} = 'DEFAULT';
	my %attempts;

	while (my $client = $listener->accept)
	{
		my ($length, $type, $body, $line) = (0, '');

		while (defined($line = <$client>) && $line =~ /\S/)
		{
			$length = $1 if $line =~ /^Content-Length: (\d+)/i;
			$type = $1 if $line =~ /^Content-Type: (.*?)\r/i;
		}
		read $client, $body, $length;
		my $event = JSON::PP::decode_json($body);
		my $data = $event->{data};
		my $status = $attempts{ $event->{id} }++ ? 204 : $data->{status};

		syswrite $note, "$status $data->{n} $type\n";
		print $client "HTTP/1.1 $status X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
		close $client;
	}
	exit 0;
}
END { kill 'KILL', $receiver if $receiver }

my $example = example('PL/Python', 'sql');
my $port = $listener->sockport;
is($example =~ s{localhost:8080}{127.0.0.1:$port}, 1, 'the example has a URL');
$session->do($example);
retry_soon('webhooks');

@ids = publish('webhooks', map { qq({"n": $_->[0], "status": $_->[1]}) }
	  [ 1, 204 ], [ 2, 503 ], [ 3, 422 ], [ 4, 200 ], [ 5, 429 ]);
wait_until(sub { !grep { $_->[0] !~ /published|failed/ } @{ fates(@ids) } },
	'the fate of each event');
$fates = fates(@ids);
is_deeply([ map { $_->[0] } @$fates ], [qw(published published failed published published)],
	'PL/Python: what the receiver accepts, at once or later, is published');
is($fates->[2][1], 'HTTP status 422', 'what it refuses has failed');
my @got = map { scalar <$notes> } 1 .. 7;
chomp @got;
is_deeply(
	[ sort @got ],
	[ map { "$_ application/cloudevents+json; charset=UTF-8" }
		  '200 4', '204 1', '204 2', '204 5', '422 3', '429 5', '503 2' ],
	'and the receiver has got every event, those that it had no time for twice');

# Nobody listens: an error of the whole batch, after which events are tried singly.
kill 'KILL', $receiver;
waitpid $receiver, 0;
$receiver = 0;
close $listener;
@ids = publish('webhooks', map { qq({"n": $_}) } 6, 7);
wait_until(sub { 2 == grep { ($_->[1] // '') =~ /Connection refused/ } @{ fates(@ids) } },
	'events that nobody takes');
is_deeply([ map { $_->[0] } @{ fates(@ids) } ], [qw(retrying retrying)], 'they are tried again');

# How many events a function gets at once
$session->do($_) foreach (
	'CREATE ROLE caller',
	'CREATE TABLE calls (events int)',
	'GRANT INSERT ON calls TO caller',
	q(CREATE FUNCTION note_call(events dispatch.event[]) RETURNS SETOF dispatch.failure
		LANGUAGE sql AS $$
			INSERT INTO public.calls VALUES (cardinality(events));
			SELECT NULL::uuid, NULL, NULL::bool WHERE false;
		$$),
	q(INSERT INTO dispatch.backends (name, transport, options, owner, enabled) VALUES
		('large', 'sql', '{"function": "public.note_call(dispatch.event[])"}', 'caller', false),
		('small', 'sql', '{"function": "public.note_call(dispatch.event[])"}', 'caller', false)),
	q(UPDATE dispatch.backends SET batch_size = 150 WHERE name = 'small'));
foreach ([ large => 500, 500, 200 ], [ small => (150) x 8 ])
{
	my ($backend, @calls) = @$_;

	publish($backend, (1) x 1200);
	$session->do('SELECT dispatch.resume_backend(?)', undef, $backend);
	flush($backend, $backend);
	is_deeply($session->selectcol_arrayref('SELECT events FROM calls'),
		\@calls, "$backend: events that a function gets at once");
	$session->do('TRUNCATE calls');
}

is_deeply([ log_lines($node, qr/PANIC|TRAP|terminated by signal|leak/) ],
	[], 'no crash in the log');
$node->stop;
done_testing();
