#!/usr/bin/env bash
#
# demo.sh: shows events on their way from publish() to a broker and to LISTEN,
# on a throw-away server; started by test/run.sh.
#
# Prints the SQL that it runs and what the broker then holds.  The broker is
# Redis, or what DEMO names: test/demo_<broker>.sh has what is special about it,
# the functions broker_start, which sets transport and options, broker_show and
# broker_count.

set -euo pipefail

. test/lib.sh
. "test/demo_${DEMO:-redis}.sh"

events=200						# for the latency
export PGHOST=$WORK/tmp PGDATABASE=postgres PGUSER=demo PAGER=

title()
{
	if [ -t 1 ]; then
		printf '\n\033[1m-- %s\033[0m\n' "$1"
	else
		printf '\n-- %s\n' "$1"
	fi
}

# Runs the SQL of its input, and shows it.
run_sql()
{
	psql -X --quiet --echo-all --pset=footer=off -v ON_ERROR_STOP=1 "$@"
}

start_postgres()
{
	initdb -D "$WORK/data" -U demo -A trust --no-sync >"$WORK/initdb.log"
	cat test/server.conf - >>"$WORK/data/postgresql.conf" <<-SETTINGS
		listen_addresses = ''
		unix_socket_directories = '$PGHOST'
	SETTINGS
	pg_ctl -D "$WORK/data" -l "$WORK/server.log" -w start >/dev/null ||
		{ cat "$WORK/server.log"; return 1; }
}

# One transaction an event, at a pace that leaves each alone.
publish_singly()
{
	local i

	for ((i = 1; i <= events; i++)); do
		echo "SELECT dispatch.publish('order.paid', 'shop', '{\"order\": $i}');"
		echo 'SELECT pg_sleep(0.005);'
	done | psql -X --quiet -v ON_ERROR_STOP=1 -o /dev/null
}

echo "Building dispatch for $("$pg_config" --version) ..."
install_server
start_postgres
broker_start

title 'Set up: the extension, a backend each for the broker and for LISTEN'
run_sql --tuples-only <<SQL | grep -v '^ *$'
CREATE EXTENSION dispatch;
SELECT dispatch.create_backend('default', '$transport', '$options');
SELECT dispatch.create_backend('local', 'notify');
CREATE TABLE orders (id bigint PRIMARY KEY, total numeric);
SQL

title 'An event is published by the transaction that it is about'
run_sql <<'SQL'
BEGIN;
INSERT INTO orders VALUES (1, 99.90);
SELECT dispatch.publish('order.created', 'shop', '{"order": 1, "total": 99.90}');
COMMIT;
SQL

title 'It goes if that commits, and only then'
run_sql <<'SQL'
BEGIN;
INSERT INTO orders VALUES (2, 10.00);
SELECT dispatch.publish('order.created', 'shop', '{"order": 2, "total": 10.00}');
ROLLBACK;
SELECT dispatch.flush();
SQL

broker_show

title 'What LISTEN sees'
run_sql <<'SQL'
LISTEN dispatch;
SELECT dispatch.publish('order.shipped', 'shop', '{"order": 1}', backend => 'local');
SELECT dispatch.flush();
SQL

title "The state of the backends, after $events more events, one a transaction"
publish_singly
run_sql --expanded <<'SQL'
SELECT dispatch.flush();
SELECT * FROM dispatch.backend_status ORDER BY name;
SQL

title 'From commit to broker'
run_sql <<'SQL'
SELECT name, transport, latency_p50, latency_p95, latency_p99 FROM dispatch.backend_status
 WHERE name = 'default';
SQL

# Nothing above fails when an event is missing.
count=$(broker_count)
[ "${count:-$((events + 1))}" -eq $((events + 1)) ] ||
	{ echo "the broker has $count events, not $((events + 1))" >&2; exit 1; }
