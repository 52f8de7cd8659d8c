#!/usr/bin/env bash
#
# run.sh: runs test/check.sh, bench.sh or demo.sh on a machine as it is found.
#
# Sets the machine up, copies the sources to a temporary directory, and runs
# the script there as an ordinary user: PostgreSQL refuses to run as root, and
# nothing is to be left in the tree.  Whatever way the script ends, the servers
# that it started end too and the directory is removed (kept with KEEP=1).
# What the script has put into $WORK/results comes to the directory $RESULTS.
#
# usage: run.sh bench|check|demo

set -euo pipefail

what=$1
work=
child=
as_user=()

# The processes of this run.  All servers run with a working directory below
# ours, also those that left our process group, so this takes no other's.
survivors()
{
	local cwd

	for cwd in /proc/[0-9]*/cwd; do
		case $(readlink "$cwd") in
			"$work" | "$work"/*) cut -d/ -f3 <<<"$cwd" ;;
		esac
	done
}

# send_to_survivors <signal>: fails when there are none
send_to_survivors()
{
	local pid found=1

	for pid in $(survivors 2>/dev/null); do
		kill "-$1" "$pid" 2>/dev/null && found=0
	done
	return $found
}

bring_results()
{
	[ -n "${RESULTS:-}" ] && [ -d "$work/results" ] || return 0
	mkdir -p "$RESULTS" && cp --no-preserve=all "$work"/results/* "$RESULTS/"
}

cleanup()
{
	local status=$? try

	trap - EXIT
	set +e
	if [ -n "$work" ]; then
		for try in CONT TERM '' '' '' QUIT '' '' '' ''; do
			send_to_survivors "${try:-0}" || break
			sleep 0.3
		done
		send_to_survivors KILL
		bring_results
		[ -n "${KEEP:-}" ] && echo "kept: $work" >&2 || rm -rf "$work"
	fi
	# The script itself prints the summary, once it runs.
	[ "$what" != check ] || [ -n "$child" ] || echo "0 passed, 1 failed"
	exit "$status"
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What is fetched once for all runs; root's own would not be readable by the
# user that runs the tests.
if [ -z "${DISPATCH_CACHE:-}" ]; then
	DISPATCH_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/dispatch
	[ "$(id -u)" -ne 0 ] || DISPATCH_CACHE=/var/cache/dispatch
fi
export DISPATCH_CACHE

cd "$(dirname "$0")/.."
bash test/setup.sh "$what"

work=$(mktemp -d --tmpdir dispatch.XXXXXX)
if [ "$(id -u)" -eq 0 ]; then
	user=postgres
	getent passwd $user >/dev/null || user=nobody
	chown "$user:" "$work"
	as_user=(setpriv --reuid="$(id -u $user)" --regid="$(id -g $user)" --init-groups)
fi
"${as_user[@]}" mkdir "$work/src" "$work/tmp"
tar -cf - --exclude-vcs --exclude='*.[ado]' --exclude='*.so' --exclude=tmp_check . |
	"${as_user[@]}" tar -xf - -C "$work/src" --no-same-owner

# A clean environment: neither PGHOST nor MAKEFLAGS nor a locale gets through;
# what tunes single tests does.
environment=(PATH="$PATH" HOME="$work" TMPDIR="$work/tmp" LC_ALL=C.UTF-8 WORK="$work")
for name in CI WERROR PG_CONFIG REGRESS ISOLATION PROVE_TESTS DEMO BENCH SIZE OUTAGE \
	"${!DISPATCH_@}"; do
	[ -z "${!name+set}" ] || environment+=("$name=${!name}")
done

# In a process group of its own, and waited for: so a signal is acted upon at
# once, not when the script is done.
set -m
"${as_user[@]}" env -i -C "$work/src" "${environment[@]}" bash "test/$what.sh" </dev/null &
child=$!
set +m
wait "$child"
