#
# Bench::Cost: what the delivery of events costs a machine.
#
#     my $cost = Bench::Cost->new($node, @relays);
#     ...
#     my %used = $cost->so_far;		# cpu (seconds), wal, tables (bytes)
#
# The server counts whole: publishers, relays, vacuum, WAL sender and what else
# works because of the events.  So do the relays' own processes.  The broker,
# which does the same work for all, and the load generator do not count.
#
package Bench::Cost;

use strict;
use warnings;

use Carp;

use Bench::Process;
use Bench::Server;
use DispatchTest;

# Where the events are, whatever the tables are called.
my $TABLES = q(
	SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)
	  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
	 WHERE c.relkind IN ('r', 'm')
	   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'));

# new(node, pids): from now on; the pids are those of relays outside the server.
sub new
{
	my ($class, $node, @relays) = @_;
	my $self = bless { node => $node, relays => \@relays }, $class;

	$self->{start} = { $self->_read };
	return $self;
}

sub so_far
{
	my ($self) = @_;
	my %now = $self->_read;

	return map { $_ => $now{$_} - $self->{start}{$_} } keys %now;
}

sub _read
{
	my ($self) = @_;
	my $session = session($self->{node});
	my $postmaster = $self->{node}->{_pid} // croak 'the server does not run';

	return (
		cpu => tree_seconds($postmaster, @{ $self->{relays} }),
		wal => sql($session, q(SELECT pg_current_wal_insert_lsn() - '0/0')),
		tables => sql($session, $TABLES));
}

1;
