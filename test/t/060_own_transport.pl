# One's own transports: the example is built against the installed header and
# delivers; those that are broken in any way are refused or contained, and get
# over it by the ordinary back-off.

use strict;
use warnings;

use File::Basename qw(basename);
use File::Copy qw(copy);
use Test::More;
use Time::HiRes qw(time);

use DispatchTest;
use PostgreSQL::Test::Utils;

# What docs/guarantees.md says.
my $STOP_SECONDS = 5;

# ---- What the documentation shows is what is built

my ($page, $source) = map { slurp_file($_) }
  qw(docs/writing-a-transport.md test/example_transport/dispatch_example.c);
my @excerpts = $page =~ /^```c\n(.*?)^```$/msg;
cmp_ok(scalar @excerpts, '>', 3, 'the page shows parts of the example');
is_deeply([ grep { index($source, $_) < 0 } @excerpts ], [], 'as they are in its source');

# ---- Built outside of the tree, with nothing but the installed header

my $dir = PostgreSQL::Test::Utils::tempdir();
copy($_, "$dir/" . basename($_)) or die "$_: $!\n"
  foreach glob 'test/example_transport/{Makefile,*.c}';

sub make
{
	my ($target) = @_;
	local $ENV{COPT} = '-Werror';
	my ($out, $err) = ('', '');

	return IPC::Run::run(
		[ 'make', '-s', '-C', $dir, 'PG_CONFIG=' . pg_config(), $target ],
		'>', \$out, '2>', \$err) || diag("$out$err") && 0;
}

# That of the server under test, not Debian's wrapper.
sub pg_config
{
	my ($bindir) = grep { -x "$_/postgres" } split /:/, $ENV{PATH};

	return "$bindir/pg_config";
}

ok(make('install'), 'the example is built and installed');
ok(make('broken'), 'and so are the broken ones');

my $pkglibdir = pg_config();
$pkglibdir = `$pkglibdir --pkglibdir`;
chomp $pkglibdir;

# Other tests are not to find them.
END { unlink glob "$pkglibdir/dispatch_{example,broken_*}.so" if defined $pkglibdir }

append_to_file("$pkglibdir/dispatch_broken_file.so", "not a module\n");

my $node = new_cluster('own_transport', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
my $session = session($node);

sub create_backend
{
	my ($name, $transport, $options) = @_;

	return $session->do('SELECT dispatch.create_backend(?, ?, ?)',
		undef, $name, $transport, $options // '{}');
}

sub publish
{
	my ($backend, $data, $options) = @_;

	return $session->selectrow_array(
		'SELECT dispatch.publish(?, ?, ?, backend => ?, options => ?)',
		undef, 'thing.done', 'test', $data, $backend, $options);
}

sub flush
{
	my ($backend, $seconds) = @_;

	return $session->selectrow_array('SELECT dispatch.flush(?, ?)',
		undef, ($seconds // 60) . ' s', $backend);
}

sub status
{
	my ($backend) = @_;

	return $session->selectrow_hashref('SELECT * FROM dispatch.backend_status WHERE name = ?',
		undef, $backend);
}

# ---- The example

is_deeply(
	$session->selectall_arrayref(
		q(SELECT option, scope, type, default_value
			FROM dispatch.transport_options('example') LIMIT 2)),
	[ [ 'label', 'backend, event', 'template', '{event_type}' ],
		[ 'max_length', 'backend, event', 'integer', '1000' ] ],
	'transport_options() shows the options of the example');
create_backend('example', 'example', '{"envelope": "data", "max_length": 100}');
publish('example', '{"n": 1}');
publish('example', '{"n": "\u00e9"}', '{"label": "{source}: {data.n}"}');
publish('example', undef);
ok(flush('example'), 'the example delivers');
my %line = (
	'an event' => qr/LOG:  thing\.done: \{"n": 1\}$/,
	'one with a label of its own' => qr/LOG:  test: \xc3\xa9: \{"n": "\xc3\xa9"\}$/,
	'one without data' => qr/LOG:  thing\.done: $/);
foreach my $what (sort keys %line)
{
	is(scalar(log_lines($node, $line{$what})), 1, "a line of the log: $what");
}

# What a transport gets is UTF-8, whatever the encoding of the database.
my $in_latin1 = q(SET client_encoding = 'UTF8';
	CREATE EXTENSION dispatch;
	SELECT dispatch.create_backend('default', 'example', '{"envelope": "data"}');
	SELECT dispatch.publish(E'caf\u00e9', 's', '["\u00fc"]');
	SELECT dispatch.flush('60s'));
$node->safe_psql('postgres',
	q(CREATE DATABASE latin1 ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'));
like($node->safe_psql('latin1', $in_latin1), qr/\nt$/, 'it delivers from a LATIN1 database');
is(scalar(log_lines($node, qr/LOG:  caf\xc3\xa9: \["\xc3\xbc"\]$/)), 1, 'in UTF-8');
$node->safe_psql('postgres', 'DROP DATABASE latin1');

is($session->selectrow_array(q(SELECT detail FROM dispatch.check_backend('example') WHERE ok)),
	'connected', 'check_backend()');

sub error_of
{
	my ($sub) = @_;

	return eval { $sub->(); 1 } ? 'no error' : $session->errstr;
}

like(error_of(sub { create_backend('x', 'example', '{"max_length": 0}') }),
	qr/"max_length".*from 1 to 1000000/s, 'its option table is enforced');
like(error_of(sub { create_backend('x', 'example', '{"label": "a\nb"}') }),
	qr/The label must be one line/, 'and so is its check()');
like(error_of(sub { publish('example', 1, '{"max_length": "many"}') }),
	qr/max_length/, 'publish() knows the options of an event');

# A failure of one event is that event's alone.
create_backend('refusing', 'example', '{"max_length": 10, "envelope": "data"}');
publish('refusing', $_) foreach 1, '"' . 'x' x 20 . '"', 3;
ok(flush('refusing'), 'all is settled');
is_deeply(
	$session->selectall_arrayref(
		q(SELECT status, last_error FROM dispatch.events
			WHERE backend = 'refusing' ORDER BY event_id)),
	[ [ 'published', undef ],
		[ 'failed', 'the event is too long for the log' ],
		[ 'published', undef ] ],
	'an event that the example refuses has failed, its neighbours have not');
ok(publish('example', '{"n": 2}') && flush('example'), 'other backends go on');

# ---- Refused when a backend is created

my %refused = (
	version => qr/not valid.*built for version \d+ of the interface .* but this is version \d+\./s,
	no_init => qr/not valid.*has no function dispatch_transport_init\(\)/s,
	null => qr/not valid.*dispatch_transport_init\(\) returned NULL/s,
	misnamed => qr/not valid.*goes by another name/s,
	no_pump => qr/not valid.*lacks one of the callbacks/s,
	no_options => qr/not valid.*no table of options/s,
	destination => qr/not valid.*destination is not one of its options/s,
	file => qr/could not load library/,
	absent => qr/"broken_absent" is not available.*HINT:.*example/s);
foreach my $fault (sort keys %refused)
{
	like(error_of(sub { create_backend('x', "broken_$fault") }),
		$refused{$fault}, "refused: $fault");
}
is($session->selectrow_array(q(SELECT count(*) FROM dispatch.backends WHERE name = 'x')),
	0, 'and none of them has become a backend');
{
	local $session->{PrintWarn} = 0;
	is($session->selectrow_array(
			q(SELECT string_agg(DISTINCT transport, ' ' ORDER BY transport)
			FROM dispatch.transport_options()
			WHERE transport IN ('example', 'broken_open', 'broken_file', 'broken_version'))),
		'broken_open example', 'transport_options() leaves them out');
}

# ---- Broken while they deliver

my $worker = status('example')->{pid};

# An error is a lost connection: what has no outcome is sent again.
foreach my $fault (qw(open send pump lost twice))
{
	create_backend($fault, "broken_$fault", '{"times": 2}');
	publish($fault, $_) foreach 1 .. 25;
	ok(flush($fault), "$fault: all is settled after two failures");
	is($session->selectrow_array(
			q(SELECT count(*) FROM dispatch.events WHERE backend = ? AND status = 'published'),
			undef, $fault),
		25, "$fault: and every event is delivered");
}
my %said = (
	open => qr/broken in open\(\)/,
	send => qr/broken in send\(\)/,
	pump => qr/broken in pump\(\)/,
	lost => qr/the connection was lost/,
	twice => qr/transport "broken_twice" reported an event that it does not have/);
foreach my $fault (sort keys %said)
{
	is(scalar(log_lines($node, qr/WARNING:  backend "$fault": $said{$fault}/)),
		1, "$fault: the log says so, once");
	wait_until(sub { log_lines($node, qr/LOG:  backend "$fault": the broker is back/) }, 'its end');
}

# One that never works
create_backend('never', 'broken_open');
publish('never', 1);
wait_for_state($node, 'never', 'outage');
like(status('never')->{last_error}, qr/broken in open\(\)/, 'backend_status says what is wrong');
ok(defined status('never')->{next_attempt_at}, 'and when it is tried again');
my ($ok, $detail) =
  $session->selectrow_array(q(SELECT ok, detail FROM dispatch.check_backend('never')));
ok(!$ok && $detail =~ /broken in open\(\)/, 'so does check_backend()');
$session->do(q(SELECT dispatch.alter_backend('never', '{"times": 0}')));
ok(flush('never'), 'it delivers once it is mended');

# One that never answers: events stay in flight, and nobody waits for it.
create_backend('silent', 'broken_silent', '{"times": 1}');
publish('silent', 1);
wait_until(sub { status('silent')->{in_flight} == 1 }, 'an event in flight');
ok(publish('example', '{"n": 3}') && flush('example'), 'other backends go on beside a silent one');
is(flush('silent', 1), 0, 'flush() does not wait for it for ever');
my $started = time;
$session->do(q(SELECT dispatch.pause_backend('silent')));
wait_until(sub { !defined status('silent')->{pid} }, 'the end of its worker');
cmp_ok(time - $started, '<', $STOP_SECONDS, 'it is paused in seconds');
is(status('silent')->{pending}, 1, 'and its event waits');

$session->do(q(SELECT dispatch.resume_backend('silent')));
wait_until(sub { status('silent')->{in_flight} == 1 }, 'an event in flight again');
is(status('example')->{pid}, $worker, 'the worker of the example is still the same');
$session->disconnect;
$started = time;
$node->stop('fast');
cmp_ok(time - $started, '<', $STOP_SECONDS, 'the server stops in seconds beside it');

# ---- A module that is gone, or was built for another version, when the server starts

copy("$pkglibdir/dispatch_broken_version.so", "$pkglibdir/dispatch_broken_send.so") or die "$!\n";
unlink "$pkglibdir/dispatch_broken_pump.so" or die "$!\n";
$node->start;
$session = session($node);
publish($_, 26) foreach qw(send pump);
publish('example', '{"n": 4}');
ok(flush('example'), 'others deliver');
my %stopped = (
	send => qr/"broken_send" is not valid/,
	pump => qr/"broken_pump" is not available/);
foreach my $backend (sort keys %stopped)
{
	wait_until(sub { (status($backend)->{last_error} // '') =~ $stopped{$backend} },
		"the error of $backend", 30);
	is(status($backend)->{pending}, 1, "$backend: its backend says so, and its event waits");
}

is_deeply([ log_lines($node, qr/PANIC|TRAP|terminated by signal|leak/) ],
	[], 'no crash in the log');
$node->stop;
done_testing();
