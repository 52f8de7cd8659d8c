#
# Bench::Load: publishers, by pgbench.
#
# The SQL is sent as prepared statements, as drivers do, and its payload as a
# parameter: so neither side spends its time on parsing.
#
package Bench::Load;

use strict;
use warnings;

use Carp;
use Exporter 'import';
use File::Temp ();
use IPC::Run;

use Bench::Server;

our @EXPORT = qw(
  publish_script insert_script numbered_script
  pgbench_start pgbench_end pgbench_tps);

# The key of an event, and what pgbench must do before.
my %KEYS = (
	none => [ '', 'NULL' ],
	one => [ '', q('hot') ],
	many => [ "\\set k random(1, 1000000000)\n", ':k ::text' ]);

# publish_script(none|one|many): one event of the payload, one transaction.
sub publish_script
{
	my ($keys) = @_;
	my ($before, $key) = @{ $KEYS{ $keys // 'none' } };

	return $before
	  . qq{SELECT dispatch.publish('order.created', 'shop', :payload ::jsonb, key => $key);\n};
}

# The same row without us.
sub insert_script
{
	my ($keys) = @_;
	my ($before, $key) = @{ $KEYS{ $keys // 'none' } };

	return $before
	  . q{INSERT INTO plain (xid, id, created_at, event_id, backend_id, segment, event_type,}
	  . q{ source, key, data) VALUES (pg_current_xact_id(), nextval('plain_id_seq'),}
	  . q{ clock_timestamp(), gen_random_uuid(), 1, 0, 'order.created', 'shop',}
	  . qq{ $key, :payload ::jsonb);\n};
}

# Each client has a key of its own, and numbers its events.
sub numbered_script
{
	return "\\set n :n + 1\n"
	  . q{SELECT dispatch.publish('order.created', 'shop',}
	  . q{ jsonb_build_object('client', :client_id ::int, 'n', :n ::int),}
	  . qq{ key => 'client ' || :client_id ::int);\n};
}

# pgbench_start(node, script, payload => bytes, clients => n, seconds => n, rate
# => transactions a second, protocol => prepared, synchronous_commit => off):
# a pgbench that runs.
sub pgbench_start
{
	my ($node, $script, %options) = @_;
	my $clients = $options{clients} // 1;
	my $file = File::Temp->new;
	my %load = (output => '', file => $file);
	my $commit = $options{synchronous_commit} // 'off';

	print $file $script;
	close $file;
	local $ENV{PGOPTIONS} = "-c synchronous_commit=$commit";
	$load{run} = IPC::Run::start(
		[
			'pgbench', '-n', '-M', $options{protocol} // 'prepared',
			'-h', $node->host, '-p', $node->port, '-f', $file->filename,
			'-c', $clients, '-j', $clients > 1 ? 2 : 1, '-T', $options{seconds},
			'-D', 'n=0', '-D', 'payload=' . payload($options{payload} // 100),
			defined $options{rate} ? ('-R', $options{rate}) : (), 'postgres'
		],
		'<', \undef, '>&', \$load{output});
	return \%load;
}

# Waits for it; returns transactions a second and how many there were.
sub pgbench_end
{
	my ($load) = @_;

	IPC::Run::finish($load->{run}) or croak "pgbench: $load->{output}";
	my ($tps) = $load->{output} =~ /^tps = ([\d.]+)/m or croak "pgbench: $load->{output}";
	my ($count) = $load->{output} =~ /^number of transactions actually processed: (\d+)/m;

	return wantarray ? ($tps, $count) : $tps;
}

sub pgbench_tps
{
	my ($node, $script, %options) = @_;

	return scalar pgbench_end(pgbench_start($node, $script, %options));
}

1;
