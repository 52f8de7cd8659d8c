/*-------------------------------------------------------------------------
 *
 * rabbitmq_tls.c
 *	  Encryption: OpenSSL as a filter between the socket and the connection.
 *
 * OpenSSL never sees the socket: what was received is put into one memory BIO,
 * and what is to be sent is taken from another.  So there is one place that
 * does input and output, with TLS or without, and nothing in here can block.
 *
 * rabbitmq-c would do TLS itself, but takes certificates from files and calls
 * abort() over an encrypted key, which would restart all of PostgreSQL.  Here
 * certificates and keys come as PEM from the options, and no option names a
 * file.  The name of the host and the chain are always verified, against tls_ca
 * or else the authorities that the operating system trusts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "rabbitmq.h"

struct RabbitTls
{
	MemoryContextCallback callback; /* frees what follows */
	SSL_CTX    *context;
	SSL		   *ssl;			/* owns the BIOs */
	BIO		   *received;
	BIO		   *to_send;
	char		error[512];		/* empty: none */
	bool		was_refused;	/* the error is what one side found wrong */
};

/* ------------------------------------------------------------------------
 * Certificates and keys
 * ------------------------------------------------------------------------
 */

/* Keys with a passphrase are refused: nobody is there to type it. */
static int
refuse_passphrase(char *buffer, int size, int writing, void *arg)
{
	*(bool *) arg = true;
	return -1;
}

/* Trusts the certificates of a PEM text; NULL, or what is wrong with it. */
static const char *
load_authorities(SSL_CTX *context, const char *pem)
{
	X509_STORE *store = SSL_CTX_get_cert_store(context);
	BIO		   *bio = BIO_new_mem_buf(pem, -1);
	X509	   *certificate;
	int			count = 0;
	bool		failed = bio == NULL;

	while (!failed && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
	{
		failed = X509_STORE_add_cert(store, certificate) != 1;
		X509_free(certificate);
		count++;
	}
	BIO_free(bio);
	if (failed || count == 0)
		return "The option \"tls_ca\" must be one or more certificates in PEM.";
	return NULL;
}

/* Our own certificate, followed by those that lead to the authority. */
static const char *
load_certificate(SSL_CTX *context, const char *pem)
{
	BIO		   *bio = BIO_new_mem_buf(pem, -1);
	X509	   *certificate = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);
	bool		loaded = certificate != NULL &&
		SSL_CTX_use_certificate(context, certificate) == 1;

	X509_free(certificate);
	while (loaded && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL)
	{
		if (SSL_CTX_add0_chain_cert(context, certificate) != 1)
		{
			X509_free(certificate);
			loaded = false;
		}
	}
	BIO_free(bio);
	return loaded ? NULL :
		"The option \"tls_certificate\" must be a certificate in PEM, with those of its chain after it.";
}

static const char *
load_key(SSL_CTX *context, const char *pem)
{
	bool		encrypted = false;
	BIO		   *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY   *key = bio == NULL ? NULL :
		PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &encrypted);
	bool		loaded = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1;
	bool		matches = loaded && SSL_CTX_check_private_key(context) == 1;

	EVP_PKEY_free(key);
	BIO_free(bio);
	if (encrypted)
		return "The option \"tls_key\" is encrypted: remove its passphrase.";
	if (!loaded && key == NULL)
		return "The option \"tls_key\" must be a private key in PEM.";
	return matches ? NULL :
		"The options \"tls_key\" and \"tls_certificate\" do not belong together.";
}

static const char *
load_options(SSL_CTX *context, const DispatchValue *options)
{
	const DispatchValue *ca = &options[OPTION_TLS_CA];
	const DispatchValue *certificate = &options[OPTION_TLS_CERTIFICATE];
	const DispatchValue *key = &options[OPTION_TLS_KEY];
	const char *problem = NULL;

	if (ca->is_set)
		problem = load_authorities(context, ca->text);
	if (problem == NULL && certificate->is_set)
		problem = load_certificate(context, certificate->text);
	/* text is NULL where the secret itself is not at hand */
	if (problem == NULL && key->is_set && key->text != NULL)
		problem = load_key(context, key->text);
	/* a reason that was reported is not to be found by somebody else */
	ERR_clear_error();
	return problem;
}

/* What is wrong with the options, as a full sentence; NULL if nothing is. */
const char *
rabbit_tls_check(const DispatchValue *options)
{
	SSL_CTX    *context;
	const char *problem;

	if (options[OPTION_TLS_KEY].is_set != options[OPTION_TLS_CERTIFICATE].is_set)
		return "The options \"tls_certificate\" and \"tls_key\" go together.";
	if (!options[OPTION_TLS].boolean)
	{
		if (options[OPTION_TLS_CA].is_set || options[OPTION_TLS_CERTIFICATE].is_set)
			return "The options \"tls_ca\", \"tls_certificate\" and \"tls_key\" need \"tls\": true.";
		return NULL;
	}
	context = SSL_CTX_new(TLS_client_method());
	if (context == NULL)
		return "OpenSSL is out of memory.";
	problem = load_options(context, options);
	SSL_CTX_free(context);
	return problem;
}

/* ------------------------------------------------------------------------
 * The filter
 * ------------------------------------------------------------------------
 */

static void
tls_free(void *arg)
{
	RabbitTls  *tls = arg;

	SSL_free(tls->ssl);
	SSL_CTX_free(tls->context);
	tls->ssl = NULL;
	tls->context = NULL;
}

static bool
set_host(RabbitTls *tls, const char *host_name)
{
	unsigned char address[sizeof(struct in6_addr)];

	if (inet_pton(AF_INET, host_name, address) == 1 ||
		inet_pton(AF_INET6, host_name, address) == 1)
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), host_name) == 1;
	return SSL_set1_host(tls->ssl, host_name) == 1 &&
		SSL_set_tlsext_host_name(tls->ssl, host_name) == 1;
}

static bool
set_up(RabbitTls *tls, const DispatchValue *options, const char *host_name)
{
	tls->context = SSL_CTX_new(TLS_client_method());
	if (tls->context == NULL ||
		SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1 ||
		(!options[OPTION_TLS_CA].is_set &&
		 SSL_CTX_set_default_verify_paths(tls->context) != 1) ||
		load_options(tls->context, options) != NULL)
		return false;
	SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(tls->context,
					 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

	tls->ssl = SSL_new(tls->context);
	if (tls->ssl == NULL)
		return false;
	tls->received = BIO_new(BIO_s_mem());
	tls->to_send = BIO_new(BIO_s_mem());
	if (tls->received == NULL || tls->to_send == NULL)
	{
		BIO_free(tls->received);
		BIO_free(tls->to_send);
		return false;
	}
	SSL_set_bio(tls->ssl, tls->received, tls->to_send);
	SSL_set_connect_state(tls->ssl);
	return set_host(tls, host_name);
}

/* Lives as long as the connection.  NULL, after explain(), if it failed. */
RabbitTls *
rabbit_tls_create(DispatchHost *host, const DispatchValue *options,
				  const char *host_name)
{
	const char *problem = rabbit_tls_check(options);
	RabbitTls  *tls = MemoryContextAllocZero(host->context, sizeof(RabbitTls));

	tls->callback.func = tls_free;
	tls->callback.arg = tls;
	MemoryContextRegisterResetCallback(host->context, &tls->callback);
	ERR_clear_error();
	if (problem == NULL && set_up(tls, options, host_name))
		return tls;
	ERR_clear_error();
	rabbit_explain(host, DISPATCH_CONFIGURATION, "could not set up TLS: %s",
				   problem != NULL ? problem : "OpenSSL refused");
	return NULL;
}

static void
keep_error(RabbitTls *tls)
{
	unsigned long code = ERR_get_error();
	const char *reason = code == 0 ? NULL : ERR_reason_error_string(code);
	long		verified = SSL_get_verify_result(tls->ssl);

	tls->was_refused = reason != NULL || verified != X509_V_OK;
	if (verified != X509_V_OK)
		snprintf(tls->error, sizeof(tls->error), "certificate of the server: %s",
				 X509_verify_cert_error_string(verified));
	else
		strlcpy(tls->error, reason != NULL ? reason : "the peer closed the connection",
				sizeof(tls->error));
	ERR_clear_error();
}

/* What to make of a result that is not success: is it only to be continued? */
static bool
is_pending(RabbitTls *tls, int result)
{
	int			error = SSL_get_error(tls->ssl, result);

	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return true;
	keep_error(tls);
	return false;
}

TlsState
rabbit_tls_advance(RabbitTls *tls)
{
	int			result;

	ERR_clear_error();
	result = SSL_do_handshake(tls->ssl);
	if (result == 1)
		return TLS_READY;
	return is_pending(tls, result) ? TLS_HANDSHAKE : TLS_FAILED;
}

const char *
rabbit_tls_error(const RabbitTls *tls)
{
	return tls->error;
}

/* Whether the error is more than the end of the connection. */
bool
rabbit_tls_was_refused(const RabbitTls *tls)
{
	return tls->was_refused;
}

/* False if there is no memory for it. */
bool
rabbit_tls_put_received(RabbitTls *tls, const char *data, size_t len)
{
	return BIO_write(tls->received, data, (int) len) == (int) len;
}

size_t
rabbit_tls_to_send(RabbitTls *tls, const char **data)
{
	return BIO_get_mem_data(tls->to_send, unconstify(char **, data));
}

/* So many bytes of those to be sent have gone. */
void
rabbit_tls_sent(RabbitTls *tls, size_t len)
{
	char		gone[4096];

	while (len > 0)
	{
		int			n = BIO_read(tls->to_send, gone, (int) Min(len, sizeof(gone)));

		if (n <= 0)
			elog(ERROR, "OpenSSL has lost what was to be sent");
		len -= n;
	}
}

/* Bytes read; 0: none at the moment; -1: closed or broken, see the error. */
ssize_t
rabbit_tls_read(RabbitTls *tls, char *data, size_t len)
{
	int			result;

	ERR_clear_error();
	result = SSL_read(tls->ssl, data, (int) Min(len, PG_INT32_MAX));
	if (result > 0)
		return result;
	return is_pending(tls, result) ? 0 : -1;
}

/* Bytes taken; 0: none at the moment; -1: broken, see the error. */
ssize_t
rabbit_tls_write(RabbitTls *tls, const char *data, size_t len)
{
	int			result;

	ERR_clear_error();
	result = SSL_write(tls->ssl, data, (int) Min(len, PG_INT32_MAX));
	if (result > 0)
		return result;
	return is_pending(tls, result) ? 0 : -1;
}
