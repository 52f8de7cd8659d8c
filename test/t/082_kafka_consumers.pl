# What a consumer of Kafka sees of an event, for each envelope: value, key and
# headers to the last byte, as two clients read them that have no code in
# common, kcat and the one of Python.

use strict;
use warnings;
use utf8;

use Encode qw(encode_utf8);
use JSON::PP ();
use Test::More;

use DispatchTest;
use KafkaBackend;

my $STRUCTURED = 'application/cloudevents+json; charset=UTF-8';
my $CODEC_EVENTS = 500;

my $kafka = KafkaServer->new;
my $node = new_cluster('consumers', undef, extra => [ '--no-sync', '--encoding=UTF8' ]);
my $session = session($node);
my $json = JSON::PP->new->utf8->allow_nonref->canonical;

$session->do('CREATE EXTENSION dispatch');

sub sql { return value_of($session, @_); }

# kcat(topic, format, arguments): what kcat prints of a whole topic, as bytes.
sub kcat
{
	my ($topic, $format, @arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[ 'kcat', '-q', '-b', $kafka->servers, '-C', '-t', $topic, '-o', 'beginning', '-e', '-f',
			$format, @arguments ],
		'<', \undef, '>', \$out, '2>', \$err) or die "kcat: $err";
	return $out;
}

# What kcat sees of the only record: lengths, so that null (-1) and nothing
# differ, and then the bytes.
sub kcat_record
{
	my ($topic) = @_;
	my ($key_len, $value_len, $timestamp, $headers, $rest) =
	  split /\n/, kcat($topic, "%K\n%S\n%T\n%h\n%k%s"), 5;
	my ($key, $value) = (substr($rest, 0, $key_len < 0 ? 0 : $key_len),
		substr($rest, $key_len < 0 ? 0 : $key_len));

	return {
		key => $key_len < 0 ? undef : $key, value => $value_len < 0 ? undef : $value,
		timestamp => $timestamp, headers => $headers };
}

# record_ok(what, publish arguments as SQL, what is expected): publishes an event
# to a topic of its own. Expected: value, key, headers ([name, value]...), or a
# function of id, time and milliseconds that returns them.
my $topics = 0;

sub record_ok
{
	my ($what, $backend_options, $call, $expect) = @_;
	my $topic = 'topic' . ++$topics;

	$kafka->create_topic($topic);
	create_kafka_backend($node, $kafka, name => $topic, topic => $topic, %$backend_options);
	my $id = sql("SELECT dispatch.$call", $topic);
	my ($time, $milliseconds) = $session->selectrow_array(
		q(SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US') || '+00:00',
			floor(extract(epoch FROM created_at) * 1000)::bigint
		FROM dispatch.events WHERE event_id = ?), undef, $id);
	ok(sql(q(SELECT dispatch.flush('60 s', ?)), $topic), "$what: delivered");

	my %expected = $expect->($id, $time, $milliseconds);
	my @records = $kafka->records($topic);
	my $headers = delete $records[0]{headers};

	delete @{ $records[0] }{qw(offset partition timestamp_type)};
	is_deeply(
		\@records,
		[ { value => $expected{value}, key => $expected{key}, timestamp => $milliseconds } ],
		"$what: value, key and timestamp, as Python sees them");
	is_deeply($headers, $expected{headers}, "$what: headers, as Python sees them");
	is_deeply(
		kcat_record($topic),
		{
			value => $expected{value}, key => $expected{key}, timestamp => $milliseconds,
			headers => join(',', map { "$_->[0]=" . ($_->[1] // 'NULL') } @{ $expected{headers} })
		},
		"$what: kcat sees the same");
	return;
}

# ---- Envelopes

my $DATA = encode_utf8(qq({"id": 7, "name": "Zoë \x{1f600}"}));
my $event = q(publish('user.created', '/shop', U&'{"id": 7, "name": "Zo\00EB \+01F600"}',
	backend => ?, key => 'k-7', subject => U&'users/\00FC'));
my $bare = q(publish('user.deleted', '/shop', backend => ?));

sub head
{
	my ($id, $time, $type, $subject) = @_;

	return encode_utf8(qq({"specversion": "1.0", "type": "$type", "source": "/shop", )
		  . qq("id": "$id", "time": "$time") . ($subject ? qq(, "subject": "$subject") : ''));
}

sub attributes
{
	my ($id, $time, $type, $subject) = @_;

	return (
		[ ce_specversion => '1.0' ], [ ce_id => $id ], [ ce_source => '/shop' ],
		[ ce_type => $type ], [ ce_time => $time ],
		$subject ? [ ce_subject => encode_utf8($subject) ] : ());
}

record_ok(
	'cloudevents', {}, $event,
	sub {
		my ($id, $time) = @_;

		return (
			key => 'k-7', headers => [ [ 'content-type' => $STRUCTURED ] ],
			value => head($id, $time, 'user.created', 'users/ü')
			  . qq(, "datacontenttype": "application/json", "data": $DATA}));
	});
record_ok(
	'cloudevents without data', {}, $bare,
	sub {
		my ($id, $time) = @_;

		return (
			key => undef, headers => [ [ 'content-type' => $STRUCTURED ] ],
			value => head($id, $time, 'user.deleted') . '}');
	});
record_ok(
	'cloudevents_binary',
	{ envelope => 'cloudevents_binary' },
	$event,
	sub {
		my ($id, $time) = @_;

		return (
			key => 'k-7', value => $DATA,
			headers => [
				attributes($id, $time, 'user.created', 'users/ü'),
				[ 'content-type' => 'application/json' ]
			]);
	});
record_ok(
	'cloudevents_binary without data',
	{ envelope => 'cloudevents_binary' },
	$bare,
	sub {
		my ($id, $time) = @_;

		return (
			key => undef, value => undef, headers => [ attributes($id, $time, 'user.deleted') ]);
	});
record_ok(
	'dispytch',
	{ envelope => 'dispytch' },
	$event,
	sub {
		my ($id, $time, $milliseconds) = @_;

		return (
			key => 'k-7', headers => [ [ 'content-type' => 'application/json' ] ],
			value => qq({"id": "$id", "type": "user.created", "body": $DATA, )
			  . qq("timestamp": $milliseconds}));
	});
record_ok(
	'data',
	{ envelope => 'data' },
	$event,
	sub {
		return (
			key => 'k-7', value => $DATA, headers => [ [ 'content-type' => 'application/json' ] ]);
	});
record_ok(
	'data without data',
	{ envelope => 'data' },
	$bare,
	sub { return (key => undef, value => undef, headers => []); });

# Bytes that are no text
my $bytes = join '', map { chr } 0 .. 255;
my $binary = q(publish_binary('scan', '/shop', decode(string_agg(lpad(to_hex(n), 2, '0'), ''
	ORDER BY n), 'hex'), 'application/x-scan; v=1', backend => ?)
	FROM generate_series(0, 255) AS n);
record_ok(
	'bytes, cloudevents_binary',
	{ envelope => 'cloudevents_binary' },
	$binary,
	sub {
		my ($id, $time) = @_;

		return (
			key => undef, value => $bytes,
			headers =>
			  [ attributes($id, $time, 'scan'), [ 'content-type' => 'application/x-scan; v=1' ] ]);
	});
record_ok(
	'bytes, data',
	{ envelope => 'data' },
	$binary,
	sub {
		return (
			key => undef, value => $bytes,
			headers => [ [ 'content-type' => 'application/x-scan; v=1' ] ]);
	});

# A CloudEvent that was given, with extensions, one with a long name; and headers
# of the event after ours
my $long = 'x' x 200;
record_ok(
	'extensions and headers',
	{ envelope => 'cloudevents_binary' },
	qq(publish_cloudevent('{"specversion": "1.0", "id": "A-1", "source": "/shop", "type": "given",
		"attempt": 3, "dry": true, "$long": "v", "data": null}', backend => ?,
		options => '{"headers": {"trace": "abc", "none": null}}')),
	sub {
		return (
			key => undef, value => 'null',
			headers => [
				[ ce_specversion => '1.0' ], [ ce_source => '/shop' ], [ ce_type => 'given' ],
				[ ce_id => 'A-1' ], [ ce_dry => 'true' ], [ ce_attempt => '3' ],
				[ "ce_$long" => 'v' ], [ 'content-type' => 'application/json' ],
				[ none => undef ], [ trace => 'abc' ]
			]);
	});

# ---- Compression: nobody sees it

foreach my $codec (qw(none gzip snappy lz4 zstd))
{
	$kafka->create_topic($codec);
	create_kafka_backend(
		$node, $kafka, name => $codec, topic => $codec, compression => $codec, envelope => 'data');
	sql(q(SELECT count(dispatch.publish('t', 's', to_jsonb(lpad(n::text, 100, '0')), backend => ?))
		FROM generate_series(1, ?) AS n), $codec, $CODEC_EVENTS);
	ok(sql(q(SELECT dispatch.flush('60 s', ?)), $codec), "$codec: delivered");
	is(kcat($codec, "%s\n"),
		join('', map { sprintf qq("%0100d"\n), $_ } 1 .. $CODEC_EVENTS), "$codec: as published");
}

log_ok($node);
$node->stop;
done_testing();
