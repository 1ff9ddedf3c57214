#include "control/wire/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* AES-128 first: the machines have instructions for it, and it costs a third less than 256. */
#define CIPHERS "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS  "X25519:P-256"
/* The authority, and who it signed: there is nobody between. */
#define VERIFY_DEPTH 1

struct identity {
    struct identity_name self;
    bool joining;
    uint8_t fingerprint[32]; /* joining: of the authority's certificate */
    X509 *ca, *cert;
    EVP_PKEY *key;
    SSL_CTX *client, *server, *open_server;
};

static int fail(char detail[IDENTITY_DETAIL], int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(char detail[IDENTITY_DETAIL], int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(detail, IDENTITY_DETAIL, format, args);
    va_end(args);
    return err;
}

/* ---- verification */

/* The library says that the time is not right: is it, with the tolerance? */
static bool time_is_near(X509 *cert, int error)
{
    time_t at = time(NULL) + (error == X509_V_ERR_CERT_NOT_YET_VALID ? CERT_SKEW_S : -CERT_SKEW_S);
    if (error == X509_V_ERR_CERT_NOT_YET_VALID)
        return X509_cmp_time(X509_get0_notBefore(cert), &at) < 0;
    return X509_cmp_time(X509_get0_notAfter(cert), &at) > 0;
}

static int on_verify(int ok, X509_STORE_CTX *ctx)
{
    int error = X509_STORE_CTX_get_error(ctx);
    if (ok || (error != X509_V_ERR_CERT_NOT_YET_VALID && error != X509_V_ERR_CERT_HAS_EXPIRED))
        return ok;
    if (!time_is_near(X509_STORE_CTX_get_current_cert(ctx), error))
        return 0;
    X509_STORE_CTX_set_error(ctx, X509_V_OK);
    return 1;
}

/* Who joins trusts the certificate with the right fingerprint, wherever it stands in what the
 * centre shows, and what that one has signed. */
static int verify_by_fingerprint(X509_STORE_CTX *ctx, void *arg)
{
    const struct identity *id = arg;
    STACK_OF(X509) *shown = X509_STORE_CTX_get0_untrusted(ctx), *trusted = sk_X509_new_null();
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n;
    int ok = 0;
    for (int i = 0; trusted && i < sk_X509_num(shown); i++) {
        X509 *cert = sk_X509_value(shown, i);
        if (X509_digest(cert, EVP_sha256(), digest, &n) && n == sizeof(id->fingerprint) &&
            memcmp(digest, id->fingerprint, n) == 0 && X509_check_ca(cert) > 0)
            sk_X509_push(trusted, cert);
    }
    if (trusted && sk_X509_num(trusted) > 0) {
        X509_STORE_CTX_set0_trusted_stack(ctx, trusted);
        ok = X509_verify_cert(ctx);
    } else {
        X509_STORE_CTX_set_error(ctx, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
    }
    sk_X509_free(trusted);
    return ok > 0;
}

int identity_of_peer(const struct identity *id, SSL *ssl, struct identity_name *who,
                     char detail[IDENTITY_DETAIL])
{
    *who = (struct identity_name){0};
    X509 *cert = SSL_get0_peer_certificate(ssl);
    if (!cert)
        return 0;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int err = fail(detail, -EKEYREJECTED, "its certificate names nobody of a cloud");
    if (names && sk_GENERAL_NAME_num(names) == 1) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, 0);
        const ASN1_STRING *uri = n->type == GEN_URI ? n->d.uniformResourceIdentifier : NULL;
        const char *text = uri ? (const char *)ASN1_STRING_get0_data(uri) : "";
        if (uri && (size_t)ASN1_STRING_length(uri) == strlen(text))
            err = identity_parse(text, who);
    }
    GENERAL_NAMES_free(names);
    if (err)
        return fail(detail, -EKEYREJECTED, "its certificate names nobody of a cloud");
    if (!id->joining && strcmp(who->cloud, id->self.cloud) != 0)
        return fail(detail, -EXDEV, "its certificate is of another cloud (%s)", who->cloud);
    return 0;
}

/* ---- contexts */

static int set_certificate(SSL_CTX *ctx, const struct identity *id)
{
    if (!id->cert)
        return 1;
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    return SSL_CTX_use_certificate(ctx, id->cert) == 1 &&
           SSL_CTX_use_PrivateKey(ctx, id->key) == 1 && SSL_CTX_add1_chain_cert(ctx, id->ca) == 1 &&
           X509_STORE_add_cert(store, id->ca) == 1;
}

static SSL_CTX *new_context(const struct identity *id, bool server, bool anonymous)
{
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    if (!ctx)
        return NULL;
    bool ok = SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
              SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) &&
              SSL_CTX_set_ciphersuites(ctx, CIPHERS) && SSL_CTX_set1_groups_list(ctx, GROUPS) &&
              SSL_CTX_set_num_tickets(ctx, 0) && set_certificate(ctx, id);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_early_data(ctx, 0);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify_depth(ctx, VERIFY_DEPTH);
    SSL_CTX_set_verify(
        ctx, SSL_VERIFY_PEER | (server && !anonymous ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
        on_verify);
    if (id->joining)
        SSL_CTX_set_cert_verify_callback(ctx, verify_by_fingerprint, (void *)(uintptr_t)id);
    if (ok)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

static int make_contexts(struct identity *id, char detail[IDENTITY_DETAIL])
{
    id->client = new_context(id, false, false);
    if (!id->joining) {
        id->server = new_context(id, true, false);
        id->open_server = new_context(id, true, true);
    }
    if (id->client && (id->joining || (id->server && id->open_server)))
        return 0;
    int err = fail(detail, -EKEYREJECTED, "the TLS library refuses the certificate: %s",
                   ERR_reason_error_string(ERR_peek_last_error()));
    ERR_clear_error();
    return err;
}

/* ---- loading */

/* A file of a private folder. */
static FILE *open_file(const char *dir, const char *name, bool secret, char *detail, int *err)
{
    char path[PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path)) {
        *err = fail(detail, -ENAMETOOLONG, "the path of the identity is too long");
        return NULL;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        *err = fail(detail, -errno, "cannot read %.150s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    if (secret && (st.st_mode & 077)) {
        *err = fail(detail, -EPERM, "%.150s may be read by others (mode %04o): chmod 600 it", path,
                    st.st_mode & 07777);
        close(fd);
        return NULL;
    }
    FILE *f = fdopen(fd, "r");
    if (!f) {
        *err = -ENOMEM;
        close(fd);
    }
    return f;
}

/* No prompt for a passphrase: a daemon has nobody to ask. */
static int no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1;
}

static int load_files(struct identity *id, const char *dir, char *detail)
{
    int err = 0;
    FILE *ca = open_file(dir, IDENTITY_CA, false, detail, &err);
    FILE *cert = ca ? open_file(dir, IDENTITY_CERT, false, detail, &err) : NULL;
    FILE *key = cert ? open_file(dir, IDENTITY_KEY, true, detail, &err) : NULL;
    if (key) {
        id->ca = PEM_read_X509(ca, NULL, no_passphrase, NULL);
        id->cert = PEM_read_X509(cert, NULL, no_passphrase, NULL);
        id->key = PEM_read_PrivateKey(key, NULL, no_passphrase, NULL);
        ERR_clear_error();
        const char *bad = !id->ca     ? IDENTITY_CA
                          : !id->cert ? IDENTITY_CERT
                          : !id->key  ? IDENTITY_KEY
                                      : NULL;
        if (bad)
            err = fail(detail, -EKEYREJECTED, "%.150s/%s is damaged: join this machine again", dir,
                       bad);
    }
    if (ca)
        fclose(ca);
    if (cert)
        fclose(cert);
    if (key)
        fclose(key);
    return err;
}

static int check_pair(const struct identity *id, const char *dir, char *detail)
{
    time_t late = time(NULL) - CERT_SKEW_S;
    int err = 0;
    if (X509_check_private_key(id->cert, id->key) != 1)
        err = fail(detail, -EKEYREJECTED, "%.150s: the key does not fit the certificate", dir);
    else if (X509_verify(id->cert, X509_get0_pubkey(id->ca)) != 1)
        err = fail(detail, -EKEYREJECTED, "%.150s: the certificate is not of this authority", dir);
    else if (X509_cmp_time(X509_get0_notAfter(id->cert), &late) < 0)
        err = fail(detail, -EKEYEXPIRED,
                   "%.150s: the certificate has expired: join with a new token", dir);
    ERR_clear_error();
    return err;
}

/* What the own certificate says, by the same eyes that look at others'. */
static int read_self(struct identity *id, const char *dir, const char *cloud, char *detail)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(id->cert, NID_subject_alt_name, NULL, NULL);
    const GENERAL_NAME *n =
        names && sk_GENERAL_NAME_num(names) == 1 ? sk_GENERAL_NAME_value(names, 0) : NULL;
    int err = -EINVAL;
    if (n && n->type == GEN_URI)
        err = identity_parse((const char *)ASN1_STRING_get0_data(n->d.uniformResourceIdentifier),
                             &id->self);
    GENERAL_NAMES_free(names);
    if (err)
        return fail(detail, -EKEYREJECTED, "%.150s: the certificate names nobody of a cloud", dir);
    if (cloud && strcmp(cloud, id->self.cloud) != 0)
        return fail(detail, -EXDEV, "%.100s: the certificate is of cloud %s, not of %.40s", dir,
                    id->self.cloud, cloud);
    return 0;
}

int identity_load(const char *dir, const char *cloud, struct identity **out,
                  char detail[IDENTITY_DETAIL])
{
    struct identity *id = calloc(1, sizeof(*id));
    detail[0] = '\0';
    if (!id)
        return fail(detail, -ENOMEM, "no memory");
    int err = load_files(id, dir, detail);
    if (!err)
        err = check_pair(id, dir, detail);
    if (!err)
        err = read_self(id, dir, cloud, detail);
    if (!err)
        err = make_contexts(id, detail);
    if (err)
        identity_free(id);
    else
        *out = id;
    return err;
}

int identity_for_join(const uint8_t fingerprint[32], struct identity **out,
                      char detail[IDENTITY_DETAIL])
{
    struct identity *id = calloc(1, sizeof(*id));
    detail[0] = '\0';
    if (!id)
        return fail(detail, -ENOMEM, "no memory");
    id->joining = true;
    memcpy(id->fingerprint, fingerprint, sizeof(id->fingerprint));
    int err = make_contexts(id, detail);
    if (err)
        identity_free(id);
    else
        *out = id;
    return err;
}

void identity_free(struct identity *id)
{
    if (!id)
        return;
    SSL_CTX_free(id->client);
    SSL_CTX_free(id->server);
    SSL_CTX_free(id->open_server);
    X509_free(id->ca);
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
    free(id);
}

const struct identity_name *identity_self(const struct identity *id)
{
    return &id->self;
}

SSL_CTX *identity_context(const struct identity *id, bool server, bool anonymous)
{
    return !server ? id->client : anonymous ? id->open_server : id->server;
}
