#
# RabbitServer: a RabbitMQ server of a test's own.
#
# It runs as whoever runs the test, on free ports and in a directory of its own,
# with its own port mapper of Erlang: nothing of it is shared with a server that
# the machine may run, and nothing is left when the test ends, however it does.
# See ChildServer.pm for what can be done to it.
#
#     my $rabbit = RabbitServer->new;
#     $rabbit->client->queue('events', durable => 1);
#     $rabbit->create_backend($node, exchange => '', routing_key => 'events');
#     is(scalar $rabbit->client->drain('events'), 3, 'three messages');
#
# What an AMQP client can do is done by one (see AmqpClient.pm).  The rest is
# Erlang that the server evaluates itself, which takes milliseconds where
# rabbitmqctl takes seconds.
#
package RabbitServer;

use strict;
use warnings;

use AmqpClient;
use Carp;
use DBD::Pg ();
use DBI ();
use IO::Socket::INET;
use IPC::Run;
use JSON::PP ();
use Time::HiRes qw(sleep time);

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

use parent 'ChildServer';

# Not those in PATH, which insist on the users root and rabbitmq.
my $SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server';

my $START_SECONDS = 120;			# about 5 where nothing else runs
my $STOP_SECONDS = 30;
my $EVAL_SECONDS = 30;
my $COOKIE = 'dispatch';
my $WHO = '<<"test">>';				# who does it, in the server's log
my $MEMORY_WATERMARK = '0.4';
my $DISK_LIMIT = '1MB';

# What a client says first, and the type of the frame that is the answer.
my $AMQP_HEADER = "AMQP\0\0\x09\x01";
my $METHOD_FRAME = "\x01";

# new(conf => {directive => value, ...}): starts a server.
sub new
{
	my ($class, %options) = @_;
	my $self = $class->child(
		'rabbit', start_seconds => $START_SECONDS, stop_seconds => $STOP_SECONDS,
		conf => $options{conf} // {},
		map { $_ => PostgreSQL::Test::Cluster::get_free_port() } qw(port dist_port epmd_port));

	$self->_write_files;
	# One that the server starts itself would outlive it, in the root directory.
	$self->helper('epmd', '-port', $self->{epmd_port}, '-address', $self->host);
	$self->start;
	return $self;
}

sub log_content
{
	my ($self) = @_;

	return join '', map { PostgreSQL::Test::Utils::slurp_file($_) }
	  glob "$self->{dir}/output $self->{dir}/log/*.log";
}

sub _write_files
{
	my ($self) = @_;
	my $dir = $self->{dir};
	my %conf = (
		'listeners.tcp.1' => $self->host . ":$self->{port}",
		'disk_free_limit.absolute' => $DISK_LIMIT,
		'vm_memory_high_watermark.relative' => $MEMORY_WATERMARK,
		'log.console' => 'false',
		# By default room for half a gigabyte.
		'raft.wal_max_size_bytes' => 64 * 1024 * 1024,
		%{ $self->{conf} });

	mkdir "$dir/$_" or croak "$dir/$_: $!" foreach qw(home log mnesia);
	_write("$dir/rabbitmq.conf", map { "$_ = $conf{$_}\n" } sort keys %conf);
	_write("$dir/plugins", "[].\n");
	_write("$dir/home/.erlang.cookie", $COOKIE);
	chmod 0400, "$dir/home/.erlang.cookie";
	return;
}

sub _write
{
	my ($file, @content) = @_;

	open my $out, '>', $file or croak "$file: $!";
	print $out @content;
	close $out or croak "$file: $!";
	return;
}

# ---- The process

# Starts it, again on the same ports and with what its files hold.
sub start
{
	my ($self) = @_;
	my $dir = $self->{dir};

	local %ENV = (
		%ENV,
		HOME => "$dir/home",
		ERL_EPMD_PORT => $self->{epmd_port},
		ERL_EPMD_ADDRESS => $self->host,
		RABBITMQ_CONF_ENV_FILE => "$dir/none",
		RABBITMQ_CONFIG_FILE => "$dir/rabbitmq.conf",
		RABBITMQ_DIST_PORT => $self->{dist_port},
		RABBITMQ_ENABLED_PLUGINS_FILE => "$dir/plugins",
		RABBITMQ_LOG_BASE => "$dir/log",
		RABBITMQ_MNESIA_BASE => "$dir/mnesia",
		RABBITMQ_NODENAME => "test$self->{port}\@localhost",
		RABBITMQ_PID_FILE => "$dir/pid",
		# Schedulers that spin take the processor from what is tested.
		RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS => '-kernel inet_dist_use_interface {127,0,0,1}'
		  . ' +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none',
		# Makes the script become the server instead of waiting for it.
		RUNNING_UNDER_SYSTEMD => 'true');

	$self->run($SERVER);
	return;
}

# It listens only when all of it is up.
sub answers
{
	my ($self) = @_;
	my $socket = IO::Socket::INET->new(
		PeerAddr => $self->host, PeerPort => $self->{port}, Timeout => 5) or return 0;
	my $frame = '';
	syswrite $socket, $AMQP_HEADER;
	sysread $socket, $frame, 1;
	return $frame eq $METHOD_FRAME;
}

# ---- What an operator does

# Has the server evaluate Erlang; returns what comes of it, as text.  What fails
# ends the test.
sub eval_erlang
{
	my ($self, $code) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[
			'erl_call', '-address', $self->host . ":$self->{dist_port}", '-c', $COOKIE,
			'-h', "test$$", '-timeout', $EVAL_SECONDS, '-e' ],
		'<', \"$code.\n", '>', \$out, '2>', \$err);
	croak "$code: $out$err" if $out !~ /\A\{ok, (.*)\}\z/s || $1 =~ /\A\{error,/;
	return $1;
}

# A binary of Erlang, byte by byte: so it needs no quoting.
sub _bin { return '<<' . join(',', unpack 'C*', $_[0]) . '>>'; }

# add_user(name, password): one who may do everything in "/"; permissions
# (configure, write, read) say otherwise.
sub add_user
{
	my ($self, $user, $password, %permissions) = @_;
	my @arguments = map { _bin($_) } $user, $password;

	$self->eval_erlang("rabbit_auth_backend_internal:add_user($arguments[0], $arguments[1], $WHO)");
	$self->set_permissions($user, '/', %permissions);
	return;
}

sub set_permissions
{
	my ($self, $user, $vhost, %permissions) = @_;
	my @arguments = map { _bin($_) } $user, $vhost,
	  map { $permissions{$_} // '.*' } qw(configure write read);

	$self->eval_erlang('rabbit_auth_backend_internal:set_permissions('
		  . join(', ', @arguments, $WHO) . ')');
	return;
}

sub change_password
{
	my ($self, $user, $password) = @_;
	my @arguments = map { _bin($_) } $user, $password;

	$self->eval_erlang(
		"rabbit_auth_backend_internal:change_password($arguments[0], $arguments[1], $WHO)");
	return;
}

sub delete_user
{
	my ($self, $user) = @_;

	$self->eval_erlang('rabbit_auth_backend_internal:delete_user(' . _bin($user) . ", $WHO)");
	return;
}

# A virtual host in which guest may do everything.
sub add_vhost
{
	my ($self, $vhost) = @_;

	$self->eval_erlang('rabbit_vhost:add(' . _bin($vhost) . ", $WHO)");
	$self->set_permissions('guest', $vhost);
	return;
}

sub delete_vhost
{
	my ($self, $vhost) = @_;

	$self->eval_erlang('rabbit_vhost:delete(' . _bin($vhost) . ", $WHO)");
	return;
}

# Connections that publish are blocked while there is too little memory, or room
# on the disk.
sub raise_alarm
{
	my ($self, $what) = @_;

	$self->_set_limits(
		$what eq 'memory' ? '0' : $MEMORY_WATERMARK,
		$what eq 'disk' ? '"100000GB"' : qq("$DISK_LIMIT"));
	$self->_wait_for_alarms(sub { $_[0] =~ /\b$what\b/ }, "the $what alarm");
	return;
}

sub clear_alarms
{
	my ($self) = @_;

	$self->_set_limits($MEMORY_WATERMARK, qq("$DISK_LIMIT"));
	$self->_wait_for_alarms(sub { $_[0] eq '[]' }, 'the end of the alarm');
	return;
}

sub _set_limits
{
	my ($self, $memory, $disk) = @_;

	$self->eval_erlang("vm_memory_monitor:set_vm_memory_high_watermark($memory),"
		  . "rabbit_disk_monitor:set_disk_free_limit($disk)");
	return;
}

sub _wait_for_alarms
{
	my ($self, $condition, $what) = @_;
	my $deadline = time + $EVAL_SECONDS;

	until ($condition->($self->eval_erlang('rabbit_alarm:get_alarms()')))
	{
		croak "timed out waiting for $what" if time > $deadline;
		sleep 0.02;
	}
	return;
}

# Of messages, in bytes; for channels that are opened afterwards.
sub set_max_message_size
{
	my ($self, $bytes) = @_;

	$self->eval_erlang("application:set_env(rabbit, max_message_size, $bytes)");
	return;
}

# As an operator does who has had enough of a client.
sub close_connections
{
	my ($self, $reason) = @_;

	$self->eval_erlang("[rabbit_networking:close_connection(C, \"$reason\")"
		  . ' || C <- rabbit_networking:connections()]');
	return;
}

# The broker stops and starts within its process, which takes less time.
sub restart_app
{
	my ($self) = @_;

	$self->eval_erlang('rabbit:stop(), rabbit:start()');
	return;
}

# listen_tls(cert => file, key => file, ca => file, verify => 1): one more
# listener; with verify, clients need a certificate of that CA.  Its port.
sub listen_tls
{
	my ($self, %options) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my @tls = map { qq({$_->[0], "$_->[1]"}) }
	  ([ certfile => $options{cert} ], [ keyfile => $options{key} ],
		[ cacertfile => $options{ca} ]);

	push @tls, $options{verify}
	  ? '{verify, verify_peer}, {fail_if_no_peer_cert, true}' : '{verify, verify_none}';
	push @tls, "{versions, [$options{versions}]}" if $options{versions};
	$self->eval_erlang('rabbit_networking:ensure_ssl(), ok = rabbit_networking:start_ssl_listener('
		  . "{\"" . $self->host . "\", $port, inet}, [" . join(', ', @tls) . '], 2)');
	return $port;
}

# ---- Its clients

# One that is shared by the test, logged in as guest.
sub client
{
	my ($self) = @_;

	return $self->{client} //= $self->new_client;
}

sub new_client
{
	my ($self, %options) = @_;

	return AmqpClient->new(host => $self->host, port => $self->{port}, %options);
}

# create_backend(node, name => ..., database => ..., options): options of the
# transport come on top of the address.
sub create_backend
{
	my ($self, $node, %options) = @_;
	my $name = delete $options{name} // 'default';
	my $database = delete $options{database} // 'postgres';
	my $session = DBI->connect('dbi:Pg:' . $node->connstr($database),
		undef, undef, { RaiseError => 1, PrintError => 0 });

	$session->do(
		'SELECT dispatch.create_backend(?, ?, ?)', undef, $name, 'rabbitmq',
		JSON::PP->new->encode({ host => $self->host, port => 0 + $self->port, %options }));
	$session->disconnect;
	return;
}

1;
