#
# Bench::Server: the PostgreSQL server of a benchmark, and events for it.
#
# Set up as a server that means it: fsync is on, and the encoding is UTF-8 (of
# another, all texts must be converted).  What is switched off is logging, and
# what would start by itself in the middle of a run is given room.
#
package Bench::Server;

use strict;
use warnings;

use Carp;
use DBI ();
use Exporter 'import';
use Time::HiRes qw(sleep time);

use DispatchTest;

our @EXPORT = qw(
  bench_server sql sql_rows create_plain_table payload publish_many
  pause resume);

my $SETTINGS = q(
	fsync = on
	wal_level = replica
	log_statement = none
	shared_buffers = 512MB
	max_wal_size = 8GB
	checkpoint_timeout = 30min
	max_connections = 200
);

# bench_server(settings): a running server with the extension.
sub bench_server
{
	my ($settings) = @_;
	my $node = new_cluster('bench', $SETTINGS . ($settings // ''),
		extra => [ '--no-sync', '--encoding=UTF8', '--locale=C.UTF-8' ]);

	$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');
	return $node;
}

# sql(session, query, arguments): the first column of the first row.
sub sql
{
	my ($session, $query, @arguments) = @_;

	return scalar $session->selectrow_array($query, undef, @arguments);
}

sub sql_rows
{
	my ($session, $query, @arguments) = @_;

	return @{ $session->selectall_arrayref($query, undef, @arguments) };
}

# What a user would have without us: a table of the same shape and indexes.
sub create_plain_table
{
	my ($session) = @_;

	$session->do('CREATE TABLE plain (LIKE dispatch.outbox_0 INCLUDING INDEXES)');
	$session->do('CREATE SEQUENCE plain_id_seq');
	return;
}

# payload(bytes): the text of a JSON object of that size.  It is the same each
# time, and nothing that compresses well: most of it is hexadecimal noise.
sub payload
{
	my ($bytes) = @_;
	my ($state, $noise) = (1, '');
	my $frame = '{"note": "", "order": 1234567}';

	croak 'at least ' . length $frame if $bytes < length $frame;
	while (length $noise < $bytes)
	{
		$state = ($state * 1103515245 + 12345) % 2**31;
		$noise .= sprintf '%04x', $state >> 15;
	}
	$noise = substr $noise, 0, $bytes - length $frame;
	return qq({"note": "$noise", "order": 1234567});
}

my %KEYS = (none => 'NULL', many => 'i::text', one => q('hot'));

# publish_many(session, count, payload => bytes, keys => none|many|one,
# backend => name): in one transaction.
sub publish_many
{
	my ($session, $count, %options) = @_;
	my $key = $KEYS{ $options{keys} // 'none' } // croak "keys: $options{keys}";

	$session->do(
		q{SELECT count(dispatch.publish('order.created', 'shop', ?::jsonb,}
		  . qq{ key => $key, backend => ?)) FROM generate_series(1, ?) AS i},
		undef, payload($options{payload} // 100), $options{backend}, $count);
	return;
}

# Stops delivery to a backend; returns when its worker has ended.
sub pause
{
	my ($session, $backend) = @_;

	$session->do('SELECT dispatch.pause_backend(?)', undef, $backend);
	wait_until(
		sub {
			!sql($session,
				'SELECT count(*) FROM dispatch.backend_status WHERE name = ? AND pid IS NOT NULL',
				$backend);
		},
		"the end of the worker of $backend");
	return;
}

sub resume
{
	my ($session, $backend) = @_;

	$session->do('SELECT dispatch.resume_backend(?)', undef, $backend);
	return;
}

1;
