-- The options of the kafka transport: what is taken, what is refused and why.
-- No broker is needed: the backends are never there for long.
\pset format unaligned
CREATE EXTENSION dispatch;
SELECT option, scope, type, default_value, required, secret FROM dispatch.transport_options('kafka');

CREATE FUNCTION try(options jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	what text; why text; hint text;
BEGIN
	PERFORM dispatch.create_backend('try', 'kafka', '{"bootstrap_servers": "localhost:1"}' || options);
	RAISE EXCEPTION 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS what = MESSAGE_TEXT, why = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', what, nullif(why, ''), nullif(hint, ''));
END $$;

-- The servers
SELECT dispatch.create_backend('try', 'kafka');
SELECT s AS servers, try(jsonb_build_object('bootstrap_servers', s)) FROM unnest(ARRAY[
	'k1', 'k1:9092', 'k1:9092,k2.example.com:9093', '[::1]:9092,127.0.0.1', 'under_score-1:1',
	'', ',', 'k1:', 'k1:0', 'k1:65536', 'k1:90920', 'k1:x', 'k1, k2', ' k1', 'k1,', '[::1', '[]x',
	'ssl://k1:9093', '/var/run/kafka.sock', 'user:secret@k1:9092', E'k1\nk2', 'k1:9092/path']) AS s;

-- Single options
SELECT o AS options, try(o::jsonb) FROM unnest(ARRAY[
	'{"topic": "orders"}', '{"topic": "{event_type}"}', '{"topic": ""}', '{"topic": "{"}',
	'{"partition_key": "{data.user.id}"}', '{"partition": 1}', '{"headers": {"a": "b"}}',
	'{"client_id": "me"}', '{"client_id": ""}',
	'{"compression": "none"}', '{"compression": "gzip"}', '{"compression": "snappy"}',
	'{"compression": "lz4"}', '{"compression": "zstd"}', '{"compression": "rar"}',
	'{"linger": 0}', '{"linger": 0.5}', '{"linger": 61}', '{"linger": -1}', '{"linger": "1"}',
	'{"message_timeout": 1}', '{"message_timeout": 3600}', '{"message_timeout": 0.5}',
	'{"connect_timeout": 0}', '{"acks": 1}', '{"config": 1}', '{"config": []}']) AS o;

-- Logging in, and encryption
SELECT o AS options, try(o::jsonb) FROM unnest(ARRAY[
	'{"security_protocol": "ssl"}',
	'{"security_protocol": "SSL"}',
	'{"security_protocol": "sasl_ssl"}',
	'{"security_protocol": "sasl_ssl", "sasl_mechanism": "PLAIN"}',
	'{"security_protocol": "sasl_ssl", "sasl_mechanism": "PLAIN", "username": "u"}',
	'{"security_protocol": "sasl_ssl", "sasl_mechanism": "PLAIN", "username": "u", "password": "p"}',
	'{"security_protocol": "sasl_plaintext", "sasl_mechanism": "SCRAM-SHA-256", "username": "u", "password": "p"}',
	'{"security_protocol": "sasl_ssl", "sasl_mechanism": "SCRAM-SHA-512", "username": "u", "password": "p"}',
	'{"security_protocol": "sasl_ssl", "sasl_mechanism": "GSSAPI", "username": "u", "password": "p"}',
	'{"security_protocol": "sasl_ssl", "sasl_mechanism": "OAUTHBEARER", "username": "u", "password": "p"}',
	'{"username": "u", "password": "p"}',
	'{"security_protocol": "ssl", "sasl_mechanism": "PLAIN"}',
	'{"tls_ca": "-----BEGIN CERTIFICATE-----"}',
	'{"security_protocol": "sasl_plaintext", "sasl_mechanism": "PLAIN", "username": "u", "password": "p", "tls_ca": "-----BEGIN CERTIFICATE-----"}',
	'{"security_protocol": "ssl", "tls_ca": "-----BEGIN CERTIFICATE-----"}',
	'{"security_protocol": "ssl", "tls_ca": "/etc/passwd"}',
	'{"security_protocol": "ssl", "tls_certificate": "-----BEGIN CERTIFICATE-----"}',
	'{"security_protocol": "ssl", "tls_key": "-----BEGIN PRIVATE KEY-----"}',
	'{"security_protocol": "ssl", "tls_key_password": "p"}',
	'{"security_protocol": "ssl", "tls_certificate": "-----BEGIN CERTIFICATE-----", "tls_key": "-----BEGIN PRIVATE KEY-----", "tls_key_password": "p"}']) AS o;

-- Properties of librdkafka that may be set, and their ranges
SELECT p AS property, try(jsonb_build_object('config', p::jsonb)) FROM unnest(ARRAY[
	'{}',
	'{"allow.auto.create.topics": true}', '{"allow.auto.create.topics": "true"}', '{"allow.auto.create.topics": 1}',
	'{"batch.num.messages": 1}', '{"batch.num.messages": 0}', '{"batch.num.messages": 1000001}',
	'{"batch.size": 1}', '{"batch.size": 2147483647}', '{"batch.size": 2147483648}', '{"batch.size": 1.5}',
	'{"batch.size": "1"}', '{"batch.size": "1 "}', '{"batch.size": null}', '{"batch.size": ""}',
	'{"batch.size": {}}', '{"batch.size": []}',
	'{"broker.address.family": "v4"}', '{"broker.address.family": "v5"}',
	'{"broker.address.ttl": 0}', '{"broker.address.ttl": 86400000}',
	'{"compression.level": -1}', '{"compression.level": 12}', '{"compression.level": 13}',
	'{"connections.max.idle.ms": 0}', '{"connections.max.idle.ms": 2147483647}',
	'{"message.max.bytes": 1000}', '{"message.max.bytes": 1000000000}', '{"message.max.bytes": 999}',
	'{"metadata.max.age.ms": 1}', '{"metadata.max.age.ms": 86400000}',
	'{"reconnect.backoff.ms": 0, "reconnect.backoff.max.ms": 10000}',
	'{"retry.backoff.ms": 1}', '{"retry.backoff.ms": 0}',
	'{"socket.connection.setup.timeout.ms": 1000}', '{"socket.connection.setup.timeout.ms": 300001}',
	'{"socket.nagle.disable": false}',
	'{"socket.receive.buffer.bytes": 100000000, "socket.send.buffer.bytes": 0}',
	'{"ssl.cipher.suites": "ECDHE-RSA-AES256-GCM-SHA384:HIGH"}', '{"ssl.cipher.suites": "a b"}', '{"ssl.cipher.suites": ""}',
	'{"ssl.curves.list": "P-521:P-384"}', '{"ssl.sigalgs.list": "RSA+SHA256"}',
	'{"sticky.partitioning.linger.ms": 0}', '{"sticky.partitioning.linger.ms": 900000}',
	'{"topic.metadata.propagation.max.ms": 29999}',
	'{"topic.metadata.refresh.fast.interval.ms": 1}', '{"topic.metadata.refresh.fast.interval.ms": 60000}',
	'{"topic.metadata.refresh.interval.ms": 1000}', '{"topic.metadata.refresh.interval.ms": -1}',
	'{"batch.size": 1000, "linger.ms": 5}']) AS p;

-- Times that contradict each other: no record would be sent in time, or no connection made
SELECT o AS options, try(o::jsonb) FROM unnest(ARRAY[
	'{"linger": 29.9}', '{"linger": 30}', '{"linger": 2, "message_timeout": 2}', '{"linger": 60, "message_timeout": 61}',
	'{"config": {"retry.backoff.ms": 29999}}', '{"config": {"retry.backoff.ms": 30000}}',
	'{"config": {"retry.backoff.ms": "30001"}}', '{"config": {"retry.backoff.ms": 30001}, "message_timeout": 31}',
	'{"config": {"topic.metadata.propagation.max.ms": 60000}}',
	'{"config": {"topic.metadata.propagation.max.ms": 60000}, "message_timeout": 61}',
	'{"config": {"topic.metadata.propagation.max.ms": 0}}',
	'{"config": {"reconnect.backoff.ms": 1000}}', '{"config": {"reconnect.backoff.ms": 1001}}',
	'{"config": {"reconnect.backoff.ms": 5000, "reconnect.backoff.max.ms": 5000}}',
	'{"config": {"reconnect.backoff.ms": 5001, "reconnect.backoff.max.ms": 5000}}',
	'{"config": {"reconnect.backoff.max.ms": 100}}', '{"config": {"reconnect.backoff.max.ms": 99}}']) AS o;

-- Those that may not, each with the reason
SELECT try(jsonb_build_object('config', jsonb_build_object(p, 'x'))) FROM unnest(ARRAY[
	-- what would do harm to the server
	'plugin.library.paths', 'ssl.engine.location', 'ssl.engine.id', 'ssl_engine_callback_data', 'ssl.providers',
	'sasl.kerberos.kinit.cmd', 'sasl.kerberos.keytab', 'sasl.kerberos.principal', 'sasl.kerberos.service.name',
	'ssl.ca.location', 'ssl.key.location', 'ssl.certificate.location', 'ssl.crl.location', 'ssl.keystore.location',
	'ssl.keystore.password', 'ssl.ca.certificate.stores', 'https.ca.location', 'https.ca.pem',
	'sasl.oauthbearer.config', 'sasl.oauthbearer.token.endpoint.url', 'enable.sasl.oauthbearer.unsecure.jwt',
	'internal.termination.signal', 'debug', 'log_level', 'log.queue', 'log_cb', 'error_cb', 'dr_msg_cb', 'opaque',
	'interceptors', 'test.mock.num.brokers',
	-- what would break a promise
	'enable.idempotence', 'enable.gapless.guarantee', 'acks', 'request.required.acks',
	'max.in.flight', 'max.in.flight.requests.per.connection', 'retries', 'message.send.max.retries',
	'partitioner', 'partitioner_cb', 'transactional.id', 'transaction.timeout.ms', 'delivery.report.only.error',
	'queue.buffering.max.messages', 'queue.buffering.max.kbytes', 'queue.buffering.backpressure.threshold',
	'queuing.strategy', 'enable.ssl.certificate.verification', 'ssl.endpoint.identification.algorithm',
	-- what is an option
	'bootstrap.servers', 'metadata.broker.list', 'client.id', 'security.protocol', 'sasl.mechanism', 'sasl.mechanisms',
	'sasl.username', 'sasl.password', 'ssl.ca.pem', 'ssl.certificate.pem', 'ssl.key.pem', 'ssl.key.password',
	'compression.codec', 'compression.type', 'linger.ms', 'queue.buffering.max.ms', 'message.timeout.ms',
	'delivery.timeout.ms', 'socket.timeout.ms', 'request.timeout.ms',
	-- what is of no use, or not there
	'group.id', 'statistics.interval.ms', 'receive.message.max.bytes', 'builtin.features', 'no.such.thing', '', 'BATCH.SIZE',
	'batch.size ', '%s%n', 'a*']) AS p;

-- Options of events
BEGIN;
SELECT dispatch.create_backend('default', 'kafka', '{"bootstrap_servers": "localhost:1"}');
SELECT dispatch.pause_backend('default');
COMMIT;
CREATE FUNCTION try_event(options jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	what text; why text;
BEGIN
	PERFORM dispatch.publish('t', 's', '{"user": {"id": 5}}', options => options);
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS what = MESSAGE_TEXT, why = PG_EXCEPTION_DETAIL;
	RETURN concat_ws(' | ', what, nullif(why, ''));
END $$;
SELECT o AS options, try_event(o::jsonb) FROM unnest(ARRAY[
	'{"topic": "orders", "partition_key": "{data.user.id}", "partition": 3, "timestamp_ms": 1700000000000, "headers": {"a": "b", "n": null, "i": 1, "t": true}}',
	'{"partition": 2147483647}', '{"partition": -1}', '{"partition": 2147483648}', '{"partition": "1"}', '{"partition": null}',
	'{"timestamp_ms": 0}', '{"timestamp_ms": 253402300799999}', '{"timestamp_ms": 253402300800000}', '{"timestamp_ms": 1.5}',
	'{"headers": {}}', '{"headers": []}', '{"headers": {"a": []}}', '{"headers": {"a": {}}}', '{"headers": {"": ""}}',
	'{"headers": {"content-type": "x"}}', '{"headers": {"ce_id": "x"}}', '{"headers": {"ce_": "x"}}', '{"headers": {"ce": "x"}}',
	'{"partition_key": 5}', '{"partition_key": "{data.nothing}"}', '{"partition_key": "{data.user}"}', '{"partition_key": ""}',
	'{"topic": ""}', '{"topic": "{data.user.id}"}', '{"linger": 1}', '{"bootstrap_servers": "x"}']) AS o;

-- Secrets are masked, and kept when other options change.
SELECT dispatch.alter_backend('default', '{"security_protocol": "sasl_ssl", "sasl_mechanism": "PLAIN", "username": "u", "password": "canary",
	"tls_certificate": "-----BEGIN CERTIFICATE-----", "tls_key": "-----BEGIN PRIVATE KEY----- canary", "tls_key_password": "canary"}');
SELECT jsonb_pretty(options) FROM dispatch.backends;
SELECT dispatch.alter_backend('default', '{"linger": 0.01}');
SELECT dispatch.alter_backend('default', '{"password": null}');
SELECT options - '{linger,topic}'::text[] FROM dispatch.backends;

DROP FUNCTION try, try_event;
DROP EXTENSION dispatch;
