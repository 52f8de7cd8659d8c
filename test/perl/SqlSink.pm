#
# SqlSink: a broker that is a function of the database (transport "sql").
#
#     create_sink($session, 'CREATE TABLE sink.got (event_id uuid, body text)',
#         sql => q(INSERT INTO sink.got SELECT event_id, body FROM unnest(events);
#             SELECT event_id, 'bad', true FROM unnest(events) WHERE event_type = 'bad'));
#     create_sink_backend($session, 'default', max_retries => 3);
#
# All that is the sink's is in the schema "sink" and belongs to the role "sink",
# which may do nothing else, and as which the function is called.  There is one
# in a database; it may have several backends.
#
package SqlSink;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP ();

our @EXPORT = qw(
  create_sink create_counting_sink create_sink_backend create_failing_backend);

# What notes every attempt, and what comes in one call; an event says how often
# it fails.
my $COUNTING_TABLES = q(
	CREATE SEQUENCE sink.calls;
	CREATE TABLE sink.attempts (
		id bigserial, call bigint, event_id uuid, type text, key text, n integer, ok boolean,
		at timestamptz DEFAULT clock_timestamp());
	CREATE INDEX ON sink.attempts (event_id);
	CREATE TABLE sink.mended (n integer PRIMARY KEY));
my $COUNT = q(
	DECLARE
		event dispatch.event;
		this bigint := nextval('sink.calls');
		data jsonb;
		tries integer;
		good boolean;
	BEGIN
		FOREACH event IN ARRAY events LOOP
			data := event.body::jsonb;
			IF data ? 'raise' THEN
				RAISE EXCEPTION 'event % is a bad one', data ->> 'n';
			END IF;
			SELECT count(*) INTO tries FROM sink.attempts AS a WHERE a.event_id = event.event_id;
			good := tries >= coalesce((data ->> 'fail')::int, 0)
				OR EXISTS (SELECT FROM sink.mended AS m WHERE m.n = (data ->> 'n')::int);
			INSERT INTO sink.attempts (call, event_id, type, key, n, ok)
			VALUES (this, event.event_id, event.event_type, event.key, (data ->> 'n')::int, good);
			IF NOT good THEN
				RETURN NEXT (event.event_id, 'attempt ' || tries + 1,
					data ? 'permanent')::dispatch.failure;
			END IF;
		END LOOP;
	END);

# create_sink(session, tables, language => body): tables is SQL that makes what the
# function needs; its argument is "events".  With each_event the body is the
# PL/pgSQL for one of them, "event".
sub create_sink
{
	my ($session, $tables, $language, $body) = @_;

	if ($language eq 'each_event')
	{
		$language = 'plpgsql';
		$body = qq(
			DECLARE
				event dispatch.event;
			BEGIN
				FOREACH event IN ARRAY events LOOP
					$body
				END LOOP;
			END);
	}
	$session->do(qq(
		CREATE ROLE sink;
		GRANT USAGE ON SCHEMA dispatch TO sink;
		GRANT USAGE ON TYPE dispatch.event, dispatch.failure TO sink;
		CREATE SCHEMA sink AUTHORIZATION sink;
		SET ROLE sink;
		$tables;
		CREATE FUNCTION sink.take(events dispatch.event[]) RETURNS SETOF dispatch.failure
		LANGUAGE $language AS \$\$ $body \$\$;
		RESET ROLE));
	return;
}

# One whose events say how often they fail: data is {"n": ..., "fail": attempts
# that fail, "permanent": true, "raise": true}, each of them optional, and n is
# in sink.mended from when on it fails no more.  The attempts, in order, are in
# sink.attempts.
sub create_counting_sink
{
	my ($session) = @_;

	return create_sink($session, $COUNTING_TABLES, plpgsql => $COUNT);
}

# create_sink_backend(session, name, column => value, ...): the body of its events
# is the data alone, unless envelope is given; undef leaves that out.
sub create_sink_backend
{
	my ($session, $name, %columns) = @_;
	my $envelope = exists $columns{envelope} ? delete $columns{envelope} : 'data';
	my %options = (function => 'sink.take(dispatch.event[])');

	$options{envelope} = $envelope if defined $envelope;
	%columns = (
		%columns,
		name => $name, transport => 'sql', owner => 'sink',
		options => JSON::PP->new->canonical->encode(\%options));
	my @names = sort keys %columns;

	$session->do(
		'INSERT INTO dispatch.backends (' . join(', ', @names) . ') VALUES ('
		  . join(', ', ('?') x @names) . ')', undef, @columns{@names});
	return;
}

# A sink that delivers nothing, with its backend "failing": of each event it says
# that it could not be delivered, for now or for good (permanent => 1), as "never"
# in the words of the error.
sub create_failing_backend
{
	my ($session, %options) = @_;
	my $permanent = $options{permanent} ? 'true' : 'false';

	create_sink($session, '', sql => "SELECT event_id, 'never', $permanent FROM unnest(events)");
	create_sink_backend($session, 'failing', envelope => undef);
	return;
}

1;
