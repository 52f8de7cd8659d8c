# demo_rabbitmq.sh: the part of the demo that is about RabbitMQ.
#
# A topic exchange and a quorum queue, which gets all that goes to it; a consumer
# that knows nothing of dispatch declares them and reads.

# The commands of test/python/rabbitmq_consumer.py.
consumer()
{
	/usr/bin/python3 test/python/rabbitmq_consumer.py "$rabbitmq_port" "$@"
}

# So many ports that nothing listens on.
free_ports()
{
	local port

	for port in $(shuf -i 20000-29999 -n 50); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || echo "$port"
	done | head -n "$1" | xargs
}

# Not the script in PATH, which insists on the users root and rabbitmq.  With a
# port mapper of Erlang of its own.
broker_start()
{
	local dir=$WORK/rabbitmq epmd_port dist_port try

	mkdir -p "$dir"/{home,log,mnesia}
	read -r rabbitmq_port dist_port epmd_port <<<"$(free_ports 3)"
	cat >"$dir/rabbitmq.conf" <<-CONF
		listeners.tcp.1 = 127.0.0.1:$rabbitmq_port
		disk_free_limit.absolute = 1MB
		log.console = false
	CONF
	echo '[].' >"$dir/plugins"
	echo 'demo' >"$dir/home/.erlang.cookie"
	chmod 400 "$dir/home/.erlang.cookie"
	export ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1
	epmd >"$dir/output" 2>&1 &
	HOME=$dir/home RABBITMQ_CONF_ENV_FILE=$dir/none RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf \
		RABBITMQ_DIST_PORT=$dist_port RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins \
		RABBITMQ_LOG_BASE=$dir/log RABBITMQ_MNESIA_BASE=$dir/mnesia \
		RABBITMQ_NODENAME=demo@localhost RABBITMQ_PID_FILE=$dir/pid RUNNING_UNDER_SYSTEMD=true \
		/usr/lib/rabbitmq/bin/rabbitmq-server >>"$dir/output" 2>&1 &
	for try in {1..600}; do
		if consumer declare 2>/dev/null; then
			transport=rabbitmq
			options="{\"port\": $rabbitmq_port, \"exchange\": \"orders\"}"
			return
		fi
		kill -0 $! 2>/dev/null || break
		sleep 0.1
	done
	cat "$dir"/output "$dir"/log/*
	return 1
}

broker_show()
{
	title 'What RabbitMQ has: the queue "all", bound to the exchange "orders"'
	consumer show
}

broker_count()
{
	consumer count
}
