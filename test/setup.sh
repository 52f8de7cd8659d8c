#!/usr/bin/env bash
#
# setup.sh: installs what the tests and the demo need and this machine lacks.
#
# Made for Debian and Ubuntu, for root or a user with sudo.  Where nothing is
# missing, nothing is run but the look.  Server packages start their server
# when they are installed: policy-rc.d, Debian's switch for that, is in place
# meanwhile, so that this leaves nothing running.
#
# usage: setup.sh bench|check|demo
#
# The demo can do without Redis, where the distribution has none.

set -euo pipefail

what=$1
lacking=()
pg_config=${PG_CONFIG:-pg_config}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# need <package> <command that succeeds where it is there>
need()
{
	local package=$1

	shift
	"$@" >/dev/null 2>&1 || lacking+=("$package")
}

# Debian's package of the client brings PGXS; the headers are what it lacks.
has_server()
{
	[ -x "$("$pg_config" --bindir)/postgres" ] && [ -e "$("$pg_config" --pgxs)" ] &&
		[ -e "$("$pg_config" --includedir-server)/postgres.h" ]
}

has_plpython()
{
	[ -e "$("$pg_config" --pkglibdir)/plpython3.so" ]
}

has_pgq()
{
	[ -e "$("$pg_config" --sharedir)/extension/pgq.control" ]
}

has_libc_headers()
{
	echo '#include <stdio.h>' | gcc -E - -o /dev/null
}

# The newest server that is installed, else the distribution's.
server_version()
{
	local version

	version=$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | cut -d/ -f5 | sort -V | tail -n 1)
	[ "$version" != '*' ] ||
		version=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p')
	echo "$version"
}

install_lacking()
{
	local policy=/usr/sbin/policy-rc.d version package packages=()

	command -v apt-get >/dev/null ||
		{ echo "no apt-get here: install the equivalents of ${lacking[*]}" >&2; return 1; }
	echo 'Looking for what is missing here'
	as_root apt-get update -qq
	version=$(server_version)
	for package in "${lacking[@]}"; do
		if [ "$package" = redis-server ] && [ "$what" = demo ] &&
			[ -z "$(apt-cache madison redis-server)" ]; then
			continue
		fi
		packages+=("${package/VERSION/$version}")
	done
	echo "Installing: ${packages[*]}"
	if [ ! -e $policy ]; then
		trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
		as_root chmod 755 $policy
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		--no-install-recommends -o Dpkg::Use-Pty=0 "${packages[@]}" >/dev/null
}

# Nothing of it is run for this look: it would leave a process behind.
has_rabbitmq()
{
	[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]
}

need_rabbitmq()
{
	need rabbitmq-server has_rabbitmq
	need python3-pika /usr/bin/python3 -c 'import pika'
}

demo=${DEMO:-redis}
[ -e "test/demo_$demo.sh" ] || {
	echo "DEMO=$demo: there is no such demo; there are redis, kafka and rabbitmq" >&2
	exit 2
}

need gcc command -v gcc
need libc6-dev has_libc_headers
need pkg-config command -v pkg-config
has_server >/dev/null 2>&1 || lacking+=(postgresql-VERSION postgresql-server-dev-VERSION)
need libhiredis-dev pkg-config --exists hiredis
need librabbitmq-dev pkg-config --exists librabbitmq
need libssl-dev pkg-config --exists openssl
need librdkafka-dev pkg-config --exists rdkafka
need redis-server command -v redis-server
need redis-tools command -v redis-cli
if [ "$what" != demo ] || [ "$demo" = rabbitmq ]; then
	need_rabbitmq
fi
if [ "$what" != demo ] || [ "$demo" = kafka ]; then
	need default-jre-headless command -v java
	need maven command -v mvn
	need kcat command -v kcat
	need python3-venv /usr/bin/python3 -c 'import ensurepip'
fi
if [ "$what" != demo ]; then
	need perl perl -MTest::More -MTAP::Harness -e 1
	need libipc-run-perl perl -MIPC::Run -e 1
	need libdbd-pg-perl perl -MDBD::Pg -e 1
	need libredis-perl perl -MRedis -e 1
	need python3-redis /usr/bin/python3 -c 'import redis'
	need openssl command -v openssl
	need strace command -v strace
	need postgresql-plpython3-VERSION has_plpython
	need openssl command -v openssl
fi
# What the rivals need is got by whoever asks for that benchmark only.
rivals=
case "$what ${BENCH:-rivals}" in
	"bench "*rivals*) rivals=yes ;;
esac
if [ -n "$rivals" ]; then
	need python3-psycopg2 /usr/bin/python3 -c 'import psycopg2'
	need python3-venv /usr/bin/python3 -c 'import venv, ensurepip'
	need postgresql-VERSION-pgq3 has_pgq
	need pgqd command -v pgqd
	need default-jre-headless command -v java
	need maven command -v mvn
fi

[ ${#lacking[@]} -eq 0 ] || install_lacking
if [ -n "$rivals" ]; then
	cache=${DISPATCH_BENCH_CACHE:-/var/cache/dispatch-bench}
	[ -w "$cache" ] || as_root install -d -o "$(id -un)" "$cache"
	bash test/bench/rivals/setup.sh "$cache"
fi

# A machine without Maven Central still runs the other tests: not so in CI.
if [ "$what" != demo ] || [ "$demo" = kafka ]; then
	bash test/kafka/fetch.sh || [ "${CI:-}" != true ]
fi
