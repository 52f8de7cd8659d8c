# The canary: a password goes through all that a backend may live through, and is
# found nowhere but where it was typed, in dispatch.backend_secrets, and at the
# broker.

use strict;
use warnings;

use File::Find;
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep);

use DispatchTest;
use PostgreSQL::Test::Utils;

# Passwords that were set one after the other, and one that was never right
my @CANARIES = ('Kieselguhr-7f3a', 'Guillemot-91cc', 'Zwiebel"\\%s%n-4d', 'Ornithop-55e0');
my $ANY = qr/Kieselguhr|Guillemot|Zwiebel|Ornithop/;

my $redis = RedisServer->new;
my $node = new_cluster('secrets', q(
	log_statement = none
	log_min_error_statement = panic
	log_min_messages = debug5
	log_parameter_max_length_on_error = 0
	log_parameter_max_length = 0
	dispatch.retry_delay = '100ms'
	shared_preload_libraries = 'pg_stat_statements,auto_explain,dispatch'
	auto_explain.log_min_duration = 0
	auto_explain.log_nested_statements = on
	auto_explain.log_verbose = on
	pg_stat_statements.track = all
	log_error_verbosity = verbose));
# What sessions type is not explained, only what our processes do.
$node->safe_psql('postgres', qq(CREATE ROLE watcher LOGIN; CREATE ROLE operator LOGIN;)
	  . join ';', map { "ALTER ROLE $_ SET auto_explain.log_min_duration = -1" }
	  'watcher', 'operator');
$ENV{PGOPTIONS} = '-c auto_explain.log_min_duration=-1';
my $session = session($node);

sub set_password { return $redis->cli('ACL', 'SETUSER', 'alice', 'reset', 'on', ">$_[0]", '~*',
	'+@all'); }
sub json { return JSON::PP->new->allow_nonref->canonical->encode($_[0]); }

$session->do('CREATE EXTENSION dispatch; CREATE EXTENSION pg_stat_statements');
$session->do(q(SELECT dispatch.grant_monitor('watcher'), dispatch.grant_operate('operator')));

# ---- Its life

my %address = (host => $redis->host, port => 0 + $redis->port, username => 'alice');
sub flush_is_ok
{
	my ($what) = @_;

	ok($session->selectrow_array("SELECT dispatch.flush('20 s')"), "delivered: $what");
}
sub publish { $session->do(q(SELECT dispatch.publish('t', 's', '1', key => 'k'))); }
sub check
{
	return $session->selectrow_array(q(SELECT detail FROM dispatch.check_backend('default')));
}

# Set by create_backend(), by alter_backend(), by UPDATE
set_password($CANARIES[0]);
$session->do('SELECT dispatch.create_backend(?, ?, ?)', undef, 'default', 'redis',
	json({ %address, password => $CANARIES[0] }));
publish();
flush_is_ok('create_backend()');
is(check(), 'connected', 'check_backend() connects');
set_password($CANARIES[1]);
$redis->restart;				# so that the connection is a new one
set_password($CANARIES[1]);
publish();
wait_for_state($node, 'default', 'configuration error');
like(check(), qr/WRONGPASS/, 'a password that is wrong by now');
$session->do('SELECT dispatch.alter_backend(?, ?)', undef, 'default',
	json({ password => $CANARIES[1] }));
flush_is_ok('alter_backend()');
set_password($CANARIES[2]);
$redis->stop;
$session->do(q(UPDATE dispatch.backends SET options = options || ? WHERE name = 'default'), undef,
	json({ password => $CANARIES[2] }));
publish();
wait_for_state($node, 'default', 'outage');
$redis->start;
set_password($CANARIES[2]);
flush_is_ok('UPDATE, and an outage');

# Errors of every kind that can meet a row with a password
my $wrong = json({ %address, password => $CANARIES[3] });
foreach (
	[ q(SELECT dispatch.create_backend('default', 'redis', ?)), $wrong ],
	[ q(SELECT dispatch.create_backend('x', 'nowhere', ?)), $wrong ],
	[ q(SELECT dispatch.create_backend('x', 'notify', ?)), $wrong ],
	[ q(SELECT dispatch.create_backend('x', 'redis', ?)), json([ $CANARIES[3] ]) ],
	[ q(SELECT dispatch.create_backend('x', 'redis', ?)), json({ password => [ $CANARIES[3] ] }) ],
	[ q(SELECT dispatch.create_backend('x', 'redis', ?)),
		json({ password => { $CANARIES[3] => 1 } }) ],
	[ q(SELECT dispatch.create_backend('x', 'redis', ?)), json({ password => $CANARIES[3],
		port => 0 }) ],
	[ q(SELECT dispatch.alter_backend('nowhere', ?)), $wrong ],
	[ q(SELECT dispatch.alter_backend('default', ?::jsonb #>> '{password}')), $wrong, 'json' ],
	[ q(INSERT INTO dispatch.backends (name, transport, options, ordering) VALUES ('x', 'redis',
		?, 'no')),
		$wrong ],
	[ q(INSERT INTO dispatch.backends (name, transport, options, enabled) VALUES ('x', 'redis',
		?, NULL)),
		$wrong ],
	[ q(INSERT INTO dispatch.backends (name, transport, options, batch_size) VALUES ('x',
		'redis', ?, 0)),
		$wrong ],
	[ q(UPDATE dispatch.backends SET ordering = 'no', options = options || ?), $wrong ],
	[ q(SELECT dispatch.publish('t', 's', '1', options => ?)), $wrong ])
{
	my ($sql, $value, $typed) = @$_;

	ok(!eval { $session->do($sql, undef, $value); 1 }, "refused: $sql");
	# A value that is no JSON at all is the caller's own cast.
	unlike($@, $ANY, 'and the password is not repeated') unless $typed;
}

# A password that is wrong, a server that repeats it, and one that talks nonsense
$session->do('SELECT dispatch.alter_backend(?, ?)', undef, 'default',
	json({ password => $CANARIES[3] }));
publish();
wait_for_state($node, 'default', 'configuration error');
like(check(), qr/WRONGPASS/, 'a wrong password');
my $echo = IO::Socket::INET->new(Listen => 9, LocalAddr => '127.0.0.1',
	Proto => 'tcp') or die "listen: $!";
my $parrot = fork // die "fork: $!";
if ($parrot == 0)
{
	$SIG{TERM} = 'DEFAULT';
	while (my $client = $echo->accept)
	{
		sysread $client, my $said, 10000;
		$said =~ s/\s+/ /g;
		syswrite $client, "-ERR unknown command 'AUTH', with args beginning with: $said\r\n" x 5;
	}
	POSIX::_exit(0);
}
END { kill 'KILL', $parrot if $parrot }
$session->do('SELECT dispatch.alter_backend(?, ?)', undef, 'default',
	json({ port => $echo->sockport }));
wait_until(sub { check() !~ /WRONGPASS/ }, 'the other server', 10);
isnt(check(), 'connected', 'a server that repeats what it does not understand: ' . check());
sleep 1;
my $told = $session->selectrow_array('SELECT last_error FROM dispatch.backend_status');
unlike($told . check(), $ANY, 'it is not told on');
$session->do('SELECT dispatch.alter_backend(?, ?)', undef, 'default',
	json({ %address, password => $CANARIES[2] }));
flush_is_ok('after all this');

# ---- The search

# As text, in all rows of all tables and views that there are
sub search_database
{
	my ($database, $user) = @_;
	local $ENV{PGOPTIONS} = $user ? '' : $ENV{PGOPTIONS};
	my $dbh = DBI->connect('dbi:Pg:' . $node->connstr($database) . ($user ? " user=$user" : ''),
		undef, undef, { RaiseError => 1, PrintError => 0 });
	my @found;

	foreach my $table (@{ $dbh->selectcol_arrayref(
		q(SELECT c.oid::regclass FROM pg_class AS c
			WHERE c.relkind IN ('r', 'v', 'm', 'p', 't')
				AND c.oid <> 'dispatch.backend_secrets'::regclass
				AND c.relname NOT LIKE 'pg_toast%' AND has_table_privilege(c.oid, 'SELECT'))) })
	{
		my $hits = eval { $dbh->selectrow_array(
			"SELECT count(*) FROM $table
				AS t WHERE t::text ~ 'Kieselguhr|Guillemot|Zwiebel|Ornithop'
				AND t::text !~ 'pg_class AS c'") };

		push @found, $table if $hits;
	}
	return @found;
}
ok(!eval { session($node)->do('SET ROLE watcher; TABLE dispatch.backend_secrets'); 1 },
	'a monitor cannot read the secrets');
$session->disconnect;			# what it typed was its own to see
is_deeply([ search_database('postgres') ], [], 'no table or view has it');
is_deeply([ search_database('postgres', $_) ], [],
	"nor one that $_ can see") foreach qw(watcher operator);
is($node->safe_psql('postgres', q(SELECT count(*) FROM dispatch.backend_secrets
	WHERE options::text ~ 'Zwiebel')), 1, 'the search could find it: the secrets have it');

my @texts = ($node->logfile, $redis->log_file);
find(sub { push @texts, $File::Find::name if -f && -T && -s _ < 10_000_000 }, $node->data_dir);
my $dir = PostgreSQL::Test::Utils::tempdir('dumps');
$node->command_ok([ 'pg_dump', '-f', "$dir/dump.sql", $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'pg_dumpall', '-f', "$dir/all.sql", '-d', $node->connstr('postgres') ],
	'pg_dumpall');
push @texts, "$dir/dump.sql", "$dir/all.sql";
cmp_ok(scalar(@texts), '>', 10, 'there are texts to search');
foreach my $file (@texts)
{
	my @hits = grep { $_ =~ $ANY } split /\n/, slurp_file($file);

	next unless @hits;
	is($hits[0], '', "$file: " . @hits . ' hits');
}
like(slurp_file($node->logfile), qr/WRONGPASS/, 'the log could have had it');
cmp_ok(scalar(log_lines($node, qr/\[\d+\] LOG: .*duration: .* plan:/)), '>', 10,
	'so could the plans of our processes');
foreach my $pid (process_ids($node, 'worker'), process_ids($node, 'manager'))
{
	unlike(slurp_file("/proc/$pid/$_"), $ANY, "nor has /proc/$pid/$_") foreach qw(cmdline environ);
}

$node->stop;
log_ok($node, qr/FATAL:(?!.*due to administrator command)/);
done_testing();
