#!/usr/bin/env bash
#
# check.sh: builds dispatch and runs every test; started by test/run.sh.
#
# Each phase prints the summary of its own tool; the last line adds them up:
# the layout check and the build count one each, then every pg_regress test,
# every isolation spec and every TAP assertion.  A phase that ends without a
# summary has failed.
#
# A part of the tests: make check REGRESS=... ISOLATION=... PROVE_TESTS=...
# with names as PGXS takes them; an empty value leaves the phase out.

set -euo pipefail

. test/lib.sh

passed=0
failed=0

# Also when something below ends the script.
summarize()
{
	local status=$?

	trap - EXIT
	[ "$status" -eq 0 ] || failed=$((failed + 1))
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ]
	exit
}
trap summarize EXIT
trap 'exit 143' TERM

count()
{
	passed=$((passed + $1))
	failed=$((failed + $2))
}

phase()
{
	printf '\n=== %s ===\n' "$1"
}

# names <directory> <suffix>: the tests that are there
names()
{
	find "$1" -maxdepth 1 -name "*$2" -printf '%f\n' | sed "s/\\$2\$//" | LC_ALL=C sort
}

# regress <tool> <output directory> <arguments>: runs pg_regress or its like
# on a temporary cluster and counts by its summary, as worded since 9.x
# ("All 3 tests passed.", "1 of 3 tests failed.").
regress()
{
	local tool=$1 out=$WORK/$2 total bad

	shift 2
	mkdir -p "$out"
	timeout --kill-after=30 600 "$tool" --inputdir=test --outputdir="$out" \
		--bindir="$bindir" --temp-instance="$out/instance" \
		--temp-config=test/server.conf --encoding=UTF8 --no-locale \
		"$@" 2>&1 | tee "$out/output" || true
	if total=$(grep -oP 'All \K\d+(?= tests passed)' "$out/output"); then
		count "$total" 0
	elif total=$(grep -oP '\d+ of \K\d+(?= tests failed)' "$out/output"); then
		bad=$(grep -oP '\d+(?= of \d+ tests failed)' "$out/output")
		count $((total - bad)) "$bad"
		cat "$out/regression.diffs"
	else
		count 0 1
		tail -n 40 "$out/log/postmaster.log" || true
	fi
}

phase layout
if perl tools/check-layout; then
	count 1 0
else
	count 0 1
fi

phase build
if ! install_server; then
	count 0 1
	exit
fi
count 1 0

tests=${REGRESS-$(names test/sql .sql)}
if [ -n "$tests" ]; then
	phase pg_regress
	regress "$pgxs/src/test/regress/pg_regress" regress $tests
fi

tests=${ISOLATION-$(names test/specs .spec)}
if [ -n "$tests" ]; then
	phase isolation
	regress "$pgxs/src/test/isolation/pg_isolation_regress" isolation \
		--load-extension=dispatch $tests
fi

tests=${PROVE_TESTS-test/t/*.pl}
if [ -n "$tests" ] && [ ! -e "$DISPATCH_CACHE/kafka/ready" ]; then
	printf '\nNOT RUN, for want of an Apache Kafka (test/kafka/fetch.sh):\n'
	grep -lE 'Kafka(Server|Bench)' $tests || true
	tests=$(grep -LE 'Kafka(Server|Bench)' $tests || true)
fi
if [ -n "$tests" ]; then
	phase TAP
	mkdir -p "$WORK/tap"
	rm -f "$WORK/tap/counts"
	TESTDIR=$WORK/tap PG_REGRESS=$pgxs/src/test/regress/pg_regress \
		perl test/tap.pl "$WORK/tap/counts" "$pgxs/src/test/perl" $tests || true
	count $(cat "$WORK/tap/counts" || echo 0 1)
fi

echo
