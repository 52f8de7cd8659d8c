#
# RandomJson: random JSON, as its author means it and as he may write it.
#
# A value is a tree; a number is the text of it.
#
#     ['s', text] ['n', text] ['l', 'true'] ['a', [value...]] ['o', [[key, value]...]]
#
# write_json() makes one of the many texts of it: with or without escapes and
# blanks, keys in any order, some of them twice (the last one counts).
# spell_value() makes the one spelling that test/python/spell_json.py makes of
# any text of it.
#
package RandomJson;

use strict;
use warnings;
no warnings qw(recursion nonchar);	# nesting is deep, and all characters are wanted

use Exporter qw(import);
use List::Util qw(shuffle);

our @EXPORT = qw(chance pick random_text random_string random_value nested_value
  write_json spell_value spell_text);

# Characters by their kind: [first, last].
my @PLAIN = ([ 0x20, 0x7e ], [ 0xa0, 0x17f ], [ 0x4e00, 0x4fff ], [ 0x1f300, 0x1f6ff ]);
my @ODD = (
	[ 0x01, 0x1f ], [ 0x7f, 0x9f ], [ 0x2028, 0x2029 ], [ 0x300, 0x36f ], [ 0xe000, 0xe0ff ],
	[ 0xfdd0, 0xfdd1 ], [ 0xfeff, 0xfeff ], [ 0xfffd, 0xffff ], [ 0x1fffe, 0x20001 ],
	[ 0x10fffd, 0x10ffff ]);
# What some layer on the way might take for its own.
my @WORDS = ('"', '\\', '/', '{event_type}', '{{', '}', '%s', '$1', "'", '\\u0041', "\r\n*3\r\n",
	', "data": ', '<&>', "--", '\\x00', ' ');
# Keys that are alike: the empty one, in other cases, forms and alphabets.
my @KEYS = ('', ' ', 'a', 'A', 'a ', 'aa', "\x{430}", "\x{e4}", "a\x{308}", "a\x{200b}", '0', '00',
	'data', 'id', 'type', 'body', 'a.b', '{key}');
my @LARGE = qw(1e308 -1e309 1e1000 1E-400 0.1 -0 -0.0 0e5 1.50 100 2147483648 9223372036854775808
  -9223372036854775809 18446744073709551616 3.141592653589793238462643383279502884197 1e+2 5e-324);

sub chance { return rand() < $_[0]; }
sub pick { return $_[ rand @_ ]; }

sub _character
{
	my ($first, $last) = @{ $_[0] };

	return chr($first + int rand($last - $first + 1));
}

# A text without anything that is refused in an attribute.
sub random_text
{
	my ($length) = @_;

	return join '', map { _character(pick(@PLAIN)) } 1 .. 1 + rand $length;
}

# Any string that jsonb can hold.
sub random_string
{
	my ($length) = @_;

	return join '', map {
		chance(0.6) ? _character(pick(@PLAIN)) : chance(0.5) ? _character(pick(@ODD)) : pick(@WORDS)
	} 1 .. rand $length;
}

sub _digits { return join '', map { int rand 10 } 1 .. $_[0]; }

sub _number
{
	my $number = pick('', '', '-') . (1 + int rand 9) . _digits(rand(chance(0.1) ? 400 : 12));

	return pick(@LARGE) if chance(0.3);
	$number .= '.' . _digits(1 + rand(chance(0.1) ? 300 : 8)) if chance(0.5);
	$number .= pick(qw(e E e+ e-)) . int rand 60 if chance(0.2);
	return $number;
}

sub _key { return chance(0.6) ? pick(@KEYS) : random_string(12); }

sub random_value
{
	my ($depth) = @_;
	my $kind = rand($depth > 0 ? 10 : 6);

	return [ 's', random_string(chance(0.1) ? 300 : 20) ] if $kind < 3;
	return [ 'n', _number() ] if $kind < 5;
	return [ 'l', pick(qw(true false null)) ] if $kind < 6;
	return [ 'a', [ map { random_value($depth - 1) } 1 .. rand 6 ] ] if $kind < 8;
	return [ 'o', [ map { [ _key(), random_value($depth - 1) ] } 1 .. rand 8 ] ];
}

# A value below so many arrays and objects.
sub nested_value
{
	my ($levels) = @_;
	my $value = random_value(0);

	$value = chance(0.5) ? [ 'a', [ $value ] ] : [ 'o', [ [ _key(), $value ] ] ]
	  foreach 1 .. $levels;
	return $value;
}

my %SHORT = ("\b" => 'b', "\f" => 'f', "\n" => 'n', "\r" => 'r', "\t" => 't',
	'"' => '"', '\\' => '\\', '/' => '/');

sub _write_character
{
	my ($character) = @_;
	my $code = ord $character;
	my $must = $code < 0x20 || $character eq '"' || $character eq '\\';

	return $character if !$must && chance(0.8);
	return "\\$SHORT{$character}" if exists $SHORT{$character} && chance(0.7);
	return sprintf pick('\\u%04x', '\\u%04X'), $code if $code < 0x10000;
	$code -= 0x10000;
	return sprintf '\\u%04x\\u%04X', 0xd800 + ($code >> 10), 0xdc00 + ($code & 0x3ff);
}

sub _write_string
{
	my ($string) = @_;

	# One by one would take too long for the huge ones.
	if (length $string > 10_000)
	{
		$string =~ s/([\x00-\x1f"\\])/_write_character($1)/ge;
		return qq("$string");
	}
	return '"' . join('', map { _write_character($_) } split //, $string) . '"';
}

sub _blank { return chance(0.8) ? '' : pick(' ', "\n", "\t\t"); }

sub write_json
{
	my ($kind, $value) = @{ $_[0] };

	return _write_string($value) if $kind eq 's';
	return $value unless ref $value;
	return '[' . _blank() . join(',' . _blank(), map { write_json($_) } @$value) . ']'
	  if $kind eq 'a';

	# The last of those that are twice counts, so that what is put before them
	# does not.
	my %last = map { $_->[0] => $_->[1] } @$value;
	my @members = map { [ $_, $last{$_} ] } shuffle sort keys %last;

	unshift @members, [ $_->[0], random_value(0) ] foreach grep { chance(0.1) } @members;
	my @written = map { _write_string($_->[0]) . ':' . _blank() . write_json($_->[1]) } @members;
	return '{' . _blank() . join(',' . _blank(), @written) . _blank() . '}';
}

sub _spell_number
{
	my ($sign, $whole, $fraction, $exponent) =
	  $_[0] =~ /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/ or die "no number: $_[0]";
	my $digits = $whole . ($fraction // '');
	my $power = ($exponent // 0) - length($fraction // '');

	$digits =~ s/^0+//;
	$digits =~ s/(0*)$//;
	return $digits eq '' ? 'n0' : "n$sign${digits}e" . ($power + length $1);
}

sub spell_text
{
	my ($text) = @_;

	utf8::encode($text);
	return 's' . unpack 'H*', $text;
}

sub spell_value
{
	my ($kind, $value) = @{ $_[0] };

	return spell_text($value) if $kind eq 's';
	return _spell_number($value) if $kind eq 'n';
	return { true => 't', false => 'f', null => 'z' }->{$value} if $kind eq 'l';
	return '[' . join(',', map { spell_value($_) } @$value) . ']' if $kind eq 'a';

	my %last = map { spell_text($_->[0]) => $_->[1] } @$value;
	return '{' . join(',', map { "$_:" . spell_value($last{$_}) } sort keys %last) . '}';
}

1;
