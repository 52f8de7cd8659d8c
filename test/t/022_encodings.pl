# Transports that deliver within the database, in one that is not in UTF-8: what
# its encoding has no characters for, or more bytes than fit, is that event's
# failure, and the others go on.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use SqlSink;

my $node = new_cluster('encodings');

# Publishes bytes, given in hexadecimal, as text that goes as it is.
sub publish
{
	my ($session, $backend, $bytes) = @_;

	return scalar $session->selectrow_array(
		q(SELECT dispatch.publish_binary('t', 's', decode(?, 'hex'), 'text/plain',
			backend => ?, options => '{"envelope": "data"}')), undef, $bytes, $backend);
}

# All of them in one transaction, which makes one batch of them; returns their
# status and error.
sub fates
{
	my ($session, $backend, @texts) = @_;

	$session->begin_work;
	my @ids = map { publish($session, $backend, $_) } @texts;
	$session->commit;
	$session->selectrow_array(q(SELECT dispatch.flush('10s', ?)), undef, $backend);
	return $session->selectall_arrayref(
		'SELECT status, last_error FROM dispatch.events WHERE event_id = ANY (?) ORDER BY event_id',
		undef, \@ids);
}

sub database
{
	my ($encoding) = @_;

	$node->safe_psql('postgres',
		"CREATE DATABASE $encoding TEMPLATE template0 ENCODING $encoding LC_COLLATE 'C' LC_CTYPE 'C'");
	my $session = session($node, $encoding);
	$session->do('CREATE EXTENSION dispatch');
	$session->do(q(SELECT dispatch.create_backend('notify', 'notify')));
	return $session;
}

my @published = ('published', undef);
my $euro = 'e282ac';
my $u_umlaut = 'c3bc';

# ---- LATIN1 has no euro

my $session = database('latin1');
create_sink($session, 'CREATE TABLE sink.taken (event_id uuid, body text)',
	sql => q(
		INSERT INTO sink.taken SELECT event_id, body FROM unnest(events);
		SELECT NULL::dispatch.failure WHERE false));
create_sink_backend($session, 'sql', envelope => undef);
$session->do('LISTEN dispatch');

my $refused = [ 'failed', 'the event has characters that the encoding of the database lacks' ];
foreach my $backend (qw(notify sql))
{
	is_deeply(fates($session, $backend, $euro), [$refused], "$backend: a euro alone is refused");
	is_deeply(fates($session, $backend, $u_umlaut, $euro, $u_umlaut, $euro),
		[ \@published, $refused, \@published, $refused ], "$backend: it keeps no other away");
}
my @payloads;
while (my $notification = $session->pg_notifies)
{
	push @payloads, $notification->[2];
}
is_deeply(\@payloads, [ ("\x{fc}") x 2 ], 'notify: these were sent');
is_deeply($session->selectcol_arrayref('SELECT body FROM sink.taken'), [ ("\x{fc}") x 2 ],
	'sql: the function was given these');

# ---- EUC_JP takes three bytes where UTF-8 takes two

$session = database('euc_jp');
is_deeply(
	fates($session, 'notify', $u_umlaut x 2500, $u_umlaut x 3500, $u_umlaut),
	[
		\@published,
		[ 'failed', 'the event is larger than a notification can be, about 8000 bytes' ],
		\@published ],
	'notify: what counts is the size in the encoding of the database');

# A channel that is not too long in UTF-8.  publish() would refuse it.
$session->do(q(SELECT dispatch.pause_backend('notify')));
my $id = $session->selectrow_array(
	q(SELECT dispatch.publish('t', 's', backend => 'notify',
		subject => repeat(convert_from('\xc3bc', 'UTF8'), 31))));
$session->do(q(UPDATE dispatch.backends SET options = '{"channel": "{subject}"}'));
$session->do(q(SELECT dispatch.resume_backend('notify')));
$session->do(q(SELECT dispatch.flush('10s', 'notify')));
is_deeply(
	[ $session->selectrow_array(
			'SELECT status, last_error FROM dispatch.events WHERE event_id = ?', undef, $id) ],
	[ 'failed', 'the name of the channel is longer than 63 bytes' ],
	'notify: so it is for channels');

log_ok($node, qr/could not/);
$node->stop;
done_testing();
