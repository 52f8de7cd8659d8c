# docs/events.md: the SQL that it prints runs, in that order, and the entries of
# streams that it prints are what comes out.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use PostgreSQL::Test::Utils;

my $page = slurp_file('docs/events.md');
my @blocks = $page =~ /^```sql\n(.*?)^```$/msg;
my %names = $page =~ /^(cloudevents|cloudevents_binary|dispytch|data) {2,}(.*)$/mg;
my ($printed) = $page =~ /^```\n(\{"specversion.*?)^```$/ms;

my $redis = RedisServer->new;
my $port = $redis->port;
my $node = new_cluster('events_page', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
cmp_ok(scalar @blocks, '>', 3, 'the page has examples');
foreach my $sql (@blocks)
{
	s/localhost/127.0.0.1/g, s/6379/$port/g foreach $sql;
	my ($status, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 1);

	is("$status$err", 0, 'runs: ' . ($sql =~ /^(.*)/)[0]);
}
ok($session->selectrow_array(q(SELECT dispatch.flush('60s'))), 'all is settled');

# What the comments and the text promise
is( join(' ', $session->selectrow_array(
		q(SELECT backend, key FROM dispatch.events WHERE event_type = 'order.placed'))),
	'orders u-7', 'backend and key of the event type');
is($redis->cli('-n', 1, 'XLEN', 'orders.se'), 1, 'and its stream');

my ($first, @others) = $redis->xrange_all('events');
is(scalar @others, 3, 'the others are in the stream of the default backend');
my $event = $first->{fields}{cloud_event};
foreach ($event, $printed)
{
	s/\n *(?=\S)/ /g;
	s/\n\z//;
	s/"id": "[0-9a-f-]{36}"/ID/;
	s/"time": "[^"]{32}"/TIME/;
}
is($event, $printed, 'the CloudEvent on the page is that of its first example');
my ($given) = grep { /A-4711/ } map { $_->{fields}{cloud_event} } @others;
is( $given,
	'{"specversion": "1.0", "type": "order.created", "source": "https://partner.example/orders", '
	  . '"id": "A-4711", "time": "2025-06-25T10:11:12.5+02:00", '
	  . '"dataschema": "https://partner.example/order.json", "tenant": "acme", "data": {"order": 17}}',
	'a CloudEvent goes out as it came');

# The names of the fields, in each envelope, of an event that has everything
foreach my $envelope (sort keys %names)
{
	$session->do(
		q(SELECT dispatch.publish('a', '/b', '{}', subject => 'c',
			options => jsonb_build_object('stream_name', ?::text, 'envelope', ?::text,
				'extensions', '{"tenant": "acme"}'::jsonb))),
		undef, "fields of $envelope", $envelope);
	my $expected = $names{$envelope};

	ok($session->selectrow_array(q(SELECT dispatch.flush('60s'))), "$envelope: settled");
	$expected =~ s/ce_<extension>\.\.\./ce_tenant/;
	my ($entry) = $redis->xrange_all("fields of $envelope");
	is(join(', ', @{ $entry->{names} }), $expected, "$envelope: the fields on the page");
}
is(scalar keys %names, 4, 'the page has the fields of four envelopes');

log_ok($node);
$node->stop;
done_testing();
