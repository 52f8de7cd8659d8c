# Who may connect, as whom and how, is set for the sake of sessions: workers are
# started again and deliver, whatever it is.

use strict;
use warnings;

use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;

my $redis = RedisServer->new;
my $node = new_cluster('connections', "max_connections = 12\nsuperuser_reserved_connections = 1");
my $admin = session($node);
my $session;
my $n = 0;

$admin->do('CREATE ROLE boss LOGIN SUPERUSER');
$admin->do('CREATE ROLE app');
$admin->do('CREATE DATABASE app');
$session = session($node, 'app');
$session->do('CREATE EXTENSION dispatch');
create_redis_backend($node, $redis, database => 'app');
my $superuser = $session->selectrow_array('SELECT current_user');
# He is neither renamed nor locked out himself.
my $boss = DBI->connect('dbi:Pg:' . $node->connstr('postgres') . ' user=boss',
	undef, undef, { RaiseError => 1, PrintError => 0 });

# Ends such processes, and waits for that.
sub end_all
{
	my @types = map { "dispatch $_" } @_;

	foreach my $pid (@{ $boss->selectcol_arrayref(
		'SELECT pid FROM pg_stat_activity WHERE backend_type = ANY (?)', undef, \@types) })
	{
		$boss->do('SELECT pg_terminate_backend(?)', undef, $pid);
		wait_until(sub { !kill 0, $pid }, 'the end of a process');
	}
	return;
}

# A worker is ended (and a manager), and another delivers what is published.
sub works_ok
{
	my ($what, @others) = @_;
	my $position = log_position($node);

	# One that ends again and again is started later and later.
	$session->do(q(SELECT dispatch.resume_backend('default')));
	end_all('worker', @others);
	$session->do(q(SELECT dispatch.publish('t', 's', to_jsonb(?::int))), undef, ++$n);
	ok(eval { wait_until(sub { (stream_data($redis))[-1] == $n }, $what, 30); 1 }, $what)
	  or diag($@);
	is_deeply([ stream_data($redis) ], [ 1 .. $n ], "$what: in order, once");
	is_deeply([ log_lines($node, qr/\] (?:WARNING|ERROR|PANIC):/, $position) ], [],
		"$what: without a complaint");
	return;
}

works_ok('as it is');

# ---- What sessions are to be like

my %SETTINGS = (
	role => 'app',
	session_preload_libraries => 'missing',
	local_preload_libraries => 'missing',
	work_mem => '64kB',
	jit => 'on',
	jit_above_cost => '0',
	max_stack_depth => '100kB',
	log_min_duration_statement => '0',
	debug_print_plan => 'on',
	backslash_quote => 'off',
	xmlbinary => 'hex',
	temp_file_limit => '0',
	default_table_access_method => 'heap',
	lc_messages => 'C',
	lc_numeric => 'C');
foreach my $whom ('DATABASE app', "ROLE $superuser", "ROLE $superuser IN DATABASE app")
{
	$boss->do("ALTER $whom SET $_ = '$SETTINGS{$_}'") foreach sort keys %SETTINGS;
	works_ok("settings of $whom", 'manager');
	$boss->do("ALTER $whom RESET ALL");
}

# ---- Who may connect

foreach my $row (
	[ 'a database with no connections',
		'ALTER DATABASE app CONNECTION LIMIT 0', 'ALTER DATABASE app CONNECTION LIMIT -1' ],
	[ 'a superuser with no connections',
		"ALTER ROLE $superuser CONNECTION LIMIT 0", "ALTER ROLE $superuser CONNECTION LIMIT -1" ],
	[ 'a superuser who may not log in',
		"ALTER ROLE $superuser NOLOGIN", "ALTER ROLE $superuser LOGIN" ],
	[ 'a superuser who has expired',
		"ALTER ROLE $superuser VALID UNTIL '2000-01-01'",
		"ALTER ROLE $superuser VALID UNTIL 'infinity'" ],
	[ 'a superuser of another name',
		"ALTER ROLE $superuser RENAME TO renamed", "ALTER ROLE renamed RENAME TO $superuser" ])
{
	my ($what, $do, $undo) = @$row;

	$boss->do($do);
	works_ok($what);
	$boss->do($undo);
}

my $hba = $node->data_dir . '/pg_hba.conf';
rename $hba, "$hba.old" or die "rename: $!\n";
$node->append_conf('pg_hba.conf', 'local all all reject');
$node->reload;
ok(!eval { session($node); 1 }, 'nobody is let in');
works_ok('pg_hba.conf that lets nobody in');
rename "$hba.old", $hba or die "rename: $!\n";
$node->reload;

my @crowd;
while (my $one = eval { session($node) }) { push @crowd, $one }
cmp_ok(scalar(@crowd), '>', 3, 'all connections are taken');
works_ok('no connection left');
$_->disconnect foreach @crowd;

# ---- No connections at all: then there is no worker, and events wait

$boss->do('ALTER DATABASE app ALLOW_CONNECTIONS false');
end_all('manager', 'worker');
$session->do(q(SELECT dispatch.publish('t', 's', to_jsonb(?::int))), undef, ++$n);
my $position = log_position($node);
sleep 2;
is(scalar(stream_data($redis)), $n - 1, 'no connections allowed: events wait');
cmp_ok(scalar(log_lines($node, qr/dispatch/, $position)), '<', 10, 'and nobody tries all the time');
$boss->do('ALTER DATABASE app ALLOW_CONNECTIONS true');
works_ok('connections allowed again');

$node->stop;
log_ok($node, qr/PANIC/);
done_testing();
