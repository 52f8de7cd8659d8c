#!/usr/bin/env bash
#
# fetch.sh: gets the Apache Kafka of the tests, and a Python client for it.
#
# The jars come from Maven Central by pom.xml, the client from the Python
# package index by requirements.txt; neither is installed in the system.  They
# are kept in the directory DISPATCH_CACHE, so only the first run needs a
# network.  Prints nothing if they are there.
#
#	$DISPATCH_CACHE/kafka/jars/			the class path of a broker
#	$DISPATCH_CACHE/kafka/classes.jsa	its classes, parsed: a start takes a
#										quarter of the time
#	$DISPATCH_CACHE/kafka/python/		a virtual environment with the client
#	$DISPATCH_CACHE/kafka/ready			of what the above was made; written last

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
home=$DISPATCH_CACHE/kafka
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
log=
broker=

# Of this machine's java, as an archive of classes is of no use to another one.
made_of()
{
	cat "$here/pom.xml" "$here/requirements.txt" "$here/fetch.sh"
	java -version 2>&1
}

cleanup()
{
	local status=$?

	[ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null || true
	[ "$status" -eq 0 ] || [ -z "$log" ] || tail -n 20 "$log" >&2
	[ -z "$log" ] || rm -rf "$log" "$log.broker"
	exit "$status"
}

free_port()
{
	/usr/bin/python3 -c 'import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Starts a broker once, and keeps which classes that took.
archive_classes()
{
	local dir=$log.broker port controller_port try

	port=$(free_port)
	controller_port=$(free_port)
	mkdir -p "$dir"
	printf '%s\n' version=1 cluster.id=dispatch node.id=1 >"$dir/meta.properties"
	cat >"$dir/server.properties" <<-END
		process.roles=broker,controller
		node.id=1
		controller.quorum.voters=1@127.0.0.1:$controller_port
		listeners=CLIENTS://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
		listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT
		controller.listener.names=CONTROLLER
		inter.broker.listener.name=CLIENTS
		offsets.topic.replication.factor=1
		log.dirs=$dir
	END
	java -Xmx256m -XX:+UseSerialGC -XX:ArchiveClassesAtExit="$home/classes.jsa" \
		-Dlog4j.configuration="file:$here/log4j.properties" -cp "$home/jars/*" \
		kafka.Kafka "$dir/server.properties" >>"$log" 2>&1 &
	broker=$!
	for try in {1..600}; do
		! grep -q 'Kafka Server started' "$log" || break
		kill -0 $broker 2>/dev/null || break
		sleep 0.1
	done
	kill $broker
	wait $broker || true
	broker=
	grep -q 'Kafka Server started' "$log"
}

fetch()
{
	mvn --batch-mode --quiet --file "$here/pom.xml" "$plugin:copy-dependencies" \
		-DincludeScope=runtime -DoutputDirectory="$home/jars" >>"$log" 2>&1
	/usr/bin/python3 -m venv "$home/python" >>"$log" 2>&1
	"$home/python/bin/pip" install --quiet --disable-pip-version-check \
		--requirement "$here/requirements.txt" >>"$log" 2>&1
	archive_classes
}

mkdir -p "$DISPATCH_CACHE"
exec 9>"$DISPATCH_CACHE/lock"
flock 9
[ "$(made_of)" != "$(cat "$home/ready" 2>/dev/null)" ] || exit 0

trap cleanup EXIT
echo "Getting Apache Kafka for the tests, into $home"
log=$(mktemp --tmpdir dispatch-kafka.XXXXXX)
rm -rf "$home"
mkdir "$home"
fetch
made_of >"$home/ready"
# Root gets it, an ordinary user runs the tests.
chmod -R a+rX "$home"
