#
# tap.pl: runs the TAP tests as prove does, and counts exactly.
#
# prove reports numbers for people only; the closing line of `make check` needs
# the assertions that held and those that did not.  A file that ends early,
# hangs or tests nothing counts as a failure, and so does a skipped assertion:
# what a test needs is set up, or it has failed.  The end of its log, which says
# why a file ended early, is shown then: the machine may be gone when it is read.
#
# Most files wait most of their time, so DISPATCH_TEST_JOBS of them run at once.
#
# usage: tap.pl <file for the counts> <PostgreSQL's perl directory> <tests>

use strict;
use warnings;

use File::Basename;
use TAP::Harness;

my $SECONDS_PER_FILE = 600;
# They try one fault after another, hundreds of them.
my $SECONDS_OF_FAULTS = 1800;
my $LINES_OF_LOG = 25;

my ($counts, $pg_perl, @tests) = @ARGV;
my ($passed, $failed) = (0, 0);

my $harness = TAP::Harness->new(
	{
		exec => sub {
			my ($self, $file) = @_;
			my $seconds = $file =~ m{/faults/} ? $SECONDS_OF_FAULTS : $SECONDS_PER_FILE;

			return [
				'timeout', '--kill-after=30', $seconds,
				$^X, "-I$pg_perl", '-Itest/perl', $file ];
		},
		jobs => $ENV{DISPATCH_TEST_JOBS} // 2,
		timer => 1,
		failures => 1
	});
my $aggregate = $harness->runtests(@tests);

# The end of what PostgreSQL's test library logged for a test file
sub show_log
{
	my ($test) = @_;
	my $name = basename($test, '.pl');

	open my $log, '<', "$ENV{TESTDIR}/tmp_check/log/regress_log_$name" or return;
	my @lines = <$log>;
	splice @lines, 0, -$LINES_OF_LOG if @lines > $LINES_OF_LOG;
	print "\n$test ended so:\n", @lines;
	return;
}

foreach my $test ($aggregate->descriptions)
{
	my ($file) = $aggregate->parsers($test);
	my $bad = $file->failed + $file->skipped;

	$passed += $file->passed - $file->skipped;
	$bad ||= 1 if $file->has_problems || $file->tests_run == 0;
	$failed += $bad;
	show_log($test) if $bad;
}

open my $out, '>', $counts or die "$counts: $!\n";
print $out "$passed $failed\n";
close $out or die "$counts: $!\n";
