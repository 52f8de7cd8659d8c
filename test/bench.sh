#!/usr/bin/env bash
#
# bench.sh: builds dispatch and runs the benchmarks; started by test/run.sh.
#
# The records are left in $WORK/results, which run.sh brings to where they were
# asked for.

set -euo pipefail

. test/lib.sh

echo "Building dispatch for $("$pg_config" --version) ..."
install_server
make -s -C test/bench/c PG_CONFIG="$pg_config"
TESTDIR=$WORK/tap PG_REGRESS=$pgxs/src/test/regress/pg_regress
export TESTDIR PG_REGRESS
mkdir -p "$TESTDIR"
perl test/bench.pl "$WORK/results" "$pgxs/src/test/perl" ${BENCH:-}
