# An event that kills the worker takes every session of the server with it.  It
# must be found, and become a dead letter; its neighbours are delivered.  One that
# is only in the worker when that is told to end is innocent.
use strict;
use warnings;

use Test::More;
use DispatchTest;

my $node = new_cluster('poison', "restart_after_crash = on\n");

my $marker = $node->basedir . '/refused';

$node->safe_psql('postgres', qq{
	CREATE EXTENSION dispatch;
	CREATE EXTENSION plpython3u;
	CREATE ROLE app;
	CREATE TABLE public.got (n bigint GENERATED ALWAYS AS IDENTITY, data jsonb);
	GRANT ALL ON public.got TO app;
	GRANT USAGE ON SCHEMA dispatch TO app;
	GRANT USAGE ON TYPE dispatch.event, dispatch.failure TO app;
	CREATE FUNCTION public.deliver(events dispatch.event[]) RETURNS SETOF dispatch.failure
	LANGUAGE plpython3u AS \$\$
	import json, os, signal
	insert = plpy.prepare('INSERT INTO public.got (data) VALUES (\$1::jsonb)', ['text'])
	failures = []
	for event in events:
		data = json.loads(event['body'])['data']
		if data == 'deadly again':
			if os.path.exists('$marker'):
				os.kill(os.getpid(), signal.SIGKILL)
			open('$marker', 'w').close()
			failures.append((event['event_id'], 'not yet', False))
			continue
		if data == 'slow':
			while not plpy.execute("SELECT FROM pg_class WHERE relname = 'mended'"):
				plpy.execute('SELECT pg_sleep(0.1)')
		if data == 'poison':
			os.kill(os.getpid(), signal.SIGKILL)
		insert.execute([json.dumps(data)])
	return failures
	\$\$;
	ALTER FUNCTION public.deliver OWNER TO app;
	INSERT INTO dispatch.backends (name, transport, options, owner)
	VALUES ('default', 'sql', '{"function": "public.deliver(dispatch.event[])"}', 'app');
});

my $log = -s $node->logfile;
$node->safe_psql('postgres', q{
	SELECT dispatch.publish('t', 's', to_jsonb(CASE i WHEN 6 THEN 'poison' ELSE 'event ' || i END),
		key => 'k' || i)
	FROM generate_series(1, 10) AS i});

# Each crash restarts the server, so that a question may go unanswered.
sub ask
{
	my ($out) = ('');
	$node->psql('postgres', $_[0], stdout => \$out, stderr => \my $err);
	return $out // '';
}

wait_until(
	sub { ask(q(SELECT count(*) FROM dispatch.dead_letters)) eq '1' },
	'the culprit is a dead letter', 120);
is(ask(q(SELECT data FROM dispatch.dead_letters)), '"poison"', 'it is the culprit');
like(ask(q(SELECT last_error FROM dispatch.dead_letters)), qr/worker was killed/,
	'the dead letter says why');
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'the others are settled');
is( ask(q(SELECT string_agg(DISTINCT data #>> '{}', ',' ORDER BY data #>> '{}') FROM got)),
	join(',', sort map { "event $_" } 1 .. 5, 7 .. 10),
	'its neighbours are delivered');

# Workers that were killed since then
sub kills
{
	my ($position) = @_;

	return scalar log_lines($node,
		qr/background worker "dispatch worker" \(PID \d+\) was terminated by signal 9/, $position);
}
is(kills($log), 4, 'it killed no more workers than it took to find it');

is(ask(q(SELECT state FROM dispatch.backend_status)), 'running', 'the backend goes on');
ask(q(SELECT dispatch.publish('t', 's', '"after"')));
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'with what comes later');
is(ask(q(SELECT count(*) FROM got WHERE data = '"after"')), '1', 'which is delivered');

# One that kills only when it is tried again, while others are delivered
$log = log_position($node);
ask(q(UPDATE dispatch.backends SET retry_delay = '1s', retry_backoff = false));
ask(q(SELECT dispatch.publish('t', 's', '"deadly again"', key => 'k', max_retries => 100)));
my $n = 0;
wait_until(
	sub {
		ask(qq(SELECT dispatch.publish('t', 's', to_jsonb('other ' || $n)))) and $n++ for 1 .. 20;
		return ask(q(SELECT count(*) FROM dispatch.dead_letters)) eq '2';
	},
	'the other culprit is a dead letter', 120);
is(ask(q(SELECT string_agg(data #>> '{}', ',' ORDER BY data #>> '{}') FROM dispatch.dead_letters)),
	'deadly again,poison', 'an event that kills when it is tried again is found, too');
is(kills($log), 4, 'after as many deaths');
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'the others are settled');
is(ask(q(SELECT count(DISTINCT data) FROM got WHERE data #>> '{}' LIKE 'other %')), $n,
	'and delivered, as they were all the time');

# Workers that are told to end while the function runs, which takes long
ask(q(SELECT dispatch.publish('t', 's', '"slow"')));
for (1 .. 4)
{
	my $pid;

	wait_until(
		sub {
			$pid = ask(q(SELECT pid FROM pg_stat_activity WHERE backend_type = 'dispatch worker'
				AND xact_start < now() - interval '0.5 s'));
		},
		'the function runs', 60);
	ask("SELECT pg_terminate_backend($pid)");
	wait_until(sub { !kill 0, $pid }, 'the end of the worker', 5);
	ask(q(UPDATE dispatch.backends SET retry_delay = retry_delay));	# another, at once
}
is(ask(q(SELECT status, attempts FROM dispatch.events WHERE data = '"slow"')), 'pending|0',
	'an event whose workers were told to end still waits');
ask('CREATE TABLE mended ()');
is(ask(q(SELECT dispatch.flush('30s'))), 't', 'it is settled');
is(ask(q(SELECT count(*) FROM got WHERE data = '"slow"')), '1', 'and delivered');
is(ask(q(SELECT count(*) FROM dispatch.dead_letters)), '2', 'and no dead letter');
$node->stop;
done_testing();
