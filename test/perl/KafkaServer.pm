#
# KafkaServer: an Apache Kafka of a test's own, of one node or of several.
#
# Nodes are in KRaft mode, broker and controller at once.  They run on free
# ports in directories of their own, as children that the test can stop, kill,
# freeze and start again on the same ports, and they end with the test, however
# that ends.  One that does not come up ends the test: a broker that is missing
# is a failure, never a skip.  The jars are those of test/kafka/fetch.sh.
#
#     my $kafka = KafkaServer->new(nodes => 3);
#     $kafka->create_topic('orders', partitions => 6, replication => 3);
#     $kafka->kill9(2);
#     is(scalar $kafka->records('orders'), 3, 'three records');
#
# A cluster is administered and read by test/python/kafka_client.py, a process
# that is kept, and looked at by kcat: neither starts a JVM.
#
package KafkaServer;

use strict;
use warnings;

use Carp;
use Cwd qw(getcwd);
use IPC::Open2;
use IPC::Run;
use JSON::PP ();
use List::Util qw(any);
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Test::More ();
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use ChildServer qw(spawn end_processes);

my $START_SECONDS = 90;
my $STOP_SECONDS = 30;
my $HOST = '127.0.0.1';

# What differs from Kafka's defaults: topics are made by tests alone, small
# ones; a node that is gone is noticed in seconds.
my %CONF = (
	'auto.create.topics.enable' => 'false',
	'num.partitions' => 1,
	'num.network.threads' => 2,
	'num.io.threads' => 2,
	'background.threads' => 2,
	'log.cleaner.dedupe.buffer.size' => 4 * 1024 * 1024,
	'log.index.size.max.bytes' => 1024 * 1024,
	'offsets.topic.num.partitions' => 1,
	'transaction.state.log.num.partitions' => 1,
	'group.initial.rebalance.delay.ms' => 0,
	'broker.heartbeat.interval.ms' => 500,
	'broker.session.timeout.ms' => 3000,
	'replica.lag.time.max.ms' => 3000,
	'replica.fetch.wait.max.ms' => 100,
	'controller.quorum.election.timeout.ms' => 500,
	'controller.quorum.fetch.timeout.ms' => 1000,
	'controlled.shutdown.max.retries' => 1);

# A small one that is up soon.
my @JAVA = qw(-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1);

my $json = JSON::PP->new->utf8->allow_nonref->canonical;
my @all_servers;

# new(nodes => 1, conf => {property => value, ...}, listeners => {NAME =>
# 'SASL_SSL', ...}, java => [options], start => 0): makes a cluster and starts
# it.  Beside the listeners asked for there is CLIENTS, plain, for all.
sub new
{
	my ($class, %options) = @_;
	my $home = ($ENV{DISPATCH_CACHE} // '') . '/kafka';
	my $self = bless {
		home => $home,
		sources => getcwd(),
		conf => { %CONF, %{ $options{conf} // {} } },
		java => $options{java} // \@JAVA,
		protocols =>
		  { CLIENTS => 'PLAINTEXT', CONTROLLER => 'PLAINTEXT', %{ $options{listeners} // {} } },
		advertised => {},
		nodes => [] }, $class;

	Test::More::BAIL_OUT("there is no Apache Kafka in $home") unless -e "$home/ready";
	foreach my $id (1 .. $options{nodes} // 1)
	{
		my %ports = map { $_ => PostgreSQL::Test::Cluster::get_free_port() }
		  sort keys %{ $self->{protocols} };
		my $dir = PostgreSQL::Test::Utils::tempdir("kafka$id");

		mkdir "$dir/log" or die "$dir/log: $!";
		PostgreSQL::Test::Utils::append_to_file("$dir/log/meta.properties",
			"version=1\ncluster.id=dispatch\nnode.id=$id\n");
		push @{ $self->{nodes} }, { id => $id, dir => $dir, ports => \%ports };
	}
	push @all_servers, $self;
	$self->start if $options{start} // 1;
	return $self;
}

sub host { return $HOST; }
sub ids { return map { $_->{id} } @{ $_[0]->{nodes} }; }

sub _node
{
	my ($self, $id) = @_;

	return $self->{nodes}[ ($id // 1) - 1 ] // croak "there is no node $id";
}

sub pid { return $_[0]->_node($_[1])->{pid}; }
sub dir { return $_[0]->_node($_[1])->{dir}; }
sub log_file { return $_[0]->dir($_[1]) . '/kafka.log'; }

# Where a node listens; its first listener without a name.
sub port
{
	my ($self, $listener, $id) = @_;

	return $self->_node($id)->{ports}{ $listener // 'CLIENTS' };
}

# Tells clients of a listener of a node to come to this port instead, from the
# next start on: that of a proxy.
sub advertise
{
	my ($self, $listener, $port, $id) = @_;

	$self->_node($id)->{advertised}{$listener} = $port;
	return;
}

sub set_conf
{
	my ($self, %conf) = @_;

	@{ $self->{conf} }{ keys %conf } = values %conf;
	return;
}

# "host:port,..." of all nodes, as bootstrap_servers takes it.
sub servers
{
	my ($self, $listener) = @_;

	return join ',', map { "$HOST:" . $self->port($listener, $_) } $self->ids;
}

# ---- Processes

sub _properties
{
	my ($self, $node) = @_;
	my $protocols = $self->{protocols};
	my @names = sort keys %$protocols;
	my %at = map { $_ => "$_://$HOST:$node->{ports}{$_}" } @names;
	my $replicas = @{ $self->{nodes} } < 3 ? 1 : 3;
	my %conf = (
		'process.roles' => 'broker,controller',
		'node.id' => $node->{id},
		'log.dirs' => "$node->{dir}/log",
		'listeners' => join(',', @at{@names}),
		'advertised.listeners' => join(
			',',
			map { "$_://$HOST:" . ($node->{advertised}{$_} // $node->{ports}{$_}) }
			grep { $_ ne 'CONTROLLER' } @names),
		'listener.security.protocol.map' => join(',', map { "$_:$protocols->{$_}" } @names),
		'controller.listener.names' => 'CONTROLLER',
		'inter.broker.listener.name' => 'CLIENTS',
		'controller.quorum.voters' =>
		  join(',', map { "$_->{id}\@$HOST:$_->{ports}{CONTROLLER}" } @{ $self->{nodes} }),
		'offsets.topic.replication.factor' => $replicas,
		'transaction.state.log.replication.factor' => $replicas,
		%{ $self->{conf} });

	return map { "$_=$conf{$_}\n" } sort keys %conf;
}

# Starts nodes, all without a number: again on the same ports, with what their
# files hold.  Returns when every node knows them.
sub start
{
	my ($self, @ids) = @_;

	@ids = grep { !$self->pid($_) } $self->ids if !@ids;
	$self->launch(@ids);
	$self->wait_for_nodes;
	return;
}

# The same without waiting.
sub launch
{
	my ($self, @ids) = @_;

	foreach my $node (map { $self->_node($_) } @ids)
	{
		croak "node $node->{id} is running already" if $node->{pid};
		open my $out, '>', "$node->{dir}/server.properties" or die "server.properties: $!";
		print $out $self->_properties($node);
		close $out or die "server.properties: $!";
		$node->{pid} = $self->_spawn($node);
	}
	return;
}

sub _spawn
{
	my ($self, $node) = @_;

	# In its own directory, by which run.sh knows it.
	return spawn(
		"$node->{dir}/kafka.log", 'env', '-C', $node->{dir},
		'java', @{ $self->{java} }, '-XX:-UsePerfData',
		"-XX:SharedArchiveFile=$self->{home}/classes.jsa", '-Djava.awt.headless=true',
		"-Djava.io.tmpdir=$node->{dir}",
		"-Dlog4j.configuration=file:$self->{sources}/test/kafka/log4j.properties",
		'-cp', "$self->{home}/jars/*", 'kafka.Kafka', 'server.properties');
}

# Waits until each node that runs says that all that run are there.
sub wait_for_nodes
{
	my ($self) = @_;
	my $deadline = time + $START_SECONDS;
	my @ids = grep { $self->pid($_) } $self->ids;

	while (any { !$self->_knows($_, @ids) } @ids)
	{
		foreach my $node (grep { $_->{pid} } @{ $self->{nodes} })
		{
			next if waitpid($node->{pid}, POSIX::WNOHANG()) == 0;
			$node->{pid} = undef;
			Test::More::BAIL_OUT("Kafka ended: " . $self->log_tail($node->{id}));
		}
		Test::More::BAIL_OUT('Kafka is not up: ' . $self->log_tail($ids[0])) if time > $deadline;
		sleep 0.05;
	}
	return;
}

# Does a node say that these are there?
sub _knows
{
	my ($self, $id, @ids) = @_;
	my $brokers = ($self->metadata(node => $id) // return 0)->{brokers};
	my %there = map { $_->{id} => 1 } @$brokers;

	return @ids == grep { $there{$_} } @ids;
}

# Stops nodes in an orderly way: all of them without a number.
sub stop
{
	my ($self, @ids) = @_;

	$self->_end('TERM', @ids);
	return;
}

# Kills them, as machines that lose power would (what they have written is in
# the cache of the kernel, though).
sub kill9
{
	my ($self, @ids) = @_;

	$self->_end('KILL', @ids);
	return;
}

sub restart
{
	my ($self, @ids) = @_;

	$self->stop(@ids);
	$self->start(@ids);
	return;
}

# Frozen nodes: connections are accepted by the kernel, nothing is answered.
sub sigstop { return $_[0]->_signal('STOP', @_[ 1 .. $#_ ]); }
sub sigcont { return $_[0]->_signal('CONT', @_[ 1 .. $#_ ]); }

sub _signal
{
	my ($self, $signal, @ids) = @_;

	kill $signal, $_ foreach grep { $_ } map { $self->pid($_) } @ids ? @ids : $self->ids;
	return;
}

# All nodes, or those with these numbers, as far as they run.
sub _end
{
	my ($self, $signal, @ids) = @_;
	my @nodes = grep { $_->{pid} } map { $self->_node($_) } @ids ? @ids : $self->ids;

	end_processes($signal, $STOP_SECONDS, map { $_->{pid} } @nodes);
	$_->{pid} = undef foreach @nodes;
	return;
}

sub log_tail
{
	my ($self, $id) = @_;
	my $file = $self->log_file($id);
	my $log = -e $file ? PostgreSQL::Test::Utils::slurp_file($file) : '';

	return substr $log, length $log > 4000 ? -4000 : 0;
}

# ---- What it holds

# metadata(topic => ..., node => id): what kcat prints of it; undef if the nodes
# do not answer.
sub metadata
{
	my ($self, %of) = @_;
	my $servers = $of{node} ? "$HOST:" . $self->port(undef, $of{node}) : $self->servers;
	my @topic = defined $of{topic} ? ('-t', $of{topic}) : ();
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[ 'kcat', '-q', '-b', $servers, '-L', '-J', '-m', 2, @topic ],
		'<', \undef, '>', \$out, '2>', \$err) or return;
	return eval { $json->decode($out) };
}

# {leader, replicas => [...], isrs => [...]} for each partition of a topic, as a
# node sees them; dies if it knows none.
sub partitions
{
	my ($self, $topic, $node) = @_;
	my $metadata = $self->metadata(topic => $topic, node => $node) // croak 'no metadata';

	croak "there is no topic $topic" if !@{ $metadata->{topics}[0]{partitions} // [] };

	return map {
		{
			leader => $_->{leader},
			replicas => [ map { $_->{id} } @{ $_->{replicas} } ],
			isrs => [ map { $_->{id} } @{ $_->{isrs} } ]
		}
	} sort { $a->{partition} <=> $b->{partition} } @{ $metadata->{topics}[0]{partitions} };
}

# create_topic(name, partitions => 1, replication => 1, config => {...},
# assignment => {partition => [nodes]}); returns when it has its leaders.
sub create_topic
{
	my ($self, $topic, %args) = @_;

	$self->ask(
		'create_topic', topic => $topic, partitions => 0 + ($args{partitions} // 1),
		replication => 0 + ($args{replication} // 1),
		assignment => $args{assignment},
		config => { map { $_ => "$args{config}{$_}" } keys %{ $args{config} // {} } });
	$self->wait_for_leaders($topic);
	return;
}

# Until each node that runs knows a leader of each partition.
sub wait_for_leaders
{
	my ($self, $topic) = @_;
	my $deadline = time + $START_SECONDS;

	foreach my $id (grep { $self->pid($_) } $self->ids)
	{
		until (eval { !grep { $_->{leader} < 1 } $self->partitions($topic, $id) })
		{
			Test::More::BAIL_OUT("topic $topic has no leader") if time > $deadline;
			sleep 0.02;
		}
	}
	return;
}

# All records of a topic, those of a partition in their order: {partition,
# offset, timestamp, timestamp_type, key, value, headers => [[name, value],
# ...]}, as bytes.
sub records
{
	my ($self, $topic, %args) = @_;
	my $count = $self->ask('read', topic => $topic, %args);
	my @records;

	foreach (1 .. $count // 0)
	{
		my $line = readline $self->{from_client};

		chomp $line;
		my ($partition, $offset, $timestamp, $type, @texts) = split /\t/, $line;
		my ($key, $value, @headers) =
		  map { $_ eq '-' ? undef : decode_base64(substr $_, 1) } @texts;

		push @records,
		  {
			partition => $partition, offset => $offset, timestamp => $timestamp,
			timestamp_type => $type, key => $key, value => $value,
			headers => [ map { [ @headers[ 2 * $_, 2 * $_ + 1 ] ] } 0 .. @headers / 2 - 1 ]
		  };
	}
	return @records;
}

# run_tool(class, arguments): one of Kafka's own command line tools, for what the
# client cannot do.
sub run_tool
{
	my ($self, $class, @arguments) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[
			'java', '-Xmx128m', '-XX:TieredStopAtLevel=1', '-XX:-UsePerfData',
			"-Dlog4j.configuration=file:$self->{sources}/test/kafka/log4j.properties",
			'-cp', "$self->{home}/jars/*", $class,
			'--bootstrap-server', $self->servers, @arguments
		],
		'<', \undef, '>', \$out, '2>', \$err) or croak "$class @arguments: $err$out";
	return $out;
}

# ask(operation, arguments): of kafka_client.py; dies of what it does not get.
sub ask
{
	my ($self, $operation, %args) = @_;
	my ($line, $answer);

	$self->{client} //= open2(
		@$self{qw(from_client to_client)},
		"$self->{home}/python/bin/python", 'test/python/kafka_client.py');
	$args{servers} //= $self->servers unless $operation =~ /^(?:placement|hashes)$/;
	print { $self->{to_client} } $json->encode({ op => $operation, %args }), "\n";
	$self->{to_client}->flush;
	$line = readline $self->{from_client};
	croak 'the client of Kafka is gone' if !defined $line;
	$answer = $json->decode($line);
	croak "$operation: $answer->{error}" if exists $answer->{error};
	return $answer->{ok};
}

END
{
	# waitpid changes it, and it is the result of the test.
	my $exit_code = $?;

	foreach my $server (@all_servers)
	{
		$server->kill9;
		next if !$server->{client};
		kill 'KILL', $server->{client};
		waitpid $server->{client}, 0;
	}
	$? = $exit_code;
}

1;
