#
# Bench::Rival::Django: the worker of Django Dispatch, which the package index
# has by the name of django-broadcaster.
#
# Its worker sleeps whole seconds after each batch, 5 by default, and its stream
# keeps 10,000 entries: with --interval 0 and without a limit it does its best.
#
package Bench::Rival::Django;

use strict;
use warnings;

use parent 'Bench::Rival';

use Cwd qw(abs_path);

my $SETTINGS = abs_path('test/bench/rivals');

sub name { return 'Django Dispatch'; }
sub rate { return 50; }

sub _python
{
	my ($self) = @_;

	return $self->cache . '/django/bin/python';
}

sub lacks
{
	my ($self) = @_;

	return -e $self->cache . '/django/complete' ? () : 'django-broadcaster';
}

sub _django
{
	my ($self, @arguments) = @_;

	return (
		'env', "PYTHONPATH=$SETTINGS", 'PYTHONDONTWRITEBYTECODE=1',
		'DJANGO_SETTINGS_MODULE=django_settings',
		'BENCH_PGHOST=' . $self->node->host, 'BENCH_PGPORT=' . $self->node->port,
		'BENCH_REDIS_PORT=' . $self->redis->port, 'BENCH_STREAM=' . $self->stream,
		$self->_python, '-m', 'django', @arguments);
}

sub create
{
	my ($self) = @_;

	$self->spawn('migrate', $self->_django('migrate', '--verbosity', 0));
	$self->wait_for_end;
	return;
}

# As its publish_event() would; in SQL, for Python could not load the queue.
sub publish_sql
{
	my ($self, $count) = @_;

	return <<~"SQL";
		INSERT INTO outbox_events
			(id, spec_version, event_type, source, subject, data_content_type, data_schema,
			 data, status, created_at, updated_at, scheduled_at, retry_count, max_retries,
			 last_error, publisher_backend, publisher_config)
		SELECT gen_random_uuid(), '1.0', 'order.created', 'shop', '', 'application/json', '',
			   $Bench::Rival::DATA, 'pending', now(), now(), now(), 0, 3, '', '', '{}'
		  FROM generate_series(1, $count)
		SQL
}

sub start
{
	my ($self) = @_;

	$self->spawn('worker', $self->_django('outbox_worker', '--interval', 0));
	return;
}

1;
