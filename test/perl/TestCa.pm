#
# TestCa: a certificate authority of a test's own, in files.
#
#     my $ca = TestCa->new('ours');
#     my $server = $ca->issue('server', hosts => ['DNS:localhost']);
#     $rabbit->listen_tls(%$server);		# {cert, key, ca}, each a file
#     TestCa::pem($server->{cert})
#
package TestCa;

use strict;
use warnings;

use Carp;
use IPC::Run;

use PostgreSQL::Test::Utils;

my $DAYS = 30;
my $EXPIRED = '20200102000000Z';

# Of "openssl ca", which alone can say when a certificate ends.
my $CONFIG = <<'END';
[ca]
default_ca = here
[here]
dir = .
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
END

# new(name): what it is called in certificates.
sub new
{
	my ($class, $name) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir('ca');
	my $self = bless { dir => $dir, cert => "$dir/ca.crt", key => "$dir/ca.key" }, $class;

	_write("$dir/config", $CONFIG);
	_write("$dir/index", '');
	_write("$dir/serial", "01\n");
	$self->_openssl(
		qw(req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes), '-days', $DAYS,
		'-subj', "/CN=$name", '-keyout', $self->{key}, '-out', $self->{cert});
	return $self;
}

sub cert { return $_[0]->{cert}; }

# issue(name, hosts => ['DNS:localhost', 'IP:127.0.0.1'], expired => 1,
# password => text): a certificate and its key, encrypted where there is a
# password.
sub issue
{
	my ($self, $name, %options) = @_;
	my ($key, $cert) = map { "$self->{dir}/$name.$_" } qw(key crt);
	my $hosts = join ',', @{ $options{hosts} // ['DNS:localhost'] };

	$self->_openssl(
		qw(req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1), '-subj', "/CN=$name",
		'-addext', "subjectAltName=$hosts", '-keyout', $key, '-out', "$cert.req",
		defined $options{password} ? ('-passout', "pass:$options{password}") : '-nodes');
	$self->_openssl(
		qw(ca -batch -notext -config config), '-cert', $self->{cert}, '-keyfile', $self->{key},
		'-in', "$cert.req", '-out', $cert,
		$options{expired}
		? ('-startdate', '20200101000000Z', '-enddate', $EXPIRED)
		: ('-days', $DAYS));
	return { cert => $cert, key => $key, ca => $self->{cert} };
}

# The content of a file, as options take it.
sub pem { return PostgreSQL::Test::Utils::slurp_file($_[0]); }

sub _openssl
{
	my ($self, @command) = @_;
	my ($out, $err) = ('', '');

	# The command "ca" has its files where it is started.
	IPC::Run::run(
		[ 'openssl', @command ],
		'<', \undef, '>', \$out, '2>', \$err, init => sub { chdir $self->{dir} })
	  or croak "openssl @command: $err";
	return;
}

sub _write
{
	my ($file, $content) = @_;

	open my $out, '>', $file or croak "$file: $!";
	print $out $content;
	close $out or croak "$file: $!";
	return;
}

1;
