# Publisher.pm: a client process of a stress run.
#
# Carries out plans against the server, one after the other, and keeps a ledger
# of its own: what it is about to do, before BEGIN; then "ok" once COMMIT was
# answered, "fail" for what was or must have been rolled back, "info" where the
# connection went away during COMMIT: then only the database knows.  The ledger
# is one write() a line, so it is complete up to the point where the process
# ends, whatever ends it.
#
# Every publish() goes together with a row in ledger.events in the same
# statement: after recovery, these rows are what has been committed.

package Ledger::Publisher;

use strict;
use warnings;

use DBD::Pg ();
use DBI ();
use Fcntl qw(O_APPEND O_CREAT O_WRONLY);
use JSON::PP ();
use Ledger::Plan;
use Time::HiRes qw(sleep time);

# Longer than a restart of the server with its recovery.
my $CONNECT_SECONDS = 90;

# Errors that an application meets when others are active or an administrator
# is: serialization failure, lock timeout, shutdown and crash.
my $EXPECTED = qr/^(40001|55P03|57P01|57P02|57P03)$/;

my $PUT = <<'SQL';
WITH published AS MATERIALIZED (
	SELECT dispatch.publish(%s, %s, %s::jsonb, backend => %s, key => %s, subject => %s) AS id
)
INSERT INTO ledger.events (run, client, txn, seq, key, n, event_id)
SELECT %s, %s, %s, %s, %s, %s, id FROM published
SQL

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

# args: run, client, seed, async, dsn, backend, file, think (seconds at most
# between two transactions)
sub new
{
	my ($class, %args) = @_;
	my $self = bless { %args, pending => [], put => sprintf($PUT, ('?') x 12) }, $class;

	$self->{plans} = Ledger::Plan->new(map { $_ => $args{$_} } qw(seed client async));
	sysopen $self->{out}, $args{file}, O_WRONLY | O_APPEND | O_CREAT or die "$args{file}: $!\n";
	return $self;
}

# Publishes until $$stop is true, or the process that started it is gone; then
# decides what it has left prepared.
sub run
{
	my ($self, $stop) = @_;
	my $parent = getppid;

	while (!$$stop && getppid == $parent)
	{
		my @prepared = map { $_->{plan} } @{ $self->{pending} };
		my @events = grep { defined $_->{key} } map { @{ $_->{events} } } @prepared;
		my %busy = map { $_->{key} => 1 } @events;
		my $plan = $self->{plans}->plan_next(\%busy);

		# Whoever waits for a lock must not hold one that others wait for.
		foreach my $pending (@{ $plan->{lock} } ? @{ $self->{pending} } : ())
		{
			$pending->{due} = 0 if @{ $pending->{plan}{lock} };
		}
		$self->_settle_due(time);
		$self->_transact($plan);
		sleep rand($self->{think});
	}

	my $deadline = time + $CONNECT_SECONDS;
	while (@{ $self->{pending} } && time < $deadline)
	{
		$self->_settle_due($deadline);
		sleep 0.05 if @{ $self->{pending} };
	}
	$self->_note('error', text => 'prepared transactions could not be decided')
	  if @{ $self->{pending} };
	$_->disconnect foreach grep { $_ } @$self{qw(main other)};
}

sub _note
{
	my ($self, $what, %fields) = @_;
	my $line = $json->encode({ what => $what, client => $self->{client}, %fields }) . "\n";
	my $written = syswrite $self->{out}, $line;

	die "$self->{file}: $!\n" if !defined $written || $written != length $line;
}

# A plan as it goes to the ledger: the payload is represented by its hash.
sub _note_plan
{
	my ($self, $plan) = @_;
	my %line = map { $_ => $plan->{$_} } qw(txn kind end fate async isolation);

	foreach my $event (@{ $plan->{events} })
	{
		my %copy = %$event;

		delete $copy{payload};
		push @{ $line{events} }, \%copy;
	}
	$self->_note('plan', %line);
}

#
# Sessions: "main" publishes, "other" decides prepared transactions.
#

# After a lost connection the server process behind it may still be busy with
# the COMMIT: nothing of this client goes on before it is gone, else the order
# of its own keys would be unknown.
sub _session
{
	my ($self, $name) = @_;
	my $deadline = time + $CONNECT_SECONDS;
	my ($dbh, $error);

	return $self->{$name} if $self->{$name};
	while (time < $deadline)
	{
		$dbh = eval { $self->_connect("ledger-$self->{client}-$name") };
		$error = $@;
		return $self->{$name} = $dbh if $dbh;
		sleep 0.1;
	}
	$self->_note('error', text => "cannot connect: $error");
	die "client $self->{client} cannot connect: $error";
}

sub _connect
{
	my ($self, $application) = @_;
	my $dbh = DBI->connect(
		"dbi:Pg:$self->{dsn}", undef, undef,
		{ RaiseError => 1, PrintError => 0, pg_enable_utf8 => 1,
			HandleError => sub { $self->{sqlstate} = $_[1]->state; return 0 } });
	my $others = 1;

	$dbh->do("SET client_encoding = 'UTF8'");
	$dbh->do("SET client_min_messages = 'error'");
	$dbh->do("SET lock_timeout = '5s'");
	$dbh->do("SET application_name = '$application'");
	while ($others)
	{
		($others) = $dbh->selectrow_array(
			'SELECT count(*) - 1 FROM pg_stat_activity WHERE application_name = ?',
			undef, $application);
		sleep 0.05 if $others;
	}
	return $dbh;
}

# Is the session still there after an error?  If not, it is forgotten.
sub _survives
{
	my ($self, $name) = @_;
	my $dbh = $self->{$name};

	if (eval { $dbh->ping })
	{
		# No transaction is left open, whatever failed.
		return 1 if eval { $dbh->do('ROLLBACK'); 1 };
	}
	eval { $dbh->disconnect };
	$self->{$name} = undef;
	$self->_note('lost', session => $name);
	return 0;
}

#
# Transactions
#

sub _transact
{
	my ($self, $plan) = @_;
	my $dbh = $self->_session('main');
	my ($error, $state, $survives);

	$self->_note_plan($plan);
	$self->{phase} = 'body';
	return if eval { $self->_execute($dbh, $plan); 1 };

	($error, $state) = ($@, $self->{sqlstate} // '');
	$survives = $self->_survives('main');
	$self->_note('error', txn => $plan->{txn}, state => $state, text => $error)
	  if $survives && $state !~ $EXPECTED;
	if (!$survives && $self->{phase} eq 'prepare')
	{
		$self->_expect($plan);
	}
	else
	{
		my $unknown = !$survives && $self->{phase} eq 'commit';

		$self->_note($unknown ? 'info' : 'fail', txn => $plan->{txn});
	}
}

sub _execute
{
	my ($self, $dbh, $plan) = @_;

	$dbh->do("BEGIN ISOLATION LEVEL $plan->{isolation}");
	$dbh->do('SET LOCAL synchronous_commit = off') if $plan->{async};
	# In one order for everybody, and outside of any subtransaction.
	$dbh->do(
		'SELECT FROM ledger.counters WHERE run = ? AND key = ANY (?) ORDER BY key FOR UPDATE',
		undef, $self->{run}, $plan->{lock})
	  if @{ $plan->{lock} };

	if ($plan->{kind} eq 'do')
	{
		$dbh->do('DO ' . $dbh->quote($self->_block($dbh, $plan, $plan->{steps}, 'release')));
	}
	else
	{
		$self->_step($dbh, $plan, $_) foreach @{ $plan->{steps} };
	}

	$self->{phase} = $plan->{end};
	if ($plan->{end} eq 'prepare')
	{
		$dbh->do("PREPARE TRANSACTION '" . $self->_gid($plan) . "'");
		$self->_expect($plan);
	}
	else
	{
		$dbh->do(uc $plan->{end});
		$self->_note($plan->{end} eq 'commit' ? 'ok' : 'fail', txn => $plan->{txn});
	}
}

sub _step
{
	my ($self, $dbh, $plan, $step) = @_;

	if ($step->{publish})
	{
		my $event = $step->{publish};

		# The row lock taken here makes the order of commits that of n.
		($event->{n}) = $dbh->selectrow_array(
			'UPDATE ledger.counters SET n = n + 1 WHERE run = ? AND key = ? RETURNING n',
			undef, $self->{run}, $event->{key})
		  if $event->{shared};
		$dbh->prepare_cached($self->{put})->execute($self->_arguments($plan, $event));
	}
	elsif ($step->{pause})
	{
		sleep $step->{pause};
	}
	else
	{
		my $name = 's' . ++$self->{savepoints};

		$dbh->do("SAVEPOINT $name");
		$self->_step($dbh, $plan, $_) foreach @{ $step->{sub} };
		$dbh->do($step->{fate} eq 'rollback' ? "ROLLBACK TO $name" : "RELEASE $name");
	}
}

# What fills $PUT, in its order.
sub _arguments
{
	my ($self, $plan, $event) = @_;
	my ($key, $n) = @$event{qw(key n)};
	my $head = JSON::PP->new->canonical->encode(
		{ run => $self->{run}, client => $self->{client}, txn => $plan->{txn},
			seq => $event->{seq}, key => $key, n => defined $n ? 0 + $n : undef });
	my $data = substr($head, 0, -1) . ", \"payload\": $event->{payload}}";

	return (
		@$event{qw(type source)}, $data, $self->{backend}, $key, $event->{subject},
		$self->{run}, $self->{client}, $plan->{txn}, $event->{seq}, $key, $n);
}

# A plpgsql block; the handler of an inner one swallows what it raises.
sub _block
{
	my ($self, $dbh, $plan, $steps, $fate) = @_;
	my $text = "BEGIN\n";

	foreach my $step (@$steps)
	{
		if ($step->{publish})
		{
			my @literals = map { $dbh->quote($_) } $self->_arguments($plan, $step->{publish});

			$text .= sprintf($PUT, @literals) . ";\n";
		}
		else
		{
			$text .= $self->_block($dbh, $plan, $step->{sub}, $step->{fate}) . ";\n";
		}
	}
	$text .= "RAISE EXCEPTION 'undone';\n" if $fate eq 'rollback';
	return "${text}EXCEPTION WHEN raise_exception THEN NULL;\nEND";
}

#
# Prepared transactions
#

sub _gid
{
	my ($self, $plan) = @_;

	return "ledger $self->{run} $self->{client} $plan->{txn}";
}

# To be decided later, maybe after a restart of the server; seldom much later if
# others wait for the locks that it holds.
sub _expect
{
	my ($self, $plan) = @_;
	my $soon = @{ $plan->{lock} } ? 0.95 : 0.7;

	push @{ $self->{pending} },
	  { plan => $plan, due => time + (rand() < $soon ? rand(0.1) : rand(4)) };
}

sub _settle_due
{
	my ($self, $now) = @_;

	$self->{pending} = [ grep { $_->{due} > $now || !$self->_settle($_) } @{ $self->{pending} } ];
}

# Decides one; false if it must be tried again.
sub _settle
{
	my ($self, $pending) = @_;
	my $plan = $pending->{plan};
	my $dbh = $self->_session('other');
	my ($error, $state, $survives);

	if (eval { $dbh->do(uc($plan->{fate}) . " PREPARED '" . $self->_gid($plan) . "'"); 1 })
	{
		$self->_note($plan->{fate} eq 'commit' ? 'ok' : 'fail', txn => $plan->{txn});
		return 1;
	}
	($error, $state) = ($@, $self->{sqlstate} // '');
	$survives = $self->_survives('other');
	if ($survives && $state eq '42704')
	{
		# Never prepared, or decided by an attempt whose reply was lost.
		$self->_note($plan->{fate} eq 'commit' ? 'info' : 'fail', txn => $plan->{txn});
		return 1;
	}
	$self->_note('error', txn => $plan->{txn}, state => $state, text => $error)
	  if $survives && $state !~ $EXPECTED;
	return 0;
}

1;
