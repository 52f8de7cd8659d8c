# docs/publishing.md: the SQL that it prints runs, in that order, and the table
# of results that it prints is what comes out.

use strict;
use warnings;

use Test::More;

use DispatchTest;
use PostgreSQL::Test::Utils;

my $page = slurp_file('docs/publishing.md');
my @blocks = $page =~ /^```sql\n(.*?)^```$/msg;
my ($printed) = $page =~ /^```\n( *event_type.*?)^```$/ms;

my $node = new_cluster('publishing_page');
$node->safe_psql('postgres', 'CREATE EXTENSION dispatch');

cmp_ok(scalar @blocks, '>', 3, 'the page has examples');
my $shown;
foreach my $sql (@blocks)
{
	my ($status, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 1,
		extra_params => [ '--no-align', '--field-separator= | ' ]);

	is("$status$err", 0, 'runs: ' . ($sql =~ /^(.*)/)[0]);
	$shown = $out if $sql =~ /publish_row/;
}

# Blanks apart.
my @rows = grep { /^ user\./ } split /\n/, $printed;
s/^ +| +$//g, s/ +\| +/ | /g foreach @rows;
is_deeply([ split /\n/, $shown ], \@rows, 'the events of the rows are those on the page');

wait_until(
	sub {
		!$node->safe_psql('postgres',
			q(SELECT count(*) FROM dispatch.events
			WHERE status NOT IN ('published', 'scheduled')));
	},
	'the end of all deliveries');
is( $node->safe_psql(
		'postgres', q(SELECT event_type FROM dispatch.events WHERE status = 'scheduled')),
	'trial.ended', 'and everything is delivered but what is scheduled');
$node->stop;
done_testing();
