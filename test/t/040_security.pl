# Shadowing: somebody who may publish, configure and watch makes objects that
# look like ours or the catalog's, and puts them first; nothing of his may run
# with any rights but his.  And what was there before CREATE EXTENSION is not
# adopted, and options are no way to files, commands or lines of the log.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('security');
my $admin = session($node);

sub attacker
{
	return DBI->connect(
		'dbi:Pg:' . $node->connstr('postgres') . ' user=mallory',
		undef, undef, { RaiseError => 1, PrintError => 0, AutoInactiveDestroy => 1 });
}

# The error of a statement; empty if it has none.
sub error_of
{
	my ($session, @statement) = @_;

	return eval { $session->do(shift @statement, undef, @statement); 1 } ? '' : $@;
}

# ---- Objects that were there before

$admin->do('CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory');
$admin->do('GRANT CREATE ON DATABASE postgres TO mallory');
my $mallory = attacker();
$mallory->do('CREATE SCHEMA dispatch; CREATE TABLE dispatch.outbox (n int)');
like(error_of($admin, 'CREATE EXTENSION dispatch'),
	qr/schema "dispatch" already exists/, 'a schema of somebody else is not adopted');
$mallory->do('DROP SCHEMA dispatch CASCADE');

# ---- Spies: they say in the log who runs them, and do what the original does

$mallory->do(q[
CREATE FUNCTION public.make_spies() RETURNS int LANGUAGE plpgsql AS $make$
DECLARE
	o record;
	n int := 0;
	spied oid[] := '{text,name,int4,int8,int2,bool,jsonb,uuid,oid,timestamptz,interval,xid8,bytea,
		"char",numeric,float8,text[],name[],regrole,regclass,regnamespace,xid,pg_snapshot,aclitem[],
		unknown}'::regtype[]::oid[];
BEGIN
	FOR o IN SELECT * FROM pg_operator
		WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft = ANY (spied)
			AND oprright = ANY (spied) AND oprresult <> 0 LOOP
		n := n + 1;
		EXECUTE format($f$
			CREATE FUNCTION public.spy_%1$s(a %2$s, b %3$s) RETURNS %4$s LANGUAGE plpgsql AS
			'BEGIN RAISE LOG ''spy: operator %% as %%'', ''%5$s'',
				current_user; RETURN a OPERATOR(pg_catalog.%5$s) b; END';
			CREATE OPERATOR public.%5$s (LEFTARG = %2$s, RIGHTARG = %3$s,
				FUNCTION = public.spy_%1$s)$f$,
			n, o.oprleft::regtype, o.oprright::regtype, o.oprresult::regtype, o.oprname);
	END LOOP;
	FOR o IN SELECT proname, pronargs, prorettype, proargtypes::oid[] AS args FROM pg_proc
		WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset
			AND prorettype = ANY (spied) AND proargtypes::oid[] <@ spied
			AND provariadic = 0 AND pronargs <= 4
			AND (proname ~ '^(jsonb?_|to_|quote_|now|clock|concat|current|pg_c|pg_v|pg_s|date)'
				OR proname ~ '^(round|lower|upper|string|text|nextval|set_config|has_|format)') LOOP
		n := n + 1;
		EXECUTE format('CREATE FUNCTION public.%1$I(%2$s) RETURNS %3$s LANGUAGE plpgsql AS %4$L',
			o.proname,
			(SELECT string_agg(t::regtype::text, ',
				' ORDER BY i) FROM unnest(o.args) WITH ORDINALITY AS u (t, i)),
			o.prorettype::regtype,
			format('BEGIN RAISE LOG ''spy: function %s as %%'',
				current_user; RETURN pg_catalog.%I(%s); END',
				o.proname, o.proname,
				(SELECT string_agg('$' || i, ', ' ORDER BY i) FROM generate_series(1,
					o.pronargs) AS i)));
	END LOOP;
	-- Better matches than the variadic original
	FOR o IN SELECT unnest('{text\,name,text\,int,text\,int\,int,text\,text}'::text[]) AS args LOOP
		EXECUTE format($f$CREATE FUNCTION public.format(%s) RETURNS text LANGUAGE plpgsql AS
			'BEGIN RAISE LOG ''spy: function format as %%'',
				current_user; RETURN ''SELECT 1''; END'$f$, o.args);
	END LOOP;
	RETURN n;
END $make$]);
cmp_ok($mallory->selectrow_array('SELECT public.make_spies()'), '>', 300, 'there are spies');
$mallory->do(q(CREATE DOMAIN public.int4 AS text CHECK (false);
	CREATE TABLE public.pg_class (n int); CREATE TABLE public.pg_proc (n int)));

my $path = 'SET search_path = public, pg_catalog';
$admin->do($path);
$admin->do('CREATE EXTENSION dispatch');
is_deeply([ log_lines($node, qr/LOG:  spy: .* as (?!mallory)/) ],
	[], 'CREATE EXTENSION runs nothing of his');
$admin->do("SELECT dispatch.grant_$_('mallory')") foreach qw(publish monitor operate);
$admin->do(q(SELECT dispatch.create_backend('default', 'redis',
	pg_catalog.jsonb_build_object('host', '127.0.0.1', 'port', ?::int, 'password', 'pike'))),
	undef, $redis->port);
$admin->do(q(UPDATE dispatch.backends SET max_retries = 0));
$admin->do(q(SELECT dispatch.alter_backend('default', '{"password": null}')));

# ---- Everything that he may call, with his objects first

sub in_front
{
	my $session = attacker();

	$session->do('CREATE TEMP TABLE ' . $_ . ' (LIKE pg_catalog.' . $_ . ')')
	  foreach qw(pg_class pg_proc pg_namespace pg_type pg_operator pg_extension);
	$session->do("CREATE TEMP TABLE $_ (id int, name text, event_id uuid, data jsonb)")
	  foreach qw(backends outbox exceptions positions scheduled event_types events backend_secrets);
	$session->do('CREATE DOMAIN pg_temp.text AS pg_catalog.int4;
		CREATE DOMAIN pg_temp.jsonb AS pg_catalog.int4; CREATE DOMAIN pg_temp.uuid
			AS pg_catalog.int4;
		CREATE DOMAIN pg_temp.int4 AS pg_catalog.text');
	$session->do('SET search_path = pg_temp, public, pg_catalog');
	return $session;
}

$mallory = in_front();
my @calls = (
	q(SELECT dispatch.publish('bad', 'test', '{"x": 1}', key => 'k',
		options => '{"stream_name": "list"}')),
	q(SELECT dispatch.publish('t', 'test', scheduled_at => '2000-01-01'::pg_catalog.timestamptz)),
	q(SELECT dispatch.publish_binary('t', 'test', 'abc', 'text/plain')),
	q(SELECT dispatch.publish_cloudevent('{"specversion": "1.0", "id": "1", "type": "t", "source": "s"}')),
	q(CREATE TABLE public.mine (id pg_catalog.int4 PRIMARY KEY, a pg_catalog.jsonb);
		CREATE TRIGGER p AFTER INSERT OR UPDATE OR DELETE ON public.mine
			FOR EACH ROW EXECUTE FUNCTION dispatch.publish_row('mine', 'test')),
	q(INSERT INTO public.mine VALUES (1, '{"a": 1}')), q(UPDATE public.mine SET a = '2'),
	q(DELETE FROM public.mine),
	q(SELECT dispatch.create_backend('m', 'notify', '{"channel": "{event_type}"}')),
	q(SELECT dispatch.alter_backend('m', '{"channel": "c"}')),
	q(UPDATE dispatch.backends SET batch_size = 10, sleep_time = '1 s' WHERE name = 'm'),
	q(SELECT dispatch.pause_backend('m')), q(SELECT dispatch.resume_backend('m')),
	q(SELECT * FROM dispatch.check_backend('m')),
	q(SELECT dispatch.define_event_type('t', topic => 'x{event_type}', options => '{}')),
	q(SELECT dispatch.define_event_type('t', 'm', partition_by => 'a')),
	q(SELECT dispatch.drop_event_type('t')),
	q(SELECT dispatch.flush('20 s')),
	q(SELECT * FROM dispatch.backend_status), q(SELECT * FROM dispatch.events),
	q(SELECT * FROM dispatch.dead_letters), q(SELECT * FROM dispatch.transport_options()),
	q(SELECT dispatch.retry(event_id) FROM dispatch.dead_letters),
	q(SELECT dispatch.flush('20 s')),
	q(SELECT dispatch.retry_failed('default', 'bad')), q(SELECT dispatch.flush('20 s')),
	q(SELECT dispatch.discard(event_id) FROM dispatch.dead_letters),
	q(SELECT dispatch.drop_backend('m')));
$redis->cli('LPUSH', 'list', '1');
is(error_of($mallory, $_), '', (split /\n/)[0]) foreach @calls;
like(error_of($mallory, $_), qr/does not exist|is not defined|is no dead letter/, $_) foreach
  q(SELECT dispatch.pause_backend('nowhere')), q(SELECT dispatch.drop_event_type('t')),
  q(SELECT dispatch.retry(pg_catalog.gen_random_uuid())), q(SELECT dispatch.flush('1 s',
		'nowhere'));
is(scalar($redis->xrange_all('events')), 6, 'his events are delivered');

# Dropping looks, as the owner of our tables, for events that are not delivered.
my $owner = session($node);		# whose own statements do not call spies
foreach my $drop (q(UPDATE dispatch.backends SET dropping = true WHERE name = ?),
	q(DELETE FROM dispatch.backends WHERE name = ?))
{
	my $verb = (split ' ', $drop)[0];
	my $name = lc "by_$verb";
	my $failed = q(INSERT INTO dispatch.exceptions (xid, id, created_at, event_id, backend_id,
			segment, event_type, source, status, attempts)
		SELECT '1', 1, pg_catalog.now(), pg_catalog.gen_random_uuid(), id, -1, 't', 's', ?, 1
		FROM dispatch.backends WHERE name = ?);

	is(error_of($mallory, 'SELECT dispatch.create_backend(?, ?)', $name, 'notify'), '', $name);
	is(error_of($mallory, 'SELECT dispatch.pause_backend(?)', $name), '', "$name is paused");
	$owner->do($failed, undef, 'parked', $name);
	like(error_of($mallory, $drop, $name),
		qr/backend "$name" has undelivered events/, "$verb is refused");
	$owner->do(q(UPDATE dispatch.exceptions SET status = 'discarded' WHERE event_type = 't'));
	is(error_of($mallory, $drop, $name), '', "$verb drops it");
}

# What others call while he is first in their path
$admin->do("SELECT dispatch.revoke_$_('mallory'), dispatch.grant_$_('mallory')")
  foreach qw(publish monitor operate);
$admin->do('SELECT dispatch.adopt()');
$admin->do(q(SELECT dispatch.flush('20 s')));
my @spied = log_lines($node, qr/LOG:  spy: /);
cmp_ok(scalar(grep { /as mallory$/ } @spied), '>', 0, 'spies are able to see');
is_deeply([ grep { !/as mallory$/ } @spied ], [], 'but nothing of his ran with rights of others');

# ---- A backend of somebody else

my $theirs = $admin->selectrow_array(q(SELECT id FROM dispatch.backends WHERE name = 'default'));
my $secrets = 'SELECT options::text FROM dispatch.backend_secrets WHERE backend_id = ?';
$admin->do(q(UPDATE dispatch.backends SET enabled = false));
$admin->do(q(SELECT dispatch.alter_backend('default', '{"password": "pike"}')));
foreach my $conflict ('', ' ON CONFLICT DO NOTHING',
	' ON CONFLICT (id) DO UPDATE SET name = excluded.name')
{
	foreach my $options ('{}', '{"password": "carp"}')
	{
		error_of($mallory, qq(INSERT INTO dispatch.backends (id, name, transport,
				options, identity, enabled)
			VALUES ($theirs, 'taken', 'redis', '$options', dispatch.identity(), false)$conflict));
		is($admin->selectrow_array($secrets, undef, $theirs), '{"password": "pike"}',
			"its secret stays his: INSERT of its id, $options$conflict");
		$admin->do(q(SELECT dispatch.alter_backend('default', '{"password": "pike"}')))
		  if $admin->selectrow_array(q(SELECT count(*) FROM dispatch.backends
				WHERE name = 'default'));
		error_of($admin, q(UPDATE dispatch.backends SET name = 'default' WHERE name = 'taken'));
	}
}
isnt(error_of($mallory, $_), '', $_) foreach
  q(UPDATE dispatch.backends SET options = '{"host": "10.0.0.1"}' WHERE name = 'default'),
  q(UPDATE dispatch.backends SET options = '{"host": "10.0.0.1"}',
		owner = 'mallory' WHERE name = 'default'),
  q(UPDATE dispatch.backends SET id = 1000 WHERE name = 'default'),
  q(UPDATE dispatch.backends SET identity = '' WHERE name = 'default'),
  q(UPDATE dispatch.backends SET transport = 'notify' WHERE name = 'default'),
  q(SELECT dispatch.alter_backend('default', '{"port": 1}')),
  q(INSERT INTO dispatch.backends (name, transport, identity) VALUES ('x', 'notify', 'another/1'));
my $next = $admin->selectrow_array('SELECT last_value + 3 FROM dispatch.backend_id_seq');
error_of($mallory, qq(INSERT INTO dispatch.backends (id, name, transport, enabled, identity)
	VALUES ($next, 'ahead', 'notify', false, dispatch.identity())));
is(join('', map { error_of($admin, qq(SELECT dispatch.create_backend('next$_',
	'notify'))) } 1 .. 4),
	'', 'a number that he has chosen is in nobody\'s way');

$node->stop;
log_ok($node, qr/WARNING:(?!.*WRONGTYPE)/);
done_testing();
