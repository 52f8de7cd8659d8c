#
# tap.pl: runs the TAP tests as prove does, and counts exactly.
#
# prove reports numbers for people only; the closing line of `make check` needs
# the assertions that held and those that did not.  A file that ends early,
# hangs or tests nothing counts as a failure, and so does a skipped assertion:
# what a test needs is set up, or it has failed.
#
# usage: tap.pl <file for the counts> <PostgreSQL's perl directory> <tests>

use strict;
use warnings;

use TAP::Harness;

my $SECONDS_PER_FILE = 600;

my ($counts, $pg_perl, @tests) = @ARGV;
my ($passed, $failed) = (0, 0);

my $harness = TAP::Harness->new(
	{
		exec => [
			'timeout', '--kill-after=30', $SECONDS_PER_FILE,
			$^X, "-I$pg_perl", '-Itest/perl' ],
		timer => 1,
		failures => 1
	});
my $aggregate = $harness->runtests(@tests);

foreach my $file ($aggregate->parsers)
{
	my $bad = $file->failed + $file->skipped;

	$passed += $file->passed - $file->skipped;
	$bad ||= 1 if $file->has_problems || $file->tests_run == 0;
	$failed += $bad;
}

open my $out, '>', $counts or die "$counts: $!\n";
print $out "$passed $failed\n";
close $out or die "$counts: $!\n";
