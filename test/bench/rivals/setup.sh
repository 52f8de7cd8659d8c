#!/usr/bin/env bash
#
# setup.sh: gets the rivals that are in no Debian package, once.
#
# Called by test/setup.sh for `make bench`; 600 MB, most of it Debezium.  What
# cannot be had is left out of the benchmark, which says so.
#
# usage: setup.sh <directory>

set -uo pipefail

cache=$1
here=$(cd "$(dirname "$0")" && pwd)

# get <name>: into a directory of that name, which is marked when it is whole
get()
{
	local target=$cache/$1

	[ ! -e "$target/complete" ] || return 0
	echo "Getting $1 ..."
	rm -rf "$target"
	if "get_$1" "$target" >"$cache/$1.log" 2>&1; then
		touch "$target/complete"
	else
		tail -n 5 "$cache/$1.log" >&2
	fi
}

get_django()
{
	/usr/bin/python3 -m venv "$1" && "$1/bin/pip" install -q -r "$here/requirements.txt"
}

get_debezium()
{
	mvn -B -q -f "$here/pom.xml" -Dmaven.repo.local="$cache/maven" -Dinto="$1" package &&
		rm -rf "$cache/maven"
}

get django
get debezium
