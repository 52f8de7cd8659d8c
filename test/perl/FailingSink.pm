#
# FailingSink: an "sql" backend that delivers nothing.
#
#     create_failing_backend($session, permanent => 1);
#
# It is called "failing"; its function says of each event that it could not be
# delivered, for now or for good, as "never" in the words of the error.
#
package FailingSink;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(create_failing_backend);

sub create_failing_backend
{
	my ($session, %options) = @_;
	my $permanent = $options{permanent} ? 'true' : 'false';

	$session->do(qq(
		CREATE ROLE sink;
		GRANT USAGE ON SCHEMA dispatch TO sink;
		GRANT USAGE ON TYPE dispatch.event, dispatch.failure TO sink;
		CREATE SCHEMA sink AUTHORIZATION sink;
		CREATE FUNCTION sink.fail(dispatch.event[]) RETURNS SETOF dispatch.failure LANGUAGE sql
			AS \$\$SELECT event_id, 'never', $permanent FROM unnest(\$1)\$\$;
		INSERT INTO dispatch.backends (name, transport, owner, options)
		VALUES ('failing', 'sql', 'sink', '{"function": "sink.fail(dispatch.event[])"}')));
	return;
}

1;
