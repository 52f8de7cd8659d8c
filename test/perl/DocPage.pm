#
# DocPage: the examples of a page of the documentation, to be run as they are.
#
#     my $page = DocPage->new('docs/redis.md', 'localhost' => '127.0.0.1', '6379' => $port);
#     my ($create, $login) = $page->blocks('sql');
#     $page->runs($node, 'shop', $create);
#
# What the page says for the place of a reader (host and port) is replaced by
# that of the test, in all blocks.
#
package DocPage;

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

sub new
{
	my ($class, $file, %places) = @_;

	return bless { file => $file, text => slurp_file($file), places => \%places }, $class;
}

# The blocks in a language, in their order.
sub blocks
{
	my ($self, $language) = @_;
	my @blocks = $self->{text} =~ /^ *```$language\n(.*?)^ *```$/msg;

	foreach my $block (@blocks)
	{
		foreach my $place (sort keys %{ $self->{places} })
		{
			$block =~ s/(?<!\w)\Q$place\E(?!\w)/$self->{places}{$place}/g;
		}
	}
	return @blocks;
}

# The statements of a block; one ends where a line does.
sub statements
{
	my ($self, $block) = @_;

	return $block =~ /(\S.*?;)[ \t]*(?:--[^\n]*)?(?:\n|\z)/sg;
}

# runs(node, database, sql, user): it does; returns what psql prints, without
# headings: a line a row.
sub runs
{
	my ($self, $node, $database, $sql, $user) = @_;
	my ($status, $out, $err) = $node->psql(
		$database, $sql, on_error_stop => 1, extra_params => $user ? [ '-U', $user ] : []);

	is("$status$err", 0, "$self->{file}: " . ($sql =~ /(\S.*)/)[0]);
	return $out;
}

# The same of a block for the shell.
sub runs_in_shell
{
	my ($self, $commands) = @_;
	my ($out, $err) = ('', '');

	ok(IPC::Run::run([ 'sh', '-ec', $commands ], '<', \undef, '>', \$out, '2>', \$err),
		"$self->{file}: " . ($commands =~ /(.*)/)[0]) or diag("$out$err");
	return $out;
}

1;
