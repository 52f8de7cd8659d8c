# On a standby nothing runs and nothing can be published; a promotion starts
# the workers, which deliver what the primary had not.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my $redis = RedisServer->new(appendonly => 1);
my $primary = new_cluster('primary', undef, allows_streaming => 1);

$primary->safe_psql('postgres', 'CREATE EXTENSION dispatch');
create_redis_backend($primary, $redis);
$primary->safe_psql('postgres',
	q(SELECT dispatch.publish('n', 's', to_jsonb(i), key => 'k') FROM generate_series(1, 10) AS i));
is($primary->safe_psql('postgres', 'SELECT dispatch.flush()'), 't', 'the primary delivers');

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

# What the primary cannot deliver any more
$redis->stop;
$primary->safe_psql('postgres', q(SELECT dispatch.publish('n', 's', to_jsonb(i), key => 'k')
	FROM generate_series(11, 60) AS i));
wait_for_state($primary, 'default', 'outage');
$primary->wait_for_catchup($standby);

is(scalar(process_ids($standby, $_)), 0, "standby: no $_") foreach qw(launcher manager worker);
my (undef, undef, $error) = $standby->psql('postgres',
	q(\set VERBOSITY verbose) . "\n" . q(SELECT dispatch.publish('a', 'b', '1')));
like($error, qr/ERROR:  25006: cannot execute dispatch.publish\(\) in a read-only transaction/,
	'standby: publish() fails as any write does');
sub ask { return $standby->safe_psql('postgres', $_[0]); }

is(ask(q(SELECT count(*) FROM dispatch.events)), 60, 'standby: events can be seen');
is(ask(q(SELECT count(*) FROM dispatch.events WHERE status = 'published')),
	10, 'standby: and what has become of them');
is(ask('SELECT pending FROM dispatch.backend_status'), 50, 'standby: so can the backlog');
sleep 1;
is(scalar(process_ids($standby, $_)), 0, "standby: still no $_")
  foreach qw(launcher manager worker);

$primary->stop('immediate');
$redis->start;
is($redis->client->xlen('events'), 10, 'nothing of the backlog is delivered yet');
$standby->promote;
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'promoted: it delivers');
is_deeply([ stream_data($redis) ], [ 1 .. 60 ], 'promoted: the backlog, in order, exactly once');
is(ask('SELECT state FROM dispatch.backend_status'), 'running', 'promoted: by a worker');
ask(q(SELECT dispatch.publish('n', 's', '61')));
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'promoted: it can be published to');
is((stream_data($redis))[-1], 61, 'promoted: and delivers that, too');

log_ok($standby);
$standby->stop;
done_testing();
