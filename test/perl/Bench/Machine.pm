#
# Bench::Machine: where and with what a benchmark was run.
#
package Bench::Machine;

use strict;
use warnings;

use Exporter 'import';
use POSIX qw(strftime);

our @EXPORT_OK = qw(facts);

# First match of a pattern in a file.
sub _look
{
	my ($file, $pattern) = @_;

	open my $in, '<', $file or return 'unknown';
	while (my $line = <$in>)
	{
		return $1 if $line =~ $pattern;
	}
	return 'unknown';
}

# First match of a pattern in what a command prints; nothing without it.
sub _ask
{
	my ($command, $pattern) = @_;
	my $answer = qx($command 2>/dev/null) // '';

	return $answer =~ $pattern ? $1 : ();
}

sub _processors
{
	my @online = glob '/sys/devices/system/cpu/cpu[0-9]*';

	return @online . ' x ' . _look('/proc/cpuinfo', qr/^model name\s*: (.*)/);
}

sub _versions
{
	my %program = (
		PostgreSQL => [ 'postgres --version', qr/(\d+\.\d+)/ ],
		Redis => [ 'redis-server --version', qr/v=(\S+)/ ],
		librdkafka => [ 'pkg-config --modversion rdkafka', qr/(\S+)/ ],
		'rabbitmq-c' => [ 'pkg-config --modversion librabbitmq', qr/(\S+)/ ],
		RabbitMQ => [ 'dpkg-query -W rabbitmq-server', qr/\t([\d.]+)/ ]);

	my ($jar) = glob "'" . ($ENV{DISPATCH_CACHE} // '') . "/kafka/jars/kafka-server-[0-9]*.jar'";
	my @kafka = ($jar // '') =~ /-([\d.]+)\.jar$/ ? "Kafka $1" : ();

	return join ', ', @kafka, map {
		my $name = $_;
		map { "$name $_" } _ask(@{ $program{$name} });
	} sort keys %program;
}

# [name, value], ... in the order to show them in.
sub facts
{
	my $memory = _look('/proc/meminfo', qr/^MemTotal:\s+(\d+)/);
	my $command = join ' ', 'make bench',
	  map { length($ENV{$_} // '') ? "$_=$ENV{$_}" : () } qw(BENCH SIZE OUTAGE);

	return (
		[ date => strftime('%Y-%m-%d %H:%M', gmtime) . ' UTC' ],
		[ command => $command ],
		[ processors => _processors() ],
		[ memory => sprintf '%.0f GB', $memory / 1024**2 ],
		[ system => _look('/etc/os-release', qr/^PRETTY_NAME="(.*)"/)
			. ', Linux ' . _look('/proc/sys/kernel/osrelease', qr/(\S+)/) ],
		[ versions => _versions() ],
		[ 'load before' => _look('/proc/loadavg', qr/^(\S+)/) ]);
}

1;
