#
# Bench::Rival::Dispatch: we, as we are installed.
#
package Bench::Rival::Dispatch;

use strict;
use warnings;

use parent 'Bench::Rival';

use Bench::Server;
use DispatchTest;

sub name { return 'dispatch'; }

sub create
{
	my ($self) = @_;

	create_redis_backend($self->node, $self->redis);
	return;
}

sub publish_sql
{
	my ($self, $count) = @_;

	return "SELECT count(dispatch.publish('order.created', 'shop', $Bench::Rival::DATA))"
	  . " FROM generate_series(1, $count)";
}

# There is nothing of ours outside of the server: the worker has started.
sub start { return; }

sub hold
{
	my ($self) = @_;

	pause(session($self->node), 'default');
	return;
}

sub go_on
{
	my ($self) = @_;

	resume(session($self->node), 'default');
	return;
}

1;
