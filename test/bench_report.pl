#
# bench_report.pl: makes the table and the charts from records of benchmarks.
#
# Where a page is named as the directory is (docs/performance.md beside
# docs/performance), the table is put into the page too, between its marks.
#
# usage: bench_report.pl <directory with the records>

use strict;
use warnings;

use File::Basename qw(dirname);
use lib dirname(__FILE__) . '/perl';

use Bench::Report qw(write_report);

my ($directory) = @ARGV;
my $page = $directory =~ s{/+$}{}r . '.md';
my $table = write_report($directory);

print $table;
exit unless -e $page;

open my $in, '<:encoding(UTF-8)', $page or die "$page: $!\n";
my $text = do { local $/ = undef; <$in> };
close $in;
$text =~ s/^(<!-- table -->\n).*^(<!-- end of the table -->)$/$1\n$table\n$2/ms
  or die "$page has no marks for the table\n";
open my $out, '>:encoding(UTF-8)', $page or die "$page: $!\n";
print $out $text;
close $out or die "$page: $!\n";
