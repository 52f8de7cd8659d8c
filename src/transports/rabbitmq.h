/*-------------------------------------------------------------------------
 *
 * rabbitmq.h
 *	  What the files of the rabbitmq transport share.
 *
 *	rabbitmq.c				the transport: options and callbacks
 *	rabbitmq_connection.c	the connection: phases and timeouts
 *	rabbitmq_receive.c		what follows from each frame of RabbitMQ
 *	rabbitmq_stream.c		input and output
 *	rabbitmq_handshake.c	the login, and the channel
 *	rabbitmq_flight.c		from confirms to outcomes
 *	rabbitmq_message.c		from messages to publishes
 *	rabbitmq_headers.c		JSON to the values of a header table
 *	rabbitmq_input.c		what RabbitMQ says, taken apart
 *	rabbitmq_codec.c		what we say, put together; the user of rabbitmq-c
 *	rabbitmq_error.c		reply codes and their classes
 *	rabbitmq_tls.c			encryption
 *
 * rabbitmq-c waits inside of its calls, to write without any bound: a broker
 * that stops reading, as RabbitMQ does when it is short of memory, would keep
 * the worker from ending.  So the socket is ours, and of the library we use
 * what encodes methods, properties and tables.  What the broker sends is taken
 * apart by our own reader: the library's decoder follows tables in tables as
 * deep as they go, which is for the broker to choose, and we need no table.
 *
 * Messages go out one after the other on one channel in confirm mode, many of
 * them in flight.
 *
 *-------------------------------------------------------------------------
 */
#ifndef DISPATCH_RABBITMQ_H
#define DISPATCH_RABBITMQ_H

#include "dispatch_transport.h"

/* The rows of the option table, in its order. */
enum RabbitOption
{
	OPTION_HOST,
	OPTION_PORT,
	OPTION_VHOST,
	OPTION_USERNAME,
	OPTION_PASSWORD,
	OPTION_EXCHANGE,
	OPTION_ROUTING_KEY,
	OPTION_DELIVERY_MODE,
	OPTION_PRIORITY,
	OPTION_EXPIRATION,
	OPTION_HEADERS,
	OPTION_CONTENT_TYPE,
	OPTION_CONTENT_ENCODING,
	OPTION_CORRELATION_ID,
	OPTION_REPLY_TO,
	OPTION_MESSAGE_ID,
	OPTION_TIMESTAMP,
	OPTION_TYPE,
	OPTION_USER_ID,
	OPTION_APP_ID,
	OPTION_CLOUDEVENTS_PREFIX,
	OPTION_HEARTBEAT,
	OPTION_CONNECT_TIMEOUT,
	OPTION_SOCKET_TIMEOUT,
	OPTION_TLS,
	OPTION_TLS_CA,
	OPTION_TLS_CERTIFICATE,
	OPTION_TLS_KEY
};

/* The longest time that RabbitMQ takes for the expiration, in seconds. */
#define EXPIRATION_MAX 4294967

/* Longest short string of AMQP, in bytes. */
#define SHORT_STRING_MAX 255

/* The smallest and the largest frames that we agree to, in bytes. */
#define FRAME_MIN 4096
#define FRAME_MAX 131072

/* Bytes of a frame around its payload. */
#define FRAME_OVERHEAD 8

/* The one channel for messages. */
#define CHANNEL 1

/* rabbitmq_codec.c */

/* Bytes to be written: [start, end).  May become larger than a palloc. */
typedef struct RabbitBuffer
{
	char	   *data;
	size_t		start;
	size_t		end;
	size_t		size;
} RabbitBuffer;

typedef struct RabbitTable RabbitTable;

typedef enum RabbitValueKind
{
	VALUE_NULL,
	VALUE_BOOLEAN,
	VALUE_INTEGER,
	VALUE_DOUBLE,
	VALUE_STRING,
	VALUE_BINARY,
	VALUE_TIMESTAMP,
	VALUE_ARRAY,
	VALUE_TABLE
} RabbitValueKind;

typedef struct RabbitValue
{
	RabbitValueKind kind;
	bool		boolean;
	int64		integer;		/* also seconds of a timestamp */
	double		number;
	const char *text;			/* string, binary */
	size_t		len;
	RabbitTable *table;			/* table; array, whose fields have no names */
} RabbitValue;

typedef struct RabbitField
{
	const char *name;			/* up to SHORT_STRING_MAX bytes */
	RabbitValue value;
} RabbitField;

struct RabbitTable
{
	int			count;
	int			size;			/* allocated */
	RabbitField *fields;
};

/* A message as RabbitMQ is to get it.  Texts may be NULL: not set. */
typedef struct RabbitPublish
{
	const char *exchange;
	const char *routing_key;
	const char *content_type;
	const char *content_encoding;
	const RabbitTable *headers; /* NULL or empty: none */
	int			delivery_mode;
	int			priority;		/* -1: none */
	const char *correlation_id;
	const char *reply_to;
	const char *expiration;
	const char *message_id;
	int64		timestamp;		/* seconds since 1970 */
	const char *type;
	const char *user_id;
	const char *app_id;
	const char *body;
	size_t		body_len;
} RabbitPublish;

extern void rabbit_buffer_init(RabbitBuffer *buffer, size_t size);
extern char *rabbit_buffer_reserve(RabbitBuffer *buffer, size_t len);
extern void rabbit_buffer_consume(RabbitBuffer *buffer, size_t len);
extern bool rabbit_encode_start_ok(RabbitBuffer *out, const char *connection_name,
								   const char *username, const char *password);
extern void rabbit_encode_tune_ok(RabbitBuffer *out, int channel_max,
								  int frame_max, int heartbeat);
extern bool rabbit_encode_open(RabbitBuffer *out, const char *vhost);
extern void rabbit_encode_close(RabbitBuffer *out);
extern void rabbit_encode_close_ok(RabbitBuffer *out);
extern void rabbit_encode_channel_open(RabbitBuffer *out);
extern void rabbit_encode_channel_close_ok(RabbitBuffer *out);
extern void rabbit_encode_confirm_select(RabbitBuffer *out);
extern void rabbit_encode_heartbeat(RabbitBuffer *out);
extern const char *rabbit_encode_publish(RabbitBuffer *out,
										 const RabbitPublish *publish,
										 size_t frame_max);

/* rabbitmq_headers.c */

extern RabbitTable *rabbit_table_create(void);
extern RabbitValue *rabbit_table_add(RabbitTable *table, const char *name);
extern const char *rabbit_headers_read(RabbitTable *table, const char *json);

/* rabbitmq_message.c */

extern const char *rabbit_message_id(const DispatchMessage *message);
extern const char *rabbit_message_publish(const DispatchMessage *message,
										  RabbitPublish *publish);

/* rabbitmq_input.c */

typedef enum RabbitFrameType
{
	FRAME_METHOD = 1,
	FRAME_HEADER = 2,
	FRAME_BODY = 3,
	FRAME_HEARTBEAT = 8
} RabbitFrameType;

typedef enum RabbitMethod
{
	METHOD_START = 0x000A000A,
	METHOD_SECURE = 0x000A0014,
	METHOD_TUNE = 0x000A001E,
	METHOD_OPEN_OK = 0x000A0029,
	METHOD_CLOSE = 0x000A0032,
	METHOD_CLOSE_OK = 0x000A0033,
	METHOD_BLOCKED = 0x000A003C,
	METHOD_UNBLOCKED = 0x000A003D,
	METHOD_CHANNEL_OPEN_OK = 0x0014000B,
	METHOD_CHANNEL_CLOSE = 0x00140028,
	METHOD_RETURN = 0x003C0032,
	METHOD_ACK = 0x003C0050,
	METHOD_NACK = 0x003C0078,
	METHOD_CONFIRM_SELECT_OK = 0x0055000B
} RabbitMethod;

/* What is left of a payload.  After an overrun it is broken, and yields 0. */
typedef struct RabbitReader
{
	const unsigned char *at;
	const unsigned char *end;
	bool		broken;
} RabbitReader;

typedef struct RabbitFrame
{
	RabbitFrameType type;
	int			channel;
	uint32		method;			/* of FRAME_METHOD; taken off the payload */
	RabbitReader payload;
} RabbitFrame;

/* A text inside of a frame, not terminated. */
typedef struct RabbitText
{
	const char *data;
	size_t		len;
} RabbitText;

/* What connection.close and channel.close say. */
typedef struct RabbitClosed
{
	int			code;
	char		text[SHORT_STRING_MAX + 1];
} RabbitClosed;

/* What basic.return says, as far as it identifies the message. */
typedef struct RabbitReturned
{
	int			code;
	char		exchange[SHORT_STRING_MAX + 1];
	char		routing_key[SHORT_STRING_MAX + 1];
	char		message_id[SHORT_STRING_MAX + 1];
	uint64		body_left;		/* bytes of it that are still to come */
} RabbitReturned;

extern int	rabbit_frame_read(const char *data, size_t len, size_t frame_max,
							  RabbitFrame *frame, const char **error);
extern uint64 rabbit_read_number(RabbitReader *reader, int bytes);
extern RabbitText rabbit_read_short_string(RabbitReader *reader);
extern bool rabbit_read_start(RabbitReader *reader, RabbitText *mechanisms);
extern bool rabbit_read_closed(RabbitReader *reader, RabbitClosed *closed);
extern bool rabbit_read_return(RabbitReader *reader, RabbitReturned *returned);
extern bool rabbit_read_return_header(RabbitReader *reader,
									  RabbitReturned *returned);
extern void rabbit_copy_text(RabbitText text, char *target, size_t size);

/* rabbitmq_error.c */

/* Where a reply code came from; DispatchErrorClass differs. */
typedef enum RabbitScope
{
	SCOPE_CONNECTION,			/* the connection closed, nothing in flight */
	SCOPE_EVENT					/* one event alone was to blame */
} RabbitScope;

extern const char *rabbit_error_name(int code);
extern DispatchErrorClass rabbit_error_class(int code, RabbitScope scope);
extern bool rabbit_error_may_be_event(int code);

/* rabbitmq_flight.c */

typedef struct RabbitFlight RabbitFlight;

extern RabbitFlight *rabbit_flight_create(DispatchHost *host);
extern int	rabbit_flight_count(const RabbitFlight *flight);
extern bool rabbit_flight_may_add(RabbitFlight *flight, const char *exchange);
extern void rabbit_flight_add(RabbitFlight *flight, DispatchMessage *message,
							  uint64 end_of_message);
extern bool rabbit_flight_answer(RabbitFlight *flight, bool confirmed,
								 uint64 tag, bool multiple, uint64 written);
extern bool rabbit_flight_return(RabbitFlight *flight,
								 const RabbitReturned *returned);
extern bool rabbit_flight_convict(RabbitFlight *flight,
								  const RabbitClosed *closed);
extern void rabbit_flight_restart(RabbitFlight *flight);

/* rabbitmq_handshake.c */

typedef struct RabbitHandshake RabbitHandshake;

extern RabbitHandshake *rabbit_handshake_create(DispatchHost *host,
												const DispatchValue *options);
extern void rabbit_handshake_begin(RabbitHandshake *handshake,
								   RabbitBuffer *out);
extern void rabbit_handshake_reopen_channel(RabbitHandshake *handshake,
											RabbitBuffer *out);
extern bool rabbit_handshake_method(RabbitHandshake *handshake,
									RabbitFrame *frame, RabbitBuffer *out);
extern bool rabbit_handshake_done(const RabbitHandshake *handshake);
extern int	rabbit_handshake_frame_max(const RabbitHandshake *handshake);
extern int	rabbit_handshake_heartbeat(const RabbitHandshake *handshake);

/* rabbitmq_tls.c */

typedef struct RabbitTls RabbitTls;

typedef enum TlsState
{
	TLS_HANDSHAKE,
	TLS_READY,
	TLS_FAILED
} TlsState;

extern const char *rabbit_tls_check(const DispatchValue *options);
extern RabbitTls *rabbit_tls_create(DispatchHost *host,
									const DispatchValue *options,
									const char *host_name);
extern TlsState rabbit_tls_advance(RabbitTls *tls);
extern const char *rabbit_tls_error(const RabbitTls *tls);
extern bool rabbit_tls_was_refused(const RabbitTls *tls);
extern bool rabbit_tls_put_received(RabbitTls *tls, const char *data, size_t len);
extern size_t rabbit_tls_to_send(RabbitTls *tls, const char **data);
extern void rabbit_tls_sent(RabbitTls *tls, size_t len);
extern ssize_t rabbit_tls_read(RabbitTls *tls, char *data, size_t len);
extern ssize_t rabbit_tls_write(RabbitTls *tls, const char *data, size_t len);

/* rabbitmq_stream.c */

typedef struct Connector Connector;

typedef struct RabbitStream
{
	DispatchHost *host;
	Connector  *connector;		/* has the socket */
	RabbitTls  *tls;			/* NULL: not encrypted */
	bool		tls_is_ready;
	bool		tls_is_over;	/* once what came before is dealt with */
	bool		has_heard;		/* anything that was not about TLS */
	RabbitBuffer in;			/* frames that were received */
	RabbitBuffer out;			/* frames to be sent */
	uint64		written;		/* bytes of out that are gone */
	int64		received_at;	/* clock_ms() of the last byte */
	int64		sent_at;
	char	   *received;		/* still encrypted; NULL without TLS */
	int			send_errno;		/* 0: can be written to */
} RabbitStream;

typedef enum StreamRead
{
	STREAM_NOTHING,				/* there is no input at the moment */
	STREAM_INPUT,				/* there was, and may be more */
	STREAM_LOST					/* after explain() */
} StreamRead;

extern RabbitStream *rabbit_stream_create(DispatchHost *host,
										  Connector *connector);
extern bool rabbit_stream_open(RabbitStream *stream,
							   const DispatchValue *options, int64 now);
extern bool rabbit_stream_is_open(const RabbitStream *stream);
extern size_t rabbit_stream_unsent(const RabbitStream *stream);
extern bool rabbit_stream_wants_to_write(const RabbitStream *stream);
extern bool rabbit_stream_write(RabbitStream *stream, int64 now);
extern StreamRead rabbit_stream_read(RabbitStream *stream, int64 now);

/* rabbitmq_receive.c */

typedef enum RabbitPhase
{
	PHASE_CONNECTING,
	PHASE_TLS,
	PHASE_LOGIN,				/* also while a channel is opened again */
	PHASE_READY
} RabbitPhase;

/* What has to follow a basic.return. */
typedef enum RabbitContent
{
	CONTENT_NONE,
	CONTENT_HEADER,
	CONTENT_BODY
} RabbitContent;

typedef struct RabbitConnection
{
	DispatchHost *host;
	const DispatchValue *options;
	MemoryContext scratch;		/* for a call of ours */
	RabbitPhase phase;
	Connector  *connector;
	RabbitStream *stream;
	RabbitHandshake *handshake;
	RabbitFlight *flight;
	bool		is_sound;		/* no call is under way, or ended half-way */

	int64		connect_timeout;	/* milliseconds, as are all of these: */
	int64		socket_timeout;
	int64		now;			/* when pump() was called */
	int64		deadline;		/* for everything before PHASE_READY */
	int64		progress_at;	/* of what is in flight */

	uint64		end_of_messages;	/* bytes of output up to there */
	bool		blocked;		/* RabbitMQ takes no messages */
	bool		refused;		/* send() had no room for a message */
	RabbitContent content;
	RabbitReturned returned;	/* while its content comes in */
} RabbitConnection;

extern bool rabbit_receive(RabbitConnection *conn);

/* rabbitmq_connection.c */

extern bool rabbit_explain(DispatchHost *host, DispatchErrorClass error_class,
						   const char *format,...) pg_attribute_printf(3, 4);
extern void *rabbit_connection_create(DispatchHost *host,
									  const DispatchValue *options);
extern bool rabbit_connection_send(void *connection, DispatchMessage *message);
extern DispatchState rabbit_connection_pump(void *connection,
											DispatchWait *wait);
extern void rabbit_connection_close(void *connection);

#endif							/* DISPATCH_RABBITMQ_H */
