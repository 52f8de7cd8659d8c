# lib.sh: what test/check.sh and test/demo.sh share.
#
# Both run as an ordinary user in a copy of the sources, in $WORK/src.

pg_config=$(command -v "${PG_CONFIG:-pg_config}")
pgxs=$(dirname "$(dirname "$(dirname "$("$pg_config" --pgxs)")")")
server=$WORK/server
bindir=$server$("$pg_config" --bindir)
PATH=$bindir:$PATH

# A server that finds the extension, with nothing written outside of $WORK:
# PostgreSQL looks for its files relative to where its programs are, so a copy
# of the programs in a tree of links is a server to install into, as the
# temporary installation is in PostgreSQL's own tests.
install_server()
{
	local dir

	mkdir -p "$bindir"
	cp -a "$("$pg_config" --bindir)/." "$bindir"
	for dir in $("$pg_config" --pkglibdir) $("$pg_config" --sharedir) \
		$("$pg_config" --includedir-server); do
		mkdir -p "$server$dir"
		cp -rs "$dir/." "$server$dir"
	done
	# Not those of an older version that happens to be installed.
	find "$server" \( -name 'dispatch*' -o -path '*/extension/dispatch/*' \) \
		\( -type l -o -type f \) -delete
	make -s -j2 PG_CONFIG="$pg_config" all &&
		make -s PG_CONFIG="$pg_config" DESTDIR="$server" install
}
