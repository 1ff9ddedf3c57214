/*
 * TLS over a non-blocking socket. The library sees a BIO of ours: it reads from `in`, which is
 * filled by large receives, and writes to `out`, which is sent by large sends. So the library never
 * waits for room, and a half-sent record is no state of its own.
 */
#include "control/wire/channel.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/stream.h"

/* What one record holds (RFC 8446, 5.1). */
#define RECORD_MAX 16384
/* Answers to the other side's wishes (key updates) that it does not take: more is an attack. */
#define OUT_LIMIT (CHANNEL_OUT_MAX + (64u << 10))

struct tls {
    pthread_mutex_t lock;
    SSL *ssl;
    int fd;
    const struct identity *id;
    bool server, has_expect;
    struct identity_name expect;
    struct outbox out;   /* encrypted, to be sent */
    atomic_bool waiting; /* out is not empty */
    uint8_t *in;         /* received, still encrypted; the receiver's own */
    size_t in_start, in_end;
    int reads;     /* receives that the BIO may still make in this turn */
    int broken;    /* -errno of the socket, once */
    uint64_t sent; /* since the last new keys */
    uint8_t gathered[RECORD_MAX];
    char text[IDENTITY_DETAIL];
};

/* ---- the BIO: all of it with the lock held */

static int bio_write(BIO *b, const char *data, int n)
{
    struct tls *t = BIO_get_data(b);
    struct iovec iov = {(void *)(uintptr_t)data, (size_t)n};
    BIO_clear_retry_flags(b);
    if (outbox_waiting(&t->out) + (size_t)n > OUT_LIMIT || outbox_add(&t->out, &iov, 1) < 0)
        return -1;
    return n;
}

/* More bytes from the socket. 0: none now; < 0: the end. */
static int fill(struct tls *t)
{
    ssize_t n;
    if (t->reads <= 0)
        return 0;
    t->reads--;
    if (!t->in && !(t->in = malloc(CHANNEL_IN_SIZE))) {
        t->broken = -ENOMEM;
        return -1;
    }
    do
        n = recv(t->fd, t->in, CHANNEL_IN_SIZE, MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        t->broken = n < 0 ? -errno : -ECONNRESET;
        return -1;
    }
    if ((size_t)n < CHANNEL_IN_SIZE)
        t->reads = 0; /* the next one would say EAGAIN */
    t->in_start = 0;
    t->in_end = (size_t)n;
    return 1;
}

static int bio_read(BIO *b, char *data, int n)
{
    struct tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (t->in_start == t->in_end) {
        int got = fill(t);
        if (got == 0)
            BIO_set_retry_read(b);
        if (got <= 0)
            return -1;
    }
    size_t have = t->in_end - t->in_start;
    size_t take = have < (size_t)n ? have : (size_t)n;
    memcpy(data, t->in + t->in_start, take);
    t->in_start += take;
    return (int)take;
}

static long bio_ctrl(BIO *b, int what, long number, void *pointer)
{
    (void)b, (void)number, (void)pointer;
    return what == BIO_CTRL_FLUSH; /* nothing is kept back */
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

static void make_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "umbel channel");
    if (m && BIO_meth_set_write(m, bio_write) && BIO_meth_set_read(m, bio_read) &&
        BIO_meth_set_ctrl(m, bio_ctrl))
        bio_method = m;
}

static int attach_bio(struct tls *t)
{
    pthread_once(&bio_once, make_method);
    BIO *b = bio_method ? BIO_new(bio_method) : NULL;
    if (!b)
        return -ENOMEM;
    BIO_set_data(b, t);
    BIO_set_init(b, 1);
    SSL_set_bio(t->ssl, b, b); /* takes it over */
    return 0;
}

/* ---- begin and end */

static void tls_free(struct tls *t)
{
    SSL_free(t->ssl);
    outbox_free(&t->out);
    free(t->in);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int channel_tls(struct channel *c, const struct identity *id, bool server, bool anonymous,
                const struct identity_name *expect)
{
    SSL_CTX *ctx = id ? identity_context(id, server, anonymous) : NULL;
    struct tls *t = ctx ? calloc(1, sizeof(*t)) : NULL;
    if (!t)
        return ctx ? -ENOMEM : -ENOKEY;
    pthread_mutex_init(&t->lock, NULL);
    t->fd = c->fd;
    t->id = id;
    t->server = server;
    if (expect) {
        t->has_expect = true;
        t->expect = *expect;
    }
    t->ssl = SSL_new(ctx);
    int err = t->ssl ? attach_bio(t) : -ENOMEM;
    if (err) {
        ERR_clear_error();
        tls_free(t);
        return err;
    }
    if (server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    c->tls = t;
    return 0;
}

void channel_close(struct channel *c)
{
    if (c->tls)
        tls_free(c->tls);
    c->tls = NULL;
}

const char *channel_text(const struct channel *c)
{
    return c->tls ? c->tls->text : "";
}

/* ---- what went wrong */

static int explain(struct tls *t, int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int explain(struct tls *t, int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(t->text, sizeof(t->text), format, args);
    va_end(args);
    return err;
}

/* The other side's certificate did not please us. */
static int explain_verify(struct tls *t, long result)
{
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return explain(t, -EACCES, "its certificate has expired: compare the clocks, or join that machine again");
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return explain(t, -EACCES, "its certificate is not valid yet: compare the clocks");
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        return explain(t, -EACCES, "its certificate is of another cloud");
    default:
        return explain(t, -EACCES, "its certificate is refused: %s",
                       X509_verify_cert_error_string(result));
    }
}

/* Ours did not please the other side, which says so by an alert. */
static int explain_alert(struct tls *t, int reason)
{
    switch (reason) {
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
        return explain(t, -EACCES,
                       "the other side refuses us: our certificate is of another "
                       "cloud");
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return explain(t, -EACCES,
                       "the other side refuses us: our certificate has expired (or its clock is "
                       "wrong): join with a new token");
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return explain(t, -EACCES, "the other side wants a certificate: join first");
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        return explain(t, -EACCES, "the other side refuses our certificate");
    default:
        return explain(t, -EPROTO, "not TLS 1.3 as we speak it: %s",
                       ERR_reason_error_string(ERR_peek_last_error()));
    }
}

/* With the lock held, after a call of the library that failed. -EAGAIN: only for want of bytes. */
static int error_of(struct tls *t, int rc)
{
    int kind = SSL_get_error(t->ssl, rc), err;
    unsigned long last = ERR_peek_last_error();
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
        return -EAGAIN;
    long verified = SSL_get_verify_result(t->ssl);
    if (kind == SSL_ERROR_SYSCALL)
        err = t->broken ? t->broken : -EPIPE;
    else if (kind == SSL_ERROR_ZERO_RETURN)
        err = explain(t, -ECONNRESET, "the other side has closed the connection");
    else if (verified != X509_V_OK && ERR_GET_REASON(last) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        err = explain_verify(t, verified);
    else if (ERR_GET_REASON(last) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        err = explain(t, -EACCES, "it shows no certificate");
    else
        err = explain_alert(t, ERR_GET_REASON(last));
    ERR_clear_error();
    return kind == SSL_ERROR_SYSCALL ? explain(t, err, "%s", strerror(-err)) : err;
}

/* ---- handshake */

static int check_expected(struct tls *t, const struct identity_name *who)
{
    const struct identity_name *e = &t->expect;
    if (!t->has_expect || (who->role == e->role && (!e->name[0] || !strcmp(who->name, e->name))))
        return 0;
    return explain(t, -EACCES, "%s/%s answers there, not %s%s%s", identity_role_text(who->role),
                   who->name, identity_role_text(e->role), e->name[0] ? "/" : "", e->name);
}

/* With the lock held. */
static int flush(struct tls *t)
{
    int err = outbox_send(&t->out, &(struct channel){.fd = t->fd});
    atomic_store_explicit(&t->waiting, outbox_waiting(&t->out) > 0, memory_order_relaxed);
    return err;
}

int channel_handshake(struct channel *c, struct identity_name *who)
{
    struct tls *t = c->tls;
    pthread_mutex_lock(&t->lock);
    ERR_clear_error();
    t->reads = 2;
    int rc = SSL_do_handshake(t->ssl);
    int err = rc == 1 ? 0 : error_of(t, rc);
    if (!err && (err = identity_of_peer(t->id, t->ssl, who, t->text)))
        err = -EACCES;
    if (!err)
        err = check_expected(t, who);
    /* Also what is said to whom we refuse: an alert. */
    int flushed = flush(t);
    if (!err && flushed && flushed != -EAGAIN)
        err = explain(t, flushed, "%s", strerror(-flushed));
    pthread_mutex_unlock(&t->lock);
    return err;
}

/* ---- bytes */

ssize_t tls_receive(struct tls *t, void *data, size_t room, bool *drained)
{
    size_t total = 0;
    int err = 0;
    *drained = false;
    t->reads = 1 + (int)(room / CHANNEL_IN_SIZE);
    while (!err && total < room) {
        size_t n = 0;
        pthread_mutex_lock(&t->lock); /* for one record: senders wait for microseconds */
        ERR_clear_error();
        int rc = SSL_read_ex(t->ssl, (uint8_t *)data + total, room - total, &n);
        if (rc != 1)
            err = error_of(t, 0);
        if (outbox_waiting(&t->out) > 0) /* an answer of the library's: new keys */
            (void)flush(t);              /* a broken socket is seen by the next read */
        pthread_mutex_unlock(&t->lock);
        total += n;
    }
    *drained = err == -EAGAIN;
    /* An error after some bytes comes again with the next call. */
    return total > 0 ? (ssize_t)total : err;
}

/* With the lock held. The next piece of at most one record: straight from the caller's memory if
 * it is large, else gathered from several. */
static const uint8_t *next_piece(struct tls *t, const struct iovec *iov, int n, size_t skip,
                                 size_t *length)
{
    if (n > 0 && iov->iov_len - skip >= RECORD_MAX) {
        *length = RECORD_MAX;
        return (const uint8_t *)iov->iov_base + skip;
    }
    size_t have = 0;
    for (; n > 0 && have < RECORD_MAX; iov++, n--, skip = 0) {
        size_t part = iov->iov_len - skip;
        if (part > RECORD_MAX - have)
            part = RECORD_MAX - have;
        if (part)
            memcpy(t->gathered + have, (const uint8_t *)iov->iov_base + skip, part);
        have += part;
    }
    *length = have;
    return t->gathered;
}

static int write_piece(struct tls *t, const uint8_t *piece, size_t length)
{
    size_t n = 0;
    ERR_clear_error();
    if (t->sent > CHANNEL_REKEY_BYTES && SSL_key_update(t->ssl, SSL_KEY_UPDATE_NOT_REQUESTED))
        t->sent = 0;
    int rc = SSL_write_ex(t->ssl, piece, length, &n);
    if (rc != 1 || n != length) { /* `out` takes all: it cannot be for want of room */
        ERR_clear_error();
        return -EPIPE;
    }
    t->sent += n;
    return 0;
}

/* With the lock held. */
static ssize_t send_pieces(struct tls *t, const struct iovec *iov, int n)
{
    size_t total = 0, skip = 0, length;
    int err = flush(t);
    while (!err) {
        while (n > 0 && skip >= iov->iov_len) {
            skip -= iov->iov_len;
            iov++;
            n--;
        }
        if (n == 0)
            break;
        const uint8_t *piece = next_piece(t, iov, n, skip, &length);
        if (length == 0)
            break;
        err = write_piece(t, piece, length);
        if (!err) {
            total += length;
            skip += length;
            if (outbox_waiting(&t->out) + RECORD_MAX > CHANNEL_OUT_MAX)
                err = flush(t);
        }
    }
    if (!err)
        err = flush(t);
    return err && err != -EAGAIN ? err : total > 0 ? (ssize_t)total : err;
}

ssize_t tls_send(struct tls *t, const struct iovec *iov, int n)
{
    pthread_mutex_lock(&t->lock);
    ssize_t done = send_pieces(t, iov, n);
    pthread_mutex_unlock(&t->lock);
    return done;
}

bool tls_waiting(struct tls *t)
{
    return atomic_load_explicit(&t->waiting, memory_order_relaxed);
}

int tls_flush(struct tls *t)
{
    pthread_mutex_lock(&t->lock);
    int err = flush(t);
    pthread_mutex_unlock(&t->lock);
    return err;
}
