# An event of a prepared transaction is delivered when that is committed, by
# whatever session, even after a crash; and never when it is rolled back.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep time);

use DispatchTest;

my $redis = RedisServer->new(appendonly => 1);
# Only a wake-up is quick here: the safety net is an hour away.
my $node = new_cluster('twophase', "dispatch.sleep_time = '1h'");

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis);

sub prepare
{
	my ($name, $data) = @_;

	sql(qq(BEGIN;
		SELECT dispatch.publish('n', 's', '$data', key => 'k');
		PREPARE TRANSACTION '$name'));
}

# Events that commit while others are prepared go first.
sub publish
{
	sql(qq(SELECT dispatch.publish('n', 's', '$_[0]', key => 'k')));
}

sub arrives_quickly
{
	my ($expected, $what) = @_;
	my $started = time;

	wait_until(sub { $redis->client->xlen('events') >= @$expected }, $what, 10);
	cmp_ok(time - $started, '<', 1, "$what: quickly");
	is_deeply([ stream_data($redis) ], $expected, "$what: nothing else");
}

publish('"first"');
arrives_quickly(['first'], 'an event before');

prepare('plain', '"plain"');
prepare('undone', '"undone"');
prepare('crashed', '"crashed"');
publish('"second"');
arrives_quickly([ 'first', 'second' ], 'an event between');
sleep 0.3;						# the position has passed them all
is($redis->client->xlen('events'), 2, 'what is only prepared is not delivered');

sql(q(COMMIT PREPARED 'plain'));
arrives_quickly([ 'first', 'second', 'plain' ], 'COMMIT PREPARED');

# A crash repeats what was delivered in the last moment; that is not the matter
# here.
sleep 1;
$node->stop('immediate');
$node->start;
wait_for_state($node, 'default', 'running');
sleep 0.5;
is($redis->client->xlen('events'), 3, 'after a crash it is still only prepared');
sql(q(COMMIT PREPARED 'crashed'));
arrives_quickly([ 'first', 'second', 'plain', 'crashed' ], 'COMMIT PREPARED after a crash');

sql(q(ROLLBACK PREPARED 'undone'));
publish('"last"');
arrives_quickly([ 'first', 'second', 'plain', 'crashed', 'last' ], 'ROLLBACK PREPARED');
is(sql(q(SELECT dispatch.flush())), 't', 'all is settled');
is(sql(q(SELECT string_agg(DISTINCT status, ' '), count(*) FROM dispatch.events)),
	'published|5', 'and all that is there is published');

# To a backend that is created, and dropped, meanwhile
prepare('late', '"late"');
create_redis_backend($node, $redis, name => 'other', stream_name => 'other');
sql(q(SELECT dispatch.drop_backend('default')));
sleep 2;
is(backend_state($node, 'default'),
	'dropping', 'a backend that a prepared transaction uses is not dropped yet');
sql(q(COMMIT PREPARED 'late'));
arrives_quickly([ 'first', 'second', 'plain', 'crashed', 'last', 'late' ],
	'COMMIT PREPARED to a backend that is being dropped');
wait_until(sub { !defined backend_state($node, 'default') }, 'the end of the backend', 10);
ok(1, 'the backend is dropped then');

log_ok($node);
$node->stop;
done_testing();
