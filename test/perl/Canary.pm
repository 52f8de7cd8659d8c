#
# Canary: a password that all backends of all tests have, and nobody must see.
#
# It is searched for in what a server shows of itself before it stops, and in its
# log when the test ends; a test of a server that has let it out fails.  That
# PostgreSQL repeats what somebody has typed, in its log of statements, is
# another matter.
#
package Canary;

use strict;
use warnings;

use DBI ();
use Exporter 'import';
use Test::More;

use PostgreSQL::Test::Utils ();

our @EXPORT = qw(canary canary_leaks canary_watch);

# What a backend may show, events that have failed, and our processes
my $VISIBLE = q(
	SELECT t::text FROM dispatch.backends AS t UNION ALL
	SELECT t::text FROM dispatch.backend_status AS t UNION ALL
	SELECT t::text FROM dispatch.event_types AS t UNION ALL
	SELECT t::text FROM dispatch.positions AS t UNION ALL
	SELECT t::text FROM (SELECT first_error, last_error FROM dispatch.exceptions LIMIT 10000) AS t
	UNION ALL
	SELECT t::text FROM pg_stat_activity AS t WHERE backend_type LIKE 'dispatch%');

# Of those that type: what PostgreSQL repeats
my $TYPED = qr/(?:LOG:  (?:statement|execute|duration)|STATEMENT:|DETAIL:  [Pp]arameters:)/;

my (@nodes, @leaks);

sub canary { return 'Kieselguhr'; }

# Entries of a server log that should not have it.
sub canary_leaks
{
	my ($log) = @_;

	# Continuation lines begin with a tab; sessions have a name.
	return grep { index($_, canary()) >= 0 && !/^.*?\[\d+\] (?:\S+ )?$TYPED/ }
	  split /\n(?!\t)/, $log;
}

# Has an eye on a server; returns it.
sub canary_watch
{
	my ($node) = @_;

	push @nodes, $node;
	return bless $node, 'Canary::Node';
}

sub _search
{
	my ($node) = @_;
	# A test may leave locks, and settings that are in the way.
	my $connect = sub {
		DBI->connect(
			'dbi:Pg:' . $node->connstr($_[0])
			  . q( options='-c lock_timeout=500ms -c statement_timeout=10s -c search_path='),
			undef, undef, { RaiseError => 1, PrintError => 0 });
	};

	foreach my $database (@{
		$connect->('postgres')->selectcol_arrayref(
			'SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate') })
	{
		my $session = $connect->($database);

		next unless $session->selectrow_array(q(SELECT to_regclass('dispatch.backends')));
		push @leaks,
		  grep { index($_, canary()) >= 0 } @{ $session->selectcol_arrayref($VISIBLE) };
	}
	return;
}

END
{
	my $exit_code = $?;

	push @leaks, map { canary_leaks(PostgreSQL::Test::Utils::slurp_file($_)) }
	  grep { -e } map { $_->logfile } @nodes;
	diag("the canary was seen: $_") foreach @leaks;
	$? = $exit_code || (@leaks ? 1 : 0);
}

package Canary::Node;

use parent 'PostgreSQL::Test::Cluster';

# One that is down, or whose tables a test has broken, has nothing to show.
sub stop
{
	my ($self, @arguments) = @_;

	eval { Canary::_search($self) };
	return $self->SUPER::stop(@arguments);
}

1;
