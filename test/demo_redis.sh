# demo_redis.sh: the part of the demo that is about Redis.
#
# Where there is no Redis to be had, LISTEN/NOTIFY takes its place.

# On a port that nothing listens on.
broker_start()
{
	local try

	if ! command -v redis-server >/dev/null; then
		echo 'There is no Redis to be had here: both backends are of LISTEN/NOTIFY.'
		transport=notify
		options='{}'
		return
	fi
	mkdir -p "$WORK/redis"
	for redis_port in $(shuf -i 20000-29999 -n 20); do
		redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$WORK/redis" \
			--save '' --daemonize no >"$WORK/redis/log" 2>&1 &
		for try in {1..50}; do
			kill -0 $! 2>/dev/null || break
			if [ "$(redis-cli -p "$redis_port" INFO server 2>/dev/null |
				sed -n 's/^process_id:\([0-9]*\).*/\1/p')" = $! ]; then
				transport=redis
				options="{\"port\": $redis_port}"
				return
			fi
			sleep 0.1
		done
	done
	cat "$WORK/redis/log"
	return 1
}

# Prints what the broker holds.
broker_show()
{
	[ $transport = redis ] || return 0
	title "What Redis has: redis-cli XRANGE events - +"
	redis-cli -p "$redis_port" XRANGE events - + | cat
}

# How many events the broker has got in the end; nothing where it cannot tell.
broker_count()
{
	[ $transport = notify ] || redis-cli -p "$redis_port" XLEN events
}
