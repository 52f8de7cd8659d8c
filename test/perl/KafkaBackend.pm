#
# KafkaBackend: what the tests of the kafka transport share.
#
#     create_kafka_backend($node, $kafka, name => 'k', topic => 'orders');
#     is_deeply([ topic_data($kafka, 'orders') ], [ 1, 2, 3 ], 'three events');
#
package KafkaBackend;

use strict;
use warnings;

use DispatchTest;
use Exporter qw(import);
use JSON::PP ();
use KafkaServer;

our @EXPORT = qw(create_kafka_backend topic_data ledger_entries);

my $json = JSON::PP->new->utf8->allow_nonref;

# create_kafka_backend(node, kafka, name => ..., listener => ..., options): the
# options of the transport come on top of the address.
sub create_kafka_backend
{
	my ($node, $kafka, %options) = @_;
	my $name = delete $options{name} // 'default';
	my $listener = delete $options{listener};

	session($node)->do(
		'SELECT dispatch.create_backend(?, ?, ?)', undef, $name, 'kafka',
		JSON::PP->new->encode({ bootstrap_servers => $kafka->servers($listener), %options }));
	return;
}

# The data of the CloudEvents in a topic, those of a partition in their order.
# It is the last member; to decode it alone is much faster.
sub topic_data
{
	my ($kafka, $topic) = @_;

	return
	  map { $_->{value} =~ /, "data": (.*)}\z/s ? $json->decode($1) : undef }
	  $kafka->records($topic // 'events');
}

# Records as Ledger::Checker takes them. What it wants beside the event, a
# record of Kafka does not have apart from it.
sub ledger_entries
{
	my ($kafka, $topic) = @_;
	my @names = qw(event_type source event_id timestamp);
	my $head = join ', ', '\{"specversion": "1\.0"',
	  map { qq("$_": ("(?:[^"\\\\]|\\\\.)*")) } qw(type source id time);
	my @entries;

	foreach my $record ($kafka->records($topic))
	{
		my @texts = map { $json->decode($_) } $record->{value} =~ /\A$head/;
		my %entry = (cloud_event => $record->{value});

		utf8::encode($_) foreach @texts;
		@entry{@names} = @texts;
		push @entries, \%entry;
	}
	return @entries;
}

1;
