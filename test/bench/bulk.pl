# Very many events in one statement, against INSERT ... SELECT of the same rows
# into a table of the same shape and indexes.

use strict;
use warnings;

use Bench;
use Bench::Server;
use DispatchTest;
use Time::HiRes qw(time);

my $node = bench_server();
my $session = session($node);
my $count = sized(1000, 300_000, 300_000);

$session->do(q(SELECT dispatch.create_backend('default', 'notify')));
pause($session, 'default');
create_plain_table($session);

sub seconds
{
	my ($code) = @_;
	my $start = time;

	$code->();
	return time - $start;
}

sub insert_many
{
	my ($rows, $payload) = @_;

	$session->do(
		q{INSERT INTO plain (xid, id, created_at, event_id, backend_id, segment, event_type,}
		  . q{ source, data) SELECT pg_current_xact_id(), nextval('plain_id_seq'),}
		  . q{ clock_timestamp(), gen_random_uuid(), 1, 0, 'order.created', 'shop', ?::jsonb}
		  . q{ FROM generate_series(1, ?)},
		undef, $payload, $rows);
	return;
}

foreach my $case (
	[ 100, $count ],
	sized([], [ 1000, $count / 3 ], [ 1000, $count ]),
	sized([], [ 10_000, $count / 30 ], [ 10_000, $count / 3 ]))
{
	my ($bytes, $rows) = @$case or next;
	my $payload = payload($bytes);
	my %taken = in_turns(
		sized(1, 5, 9),
		ours => sub {
			seconds(sub { publish_many($session, $rows, payload => $bytes) });
		},
		theirs => sub {
			seconds(sub { insert_many($rows, $payload) });
		});

	record(
		case => "$rows events of $bytes bytes", unit => 's', ours => $taken{ours},
		counterpart => 'INSERT ... SELECT', theirs => $taken{theirs}, target => 'ratio <= 1.5');
}
