# Plan.pm: makes up the transactions of a stress run.
#
# A plan says everything about a transaction before it begins: its events, how
# they are nested in subtransactions, and how it ends.  So the ledger can be
# written before BEGIN, and what may never be delivered (the events of a
# subtransaction that rolls back) is known from the plan alone.  All choices
# come from rand(): the same seed makes the same plans.
#
# A plan: {txn, kind, isolation, async, lock (the shared keys, sorted),
#	end => commit | rollback | prepare, fate => commit | rollback (of a
#	prepared one), steps, events}.
# A step: {publish => event} | {pause => seconds} | {sub => [steps],
#	fate => release | rollback}.  With kind "do", the steps become one DO
#	block in which each sub is a block with an exception handler.
# An event: {seq, key, shared, n, type, source, subject, payload (JSON text),
#	sha, drop}.

package Ledger::Plan;

use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use JSON::PP ();

# kind => how often, in a thousand transactions
my %WEIGHT = (
	plain       => 380,
	several     => 220,
	rollback    => 90,
	savepoint   => 110,
	do          => 70,
	isolation   => 65,
	prepare     => 60,
	long        => 5);
our @KINDS = sort keys %WEIGHT;

my $OWN_KEYS = 5;
my $SHARED_KEYS = 6;

# What escaping, encoding and length computations get wrong.
my @SCRAPS = (
	'a', 'order ', '0', ' ', '"', '\\', '\\u0041', '/', "\n", "\r\n", "\t", "\x01", "\x1f", "\x7f",
	"'", '$$', '%s%n', '{', '}', '{data.key}', '[]', ',', ':', '</script>', '--', ';',
	"\x{e9}", "e\x{301}", "\x{df}", "\x{4e2d}\x{6587}", "\x{1f600}", "\x{10ffff}",
	"\x{2028}", "\x{feff}", "\x{202e}", "\x{ffff}", "\x{a0}", "\x{200d}");
my @TYPES = ('order.created', 'order.paid', 'user.updated', "\x{fc}nicode.t\x{ff}pe", 'a');
my @SOURCES = ('stress', '/shops/7', 'urn:shop:7');

my $json = JSON::PP->new->utf8->canonical->allow_nonref;

# Keys that all clients share, each guarded by its row in ledger.counters.
sub shared_keys
{
	return map { "shared $_" } 1 .. $SHARED_KEYS;
}

# The one text of a value, however its JSON was written: what is hashed.
sub payload_sha
{
	my ($payload) = @_;

	return sha256_hex($json->encode($payload));
}

# args: seed, client, and async: the share of transactions that commit
# asynchronously
sub new
{
	my ($class, %args) = @_;

	srand($args{seed} * 1009 + $args{client});
	return bless { %args, txn => 0, n => {} }, $class;
}

# The next plan; no event of it has a key of %$busy, the keys whose order is
# undecided as long as a prepared transaction of this client is pending.
sub plan_next
{
	my ($self, $busy) = @_;
	# However short the run, every kind has its turn.
	my $kind = $self->{txn} ? _pick_kind() : $KINDS[ $self->{client} % @KINDS ];
	my $plan = {
		txn => ++$self->{txn}, kind => $kind, end => 'commit', isolation => 'READ COMMITTED',
		async => rand() < $self->{async} ? 1 : 0, steps => [], events => [] };

	$self->{plan} = $plan;
	$self->{own} = [ grep { !$busy->{$_} } map { "own $self->{client}.$_" } 1 .. $OWN_KEYS ];
	# A shared key held for long stops everybody else, so only sometimes.
	$self->{sharing} = $kind eq 'do' ? 0 : $kind eq 'long' ? 0.02 : $kind eq 'prepare' ? 0.1 : 0.2;

	my $make = $self->can("_make_$kind");
	$plan->{steps} = [ $self->$make ];
	my %lock = map { $_->{key} => 1 } grep { $_->{shared} } @{ $plan->{events} };
	$plan->{lock} = [ sort keys %lock ];
	return $plan;
}

sub _pick_kind
{
	my $dice = rand(1000);

	foreach my $kind (@KINDS)
	{
		return $kind if ($dice -= $WEIGHT{$kind}) < 0;
	}
	return 'plain';
}

sub _make_plain { return $_[0]->_publish }
sub _make_several { return $_[0]->_publishes(2, 6) }

sub _make_rollback
{
	my ($self) = @_;

	$self->{plan}{end} = 'rollback';
	return $self->_publishes(1, 4);
}

sub _make_savepoint
{
	my ($self) = @_;
	my @fates = rand() < 0.5 ? ('rollback', 'release') : ('release', 'rollback');

	return map { ($self->_sub($_, 2), $self->_publishes(0, 1)) } @fates;
}

# The same shape, in plpgsql.
sub _make_do { return $_[0]->_make_savepoint }

sub _make_isolation
{
	my ($self) = @_;

	$self->{plan}{isolation} = rand() < 0.5 ? 'REPEATABLE READ' : 'SERIALIZABLE';
	return $self->_publishes(1, 3);
}

sub _make_prepare
{
	my ($self) = @_;

	$self->{plan}{end} = 'prepare';
	$self->{plan}{fate} = rand() < 0.65 ? 'commit' : 'rollback';
	return ($self->_publishes(1, 3), rand() < 0.3 ? $self->_sub('rollback', 1) : ());
}

# Holds its snapshot and its ids while the others commit before and after it.
sub _make_long
{
	my ($self) = @_;
	my $pause = 0.4 + rand(0.8);

	return (
		$self->_publishes(1, 2), { pause => $pause }, $self->_publishes(1, 2),
		{ pause => $pause }, $self->_publishes(0, 1));
}

sub _publishes
{
	my ($self, $least, $most) = @_;

	return map { $self->_publish } 1 .. $least + int(rand($most - $least + 1));
}

# A subtransaction, with more inside up to $depth levels.
sub _sub
{
	my ($self, $fate, $depth) = @_;

	local $self->{drop} = $self->{drop} || $fate eq 'rollback' ? 1 : 0;
	my @steps = $self->_publishes(1, 2);
	push @steps, $self->_sub(rand() < 0.5 ? 'rollback' : 'release', $depth - 1)
	  if $depth > 0 && rand() < 0.5;
	push @steps, $self->_publishes(0, 1);
	return { sub => \@steps, fate => $fate };
}

sub _publish
{
	my ($self) = @_;
	my $plan = $self->{plan};
	my $coder = JSON::PP->new->canonical->allow_nonref;
	# Half of the texts in pure ASCII: surrogate pairs on the way in.
	my $payload = $coder->ascii(rand() < 0.5)->encode(_payload());
	my $dice = rand();
	my $event = {
		seq => scalar @{ $plan->{events} },
		type => $TYPES[ rand @TYPES ],
		source => $SOURCES[ rand @SOURCES ],
		subject => rand() < 0.3 ? _text(12) || undef : undef,
		payload => $payload,
		sha => payload_sha($coder->decode($payload)),
		drop => $self->{drop} ? 1 : 0 };

	if ($dice < $self->{sharing})
	{
		$event->{key} = (shared_keys())[ rand $SHARED_KEYS ];
		$event->{shared} = 1;
	}
	elsif ($dice < 0.85 && @{ $self->{own} })
	{
		$event->{key} = $self->{own}[ rand @{ $self->{own} } ];
		$event->{n} = ++$self->{n}{ $event->{key} };
	}
	push @{ $plan->{events} }, $event;
	return { publish => $event };
}

sub _text
{
	my ($length) = @_;

	return join '', map { $SCRAPS[ rand @SCRAPS ] } 1 .. rand($length);
}

# Any JSON value; numbers only such as survive a double.
sub _payload
{
	my $dice = rand();

	if ($dice < 0.1)
	{
		my @values = (
			undef, JSON::PP::true, JSON::PP::false, 0, -1, 0.5, 9_007_199_254_740_992,
			'', [], {}, _text(5));
		return $values[ rand @values ];
	}
	return _text(40) if $dice < 0.3;
	return _text(400) if $dice < 0.37;
	return _text(2500) if $dice < 0.4;
	return {
		text => _text($dice < 0.8 ? 30 : 300),
		number => int(rand(2**40)) - 2**39,
		flag => rand() < 0.5 ? JSON::PP::true : JSON::PP::false,
		'' => 'an empty key',
		"\x{e9} \"key\"" => [ 1, [ undef, {} ] ] };
}

1;
