# CloudEvents and binary payloads arrive in Redis as they were given, in each
# envelope; event types survive a dump.

use strict;
use warnings;

use JSON::PP ();
use Test::More;

use DispatchTest;
use PostgreSQL::Test::Utils;

my @ENVELOPES = qw(cloudevents cloudevents_binary data);
my $GIVEN = '{"specversion": "1.0", "id": "A/1 \u00e5", "source": "/shop", "type": "order.paid", '
  . '"time": "2025-06-25T10:11:12.5+02:00", "subject": "orders/1", "dataschema": "urn:x", '
  . '"tenant": "a b", "count": -5, "flag": true, "none": null, ';

my $redis = RedisServer->new;
my $node = new_cluster('events', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);

$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
my $session = session($node);
$session->{pg_enable_utf8} = 0;		# bytes in, bytes out
create_redis_backend($node, $redis, name => $_, envelope => $_, stream_name => $_)
  foreach @ENVELOPES;

# publish(statement, arguments): to each backend; the only entry of each stream.
sub publish
{
	my ($statement, @arguments) = @_;
	my %fields;

	$redis->client->del($_) foreach @ENVELOPES;
	$session->selectrow_array($statement, undef, @arguments, $_) foreach @ENVELOPES;
	ok($session->selectrow_array("SELECT dispatch.flush('60s')"), 'flush');
	foreach my $stream (@ENVELOPES)
	{
		my ($entry, @more) = $redis->xrange_all($stream);

		is(@more, 0, "$stream: one entry");
		$fields{$stream} = $entry->{fields};
	}
	return \%fields;
}

sub event { return JSON::PP->new->utf8->decode($_[0]{cloudevents}{cloud_event}) }

# A CloudEvent with JSON
my $seen = publish('SELECT dispatch.publish_cloudevent(?, backend => ?)',
	$GIVEN . '"data": {"a": 1.50}}');
my $expected = JSON::PP->new->decode($GIVEN . '"data": {"a": 1.50}}');
delete $expected->{none};
is_deeply(event($seen), $expected, 'structured: what was given, and no more');
my %attributes = (
	ce_specversion => '1.0', ce_id => "A/1 \xC3\xA5", ce_source => '/shop', ce_type => 'order.paid',
	ce_time => '2025-06-25T10:11:12.5+02:00', ce_subject => 'orders/1', ce_dataschema => 'urn:x',
	ce_tenant => 'a b', ce_count => '-5', ce_flag => 'true');
is_deeply(
	$seen->{cloudevents_binary},
	{ %attributes, 'content-type' => 'application/json', data => '{"a": 1.50}' },
	'binary mode: attributes in canonical text form, the type of the data apart');
is_deeply($seen->{data}, { data => '{"a": 1.50}' }, 'the data alone');

# With text, and without data
$seen = publish('SELECT dispatch.publish_cloudevent(?, backend => ?)',
	$GIVEN . '"datacontenttype": "text/xml; charset=utf-8", "data": "<\u00e5/>"}');
is(event($seen)->{data}, "<\x{e5}/>", 'structured: text is a string');
is_deeply(
	$seen->{cloudevents_binary},
	{ %attributes, 'content-type' => 'text/xml; charset=utf-8', data => "<\xC3\xA5/>" },
	'binary mode: text is itself');
$seen = publish('SELECT dispatch.publish_cloudevent(?, backend => ?)', $GIVEN . '"x": ""}');
ok(!exists event($seen)->{data}, 'structured: no data');
is_deeply($seen->{cloudevents_binary}, { %attributes, ce_x => '' },
	'binary mode: no data, no type of data, an empty extension');

# Binary: every byte there is
my $bytes = join '', map { chr } 0 .. 255;
$seen = publish(
	q(SELECT dispatch.publish_binary('t', 's', decode(?, 'hex'), 'application/avro',
		options => '{"extensions": {"n": 7}}', backend => ?)), unpack('H*', $bytes));
my $event = event($seen);
is( $event->{data_base64},
	$session->selectrow_array(
		q(SELECT translate(encode(decode(?, 'hex'), 'base64'), E'\n', '')),
		undef, unpack('H*', $bytes)),
	'structured: data_base64');
is($event->{datacontenttype}, 'application/avro', 'structured: datacontenttype');
is($event->{n}, 7, 'structured: an extension');
is($seen->{data}{data}, $bytes, 'data: the bytes');
is($seen->{cloudevents_binary}{data}, $bytes, 'binary mode: the bytes');
is($seen->{cloudevents_binary}{'content-type'}, 'application/avro', 'binary mode: content-type');
is($seen->{cloudevents_binary}{ce_n}, '7', 'binary mode: an extension');
like($seen->{cloudevents_binary}{ce_id}, qr/^[0-9a-f-]{36}$/, 'binary mode: our id');

# A dump takes event types along, in whatever order it is restored.
my $dir = PostgreSQL::Test::Utils::tempdir('dumps');
my $TYPES = 'TABLE dispatch.event_types ORDER BY event_type';

$node->safe_psql('postgres', q(
	SELECT dispatch.define_event_type('a', 'data', 'to.{data.x}', 'user.id',
		'{"envelope": "data"}');
	SELECT dispatch.define_event_type('b')));
my $types = $node->safe_psql('postgres', $TYPES);
$node->command_ok(
	[ 'pg_dump', '-Fc', '-f', "$dir/custom", $node->connstr('postgres') ], 'pg_dump');
my @list = split /\n/, (run_command([ 'pg_restore', '-l', "$dir/custom" ]))[0];
# Event types before all other data.
my ($line) = grep { /TABLE DATA dispatch event_types/ } @list;
my ($first) = grep { $list[$_] =~ /TABLE DATA/ } 0 .. $#list;
@list = ((grep { $_ ne $line } @list[ 0 .. $first - 1 ]), $line,
	grep { $_ ne $line } @list[ $first .. $#list ]);
append_to_file("$dir/list", join("\n", @list) . "\n");
my %restores = (plain => [], parallel => ['-j2'], types_first => [ '-L', "$dir/list" ]);
foreach my $database (sort keys %restores)
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->command_ok(
		[
			'pg_restore', '-e', @{ $restores{$database} },
			'-d', $node->connstr($database), "$dir/custom"
		],
		"pg_restore: $database");
	is($node->safe_psql($database, $TYPES), $types, "$database: event types are there");
}

done_testing();
