#!/usr/bin/env bash
#
# demo.sh: shows events on their way from publish() to Redis and to LISTEN, on
# a throw-away server; started by test/run.sh.
#
# Prints the SQL that it runs and what the brokers then hold.

set -euo pipefail

. test/lib.sh

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

# On a port that nothing listens on; sets redis_port.
start_redis()
{
	local try

	mkdir -p "$WORK/redis"
	for redis_port in $(shuf -i 20000-29999 -n 20); do
		redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$WORK/redis" \
			--save '' --daemonize no >"$WORK/redis/log" 2>&1 &
		for try in {1..50}; do
			kill -0 $! 2>/dev/null || break
			[ "$(redis-cli -p "$redis_port" INFO server 2>/dev/null |
				sed -n 's/^process_id:\([0-9]*\).*/\1/p')" != $! ] || return 0
			sleep 0.1
		done
	done
	cat "$WORK/redis/log"
	return 1
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
if command -v redis-server >/dev/null; then
	start_redis
	transport=redis
	options="{\"port\": $redis_port}"
else
	echo 'There is no Redis to be had here: both backends are of LISTEN/NOTIFY.'
	transport=notify
	options='{}'
fi

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

if [ $transport = redis ]; then
	title "What Redis has: redis-cli XRANGE events - +"
	redis-cli -p "$redis_port" XRANGE events - + | cat
fi

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
if [ $transport = redis ]; then
	length=$(redis-cli -p "$redis_port" XLEN events)
	[ "$length" -eq $((events + 1)) ] ||
		{ echo "Redis has $length events, not $((events + 1))" >&2; exit 1; }
fi
