#
# DispatchTest: what the TAP tests of dispatch share.
#
#     use DispatchTest;
#
#     my $node = new_cluster('main', "dispatch.sleep_time = '1h'");
#     my $redis = RedisServer->new;
#     ...
#     wait_until(sub { $redis->xrange_all('events') == 3 }, 'three entries');
#
package DispatchTest;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RedisServer;

our @EXPORT = qw(new_cluster wait_until);

my $POLL_SECONDS = 0.02;

# A signal ends the test through its END blocks, which stop the servers.
$SIG{TERM} = $SIG{INT} = sub { die "ended by a signal\n" };

# new_cluster(name, settings, parameters of init): a running cluster that
# dispatch is loaded into; the extension is not created.
sub new_cluster
{
	my ($name, $settings, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => ['--no-sync'], %init);
	$node->append_conf('postgresql.conf', slurp_file('test/server.conf'));
	$node->append_conf('postgresql.conf', $settings) if defined $settings;
	$node->start;
	return $node;
}

# wait_until(condition, what, seconds): polls until the condition holds, and
# ends the test if it does not in time.  A condition that dies is not met yet:
# it may ask a server that is on its way.
sub wait_until
{
	my ($condition, $what, $seconds) = @_;
	my $deadline = time + ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	until (eval { $condition->() })
	{
		my $error = $@;

		croak "timed out waiting for: $what" . ($error && " ($error)") if time > $deadline;
		sleep $POLL_SECONDS;
	}
	return;
}

1;
