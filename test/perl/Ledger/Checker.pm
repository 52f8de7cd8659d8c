# Checker.pm: what was delivered, against what was committed.
#
# Three accounts of the same run are compared: the ledgers of the clients (what
# each was about to do, and how it believes it went), the rows of ledger.events
# after recovery (what has been committed: the judge where a client cannot
# know), and the stream.  This file only computes: it connects to nothing, so a
# test can feed it accounts with every defect that it has to find.

package Ledger::Checker;

use strict;
use warnings;

use JSON::PP ();
use Ledger::Plan;

# The lists of a report: each must be empty.
our @DEFECTS = (
	[ database => 'the database agrees with its clients about what was committed' ],
	[ lost => 'every committed event was delivered' ],
	[ phantom => 'nothing was delivered that is not in the database' ],
	[ rolled_back => 'nothing was delivered of what was rolled back' ],
	[ malformed => 'every entry has the fields and the attributes it should have' ],
	[ altered => 'no event was altered' ],
	[ identity => 'every event has the one id that publish() returned' ],
	[ order => 'events of a key came in the order of their commits' ],
	[ error => 'no client met an error that it should not' ]);

my @FIELDS = qw(cloud_event event_id event_type source timestamp);

my $json = JSON::PP->new->utf8->allow_nonref;

# Reports on a run.
#	ledger: lines of the clients' ledgers, each client's in order
#	committed: rows of ledger.events of the run
#	stream: entries of the whole stream, each a hash of fields as bytes
#	run: its name
#	crashes: true if the server has crashed: then a transaction without
#		synchronous_commit may be gone although its client saw the commit
#	strict: true if copies must be in order, too: of a key there is only one event
#		under way, so what comes again comes before the next one
# Returns a hash: a list of sentences for each of @DEFECTS, and the counts
# transactions, events, entries, duplicates, histogram (copies => events),
# kinds (kind => outcome => transactions), sessions_lost, async_lost.
sub check_run
{
	my (%args) = @_;
	my %lists = map { $_->[0] => [] } @DEFECTS;
	my $self = bless {
		run => $args{run},
		crashes => $args{crashes},
		strict => $args{strict},
		plans => {},						# client/txn => plan
		events => {},						# client/txn/seq => event of a plan
		committed => {},					# client/txn/seq => row
		report => { %lists, sessions_lost => 0, async_lost => 0, kinds => {} } }, __PACKAGE__;

	$self->{committed}{"$_->{client}/$_->{txn}/$_->{seq}"} = $_ foreach @{ $args{committed} };
	$self->_read_ledger($args{ledger});
	$self->_compare_database;
	$self->_read_stream($args{stream});
	return $self->{report};
}

sub _complain
{
	my ($self, $defect, $format, @args) = @_;

	push @{ $self->{report}{$defect} }, sprintf($format, map { $_ // '(none)' } @args);
	return;
}

sub _read_ledger
{
	my ($self, $lines) = @_;
	my $report = $self->{report};

	foreach my $line (@$lines)
	{
		my $what = $line->{what};
		my $id = "$line->{client}/" . ($line->{txn} // '');

		if ($what eq 'plan')
		{
			# A client that came to its end in between leaves it open.
			$line->{outcome} = 'info';
			$self->{plans}{$id} = $line;
			$self->{events}{"$id/$_->{seq}"} = { %$_, plan => $line } foreach @{ $line->{events} };
		}
		elsif ($what eq 'error')
		{
			$self->_complain('error', 'client %s: %s %s', @$line{qw(client state text)});
		}
		elsif ($what eq 'lost')
		{
			$report->{sessions_lost}++;
		}
		else
		{
			$self->{plans}{$id}{outcome} = $what;
		}
	}
	$report->{kinds}{ $_->{kind} }{ $_->{outcome} }++ foreach values %{ $self->{plans} };
	$report->{transactions} = keys %{ $self->{plans} };
	return;
}

#
# The database against its clients
#

sub _compare_database
{
	my ($self) = @_;
	my ($plans, $committed) = @$self{qw(plans committed)};

	$self->{report}{events} = keys %$committed;
	foreach my $id (grep { !$self->{events}{$_} } sort keys %$committed)
	{
		$self->_complain('database', 'event %s was committed, but no client has planned it', $id);
	}
	$self->_compare_transaction($_, $plans->{$_}) foreach sort keys %$plans;
	return;
}

# A transaction is in the database wholly or not at all, as its client saw it;
# what was rolled back to a savepoint is not part of it.
sub _compare_transaction
{
	my ($self, $id, $plan) = @_;
	my @there = grep { $self->{committed}{"$id/$_->{seq}"} } @{ $plan->{events} };
	my $undone = grep { $_->{drop} } @there;
	my $kept = @there - $undone;
	my $whole = grep { !$_->{drop} } @{ $plan->{events} };

	$self->_complain('database', 'transaction %s: %d events that it undid are there', $id, $undone)
	  if $undone;
	if ($kept && $plan->{outcome} eq 'fail')
	{
		$self->_complain('database', 'transaction %s has failed, %d events are there', $id, $kept);
	}
	elsif ($kept && $kept != $whole)
	{
		$self->_complain('database', 'transaction %s is there in part', $id);
	}
	elsif (!$kept && $whole && $plan->{outcome} eq 'ok')
	{
		if ($plan->{async} && $self->{crashes})
		{
			$self->{report}{async_lost}++;
		}
		else
		{
			$self->_complain('database', 'transaction %s was committed and is gone', $id);
		}
	}
	return;
}

#
# The stream against the database
#

sub _read_stream
{
	my ($self, $stream) = @_;
	my $report = $self->{report};
	my (%copies, %owner, %last, %seen);

	foreach my $entry (@$stream)
	{
		# A copy is decoded again only if it differs.
		my $text = join "\0", map { $entry->{$_} // '' } sort keys %$entry;
		my $id = $seen{$text} //= $self->_identify($entry);
		my $committed = $self->{committed}{$id};
		my $first = !$copies{$id}++;

		$owner{ $entry->{event_id} // '' } //= $id;
		$self->_complain('identity', 'the events %s and %s have the same id', $id, $_)
		  foreach grep { $_ ne $id && $id ne '' } $owner{ $entry->{event_id} // '' };
		if ($committed)
		{
			$self->_complain('identity', 'event %s has another id than publish() returned', $id)
			  if $committed->{event_id} ne ($entry->{event_id} // '');
			$self->_follow($id, $committed, $first, \%last) if $first || $self->{strict};
		}
		elsif ($first && $id ne '')
		{
			$self->_complain_uncommitted($id, $self->{events}{$id});
		}
	}
	delete $copies{''};

	foreach my $id (grep { !$copies{$_} } sort keys %{ $self->{committed} })
	{
		$self->_complain('lost', 'event %s of kind %s', $id, $self->{events}{$id}{plan}{kind});
	}
	$report->{entries} = @$stream;
	$report->{duplicates} = 0;
	$report->{histogram} = {};
	foreach my $count (values %copies)
	{
		$report->{duplicates} += $count - 1;
		$report->{histogram}{$count}++;
	}
	return;
}

# The first occurrences of a key's events must have rising numbers; the others, if
# they are looked at, must not have falling ones.
sub _follow
{
	my ($self, $id, $row, $first, $last) = @_;
	my ($key, $n) = @$row{qw(key n)};

	return if !defined $key;
	$self->_complain('order', 'event %s, number %d of "%s", after %d', $id, $n, $key, $last->{$key})
	  if $n < ($last->{$key} // 0) + ($first ? 1 : 0);
	$last->{$key} = $n;
	return;
}

# The transaction is unknown, has failed, or was gone after a crash.
sub _complain_uncommitted
{
	my ($self, $id, $event) = @_;

	return $self->_complain('phantom', 'event %s was never published', $id) if !$event;
	return $self->_complain('rolled_back', 'event %s of kind %s', $id, $event->{plan}{kind})
	  if $event->{drop} || $event->{plan}{outcome} eq 'fail';
	return $self->_complain('phantom', 'event %s: its transaction did not survive', $id);
}

# Which event is it?  '' if it is none of this run.  Checks by the way all that
# the entry says.
sub _identify
{
	my ($self, $entry) = @_;
	my $cloud_event = eval { $json->decode($entry->{cloud_event}) };
	my $data = ref $cloud_event eq 'HASH' ? $cloud_event->{data} : undef;
	my $id;

	if (ref $data ne 'HASH' || grep { !defined $data->{$_} } qw(run client txn seq))
	{
		$self->_complain('malformed', 'not one of our events: %.200s', $entry->{cloud_event});
		return '';
	}
	$id = "$data->{client}/$data->{txn}/$data->{seq}";
	if ($data->{run} ne $self->{run})
	{
		$self->_complain('phantom', 'event %s of another run, %s', $id, $data->{run});
		return '';
	}
	$self->_check_fields($id, $entry, $cloud_event);
	$self->_check_content($id, $cloud_event);
	return $id;
}

sub _check_fields
{
	my ($self, $id, $entry, $cloud_event) = @_;
	my %field = (id => 'event_id', type => 'event_type', source => 'source');
	my $names = join ' ', sort keys %$entry;

	$self->_complain('malformed', 'event %s has the fields %s', $id, $names) if $names ne "@FIELDS";
	foreach my $attribute (sort keys %field)
	{
		my $value = $entry->{ $field{$attribute} } // '';

		utf8::decode($value);
		$self->_complain('malformed', 'event %s: %s is not %s', $id, $field{$attribute}, $attribute)
		  if ($cloud_event->{$attribute} // '') ne $value;
	}
	$self->_complain('malformed', 'event %s: specversion is not 1.0', $id)
	  if ($cloud_event->{specversion} // '') ne '1.0';
	return;
}

sub _check_content
{
	my ($self, $id, $cloud_event) = @_;
	my $planned = $self->{events}{$id} or return;
	my $committed = $self->{committed}{$id};
	my $data = $cloud_event->{data};
	my @differences =
	  grep { ($planned->{$_} // "\0") ne ($cloud_event->{$_} // "\0") } qw(type source subject);

	push @differences, 'payload'
	  if !exists $data->{payload} || Ledger::Plan::payload_sha($data->{payload}) ne $planned->{sha};
	push @differences, 'key' if ($data->{key} // "\0") ne ($planned->{key} // "\0");
	push @differences, 'number' if $committed && ($data->{n} // -1) != ($committed->{n} // -1);
	$self->_complain('altered', 'event %s: other %s', $id, "@differences") if @differences;
	return;
}

1;
