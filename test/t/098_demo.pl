# make demo: events are shown on their way to each broker and to LISTEN, and
# nothing is left of it.

use strict;
use warnings;

use Cwd qw(getcwd);
use IPC::Run;
use Test::More;

use DispatchTest;
use PostgreSQL::Test::Utils;

my $SECONDS = 300;
my $EVENT = qr/\{"specversion"[^\n]*"order": 1, "total": 99\.90\}\}/;

# What only this broker's client prints of the first event
my %SHOWN = (
	redis => qr/^\d+-\d+\nevent_id\n.*^cloud_event\n$EVENT/ms,
	kafka => qr/^partition \d, offset 0, timestamp \d+\nkey:.*^value:   $EVENT/ms,
	rabbitmq => qr/^routing key   order\.created\n.*^body +$EVENT/ms);

my $TIME = qr/00:00:\d\d\.\d+/;
my $sources = getcwd();

# Processes that work below a directory
sub left_in
{
	my ($dir) = @_;

	return grep { index((readlink("$_/cwd") // '') . '/', "$dir/") == 0 } glob '/proc/[0-9]*';
}

# run_in(directory, variables of the environment, command): as make runs it;
# returns its output
sub run_in
{
	my ($dir, $environment, @command) = @_;
	my %environment = (PATH => $ENV{PATH}, LC_ALL => 'C.UTF-8',
		DISPATCH_CACHE => $ENV{DISPATCH_CACHE} // '', %$environment);
	my ($out, $err) = ('', '');

	ok( IPC::Run::run(
			[ 'timeout', $SECONDS, 'env', '-i',
				(map { "$_=$environment{$_}" } sort keys %environment), @command ],
			'<', \undef, '>', \$out, '2>', \$err, init => sub { chdir $dir }),
		"$environment{DEMO}: exit status 0") or diag($out, $err);
	return $out;
}

sub shown_ok
{
	my ($broker, $out) = @_;

	like($out, $SHOWN{$broker}, "$broker: the event, as a client of the broker shows it");
	is(scalar(my @rolled_back = $out =~ /"specversion"[^\n]*"order": 2/g), 0,
		"$broker: and not the one that was rolled back");
	like($out, qr/^Asynchronous notification "dispatch" with payload "\{.*"order\.shipped"/m,
		"$broker: what LISTEN sees");
	my %status = map { my %row = /^(\w+) +\| (.*)$/mg; ($row{name} // '') => \%row }
	  split /^-\[ RECORD.*$/m, $out;
	foreach ([ default => $broker, 201 ], [ local => 'notify', 1 ])
	{
		my ($name, @expected) = @$_;

		is("@{ $status{$name} }{qw(transport published state pending failed)}",
			"@expected running 0 0", "$broker: the status of $name");
	}
	like($out, qr/^ default \| $broker +\| $TIME \| $TIME \| $TIME$/m, "$broker: the latency");
	return;
}

# The whole of it, which builds dispatch
my $dir = PostgreSQL::Test::Utils::tempdir('demo');
shown_ok('redis', run_in(
	$sources, { HOME => $dir, TMPDIR => $dir, DEMO => 'redis' }, 'bash', 'test/run.sh', 'demo'));
is(join(' ', left_in($dir)), '', 'no process is left');
is(join(' ', glob "$dir/*"), '', 'no file is left');

# The script alone, with what is built: what it starts is ended here, as
# test/run.sh does.
foreach my $broker ('kafka', 'rabbitmq')
{
	my $work = PostgreSQL::Test::Utils::tempdir("demo_$broker");

	# For want of a Kafka, test/check.sh says what is not run.
	next if $broker eq 'kafka' && !-e "$ENV{DISPATCH_CACHE}/kafka/ready";
	mkdir "$work/tmp" or die "$work/tmp: $!";
	system('cp', '-a', $sources, "$work/src") == 0 or die 'cp';
	my $out = run_in("$work/src",
		{ HOME => $work, TMPDIR => "$work/tmp", WORK => $work, DEMO => $broker },
		'bash', 'test/demo.sh');
	my @left = left_in($work);
	kill 'KILL', map { m{(\d+)$} } @left;
	cmp_ok(scalar @left, '>', 1, "$broker: its servers were there");
	shown_ok($broker, $out);
}
done_testing();
