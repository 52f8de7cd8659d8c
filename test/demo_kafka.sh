# demo_kafka.sh: the part of the demo that is about Kafka.
#
# One node in KRaft mode, of the jars that test/kafka/fetch.sh has got; kcat, which
# knows nothing of dispatch, reads the topic.

# A port that nothing listens on.
free_port()
{
	local port

	for port in $(shuf -i 20000-29999 -n 50); do
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}

# kcat asks for the topic until the node can be asked, which creates it then.
broker_start()
{
	local dir=$WORK/kafka home=$DISPATCH_CACHE/kafka port controller_port try

	[ -e "$home/ready" ] || { echo 'There is no Kafka to be had here.' >&2; return 1; }
	port=$(free_port)
	controller_port=$(free_port)
	kafka=127.0.0.1:$port
	mkdir -p "$dir/log"
	printf '%s\n' version=1 cluster.id=dispatch node.id=1 >"$dir/log/meta.properties"
	cat >"$dir/server.properties" <<-CONF
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$controller_port
		listeners=CLIENTS://$kafka,CONTROLLER://127.0.0.1:$controller_port
		listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=CLIENTS
		log.dirs=$dir/log
		num.partitions=3
	CONF
	(cd "$dir" && exec java -Xmx256m -XX:+UseSerialGC -XX:SharedArchiveFile="$home/classes.jsa" \
		-Dlog4j.configuration="file:$WORK/src/test/kafka/log4j.properties" \
		-cp "$home/jars/*" kafka.Kafka server.properties) >"$dir/output" 2>&1 &
	for try in {1..600}; do
		if kcat -b "$kafka" -m 5 -L -t events 2>/dev/null | grep -q 'with 3 partitions'; then
			transport=kafka
			options="{\"bootstrap_servers\": \"$kafka\"}"
			return
		fi
		kill -0 $! 2>/dev/null || break
		sleep 0.1
	done
	cat "$dir/output"
	return 1
}

# All of the topic, each record as kcat formats it.
read_topic()
{
	kcat -b "$kafka" -C -t events -o beginning -e -q -f "$1"
}

broker_show()
{
	title 'What Kafka has: kcat -C -t events'
	read_topic 'partition %p, offset %o, timestamp %T\nkey:     %k\nheaders: %h\nvalue:   %s\n'
}

broker_count()
{
	read_topic '%o\n' | wc -l
}
