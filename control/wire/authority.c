#include "control/wire/authority.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY 86400
/* Clocks that run behind, of machines that were just set up. */
#define BACKDATE (-DAY)
/* 159 random bits: unique without a counter, and positive. */
#define SERIAL_BITS 159

struct authority {
    char cloud[40];
    X509 *cert;
    EVP_PKEY *key;
};

static int fail(char detail[IDENTITY_DETAIL], int err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(char detail[IDENTITY_DETAIL], int err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(detail, IDENTITY_DETAIL, format, args);
    va_end(args);
    ERR_clear_error();
    return err;
}

/* ---- files: written beside, synced, renamed */

static int join_path(const char *dir, const char *name, const char *suffix, char path[PATH_MAX],
                     char *detail)
{
    if (snprintf(path, PATH_MAX, "%s/%s%s", dir, name, suffix) < PATH_MAX)
        return 0;
    return fail(detail, -ENAMETOOLONG, "the path of the identity is too long");
}

typedef int (*write_fn)(FILE *f, const void *what);

static int write_cert(FILE *f, const void *cert)
{
    return PEM_write_X509(f, cert);
}

static int write_key(FILE *f, const void *key)
{
    return PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
}

static int sync_folder(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int err = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return err;
}

static int save(const char *dir, const char *name, write_fn put, const void *what, char *detail)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    int err = join_path(dir, name, "", path, detail);
    if (!err)
        err = join_path(dir, name, ".new", fresh, detail);
    if (err)
        return err;
    unlink(fresh); /* of an interrupted attempt */
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    bool ok = f && put(f, what) == 1 && fflush(f) == 0 && fsync(fd) == 0;
    err = ok ? 0 : errno ? -errno : -EIO;
    if (f)
        fclose(f);
    else if (fd >= 0)
        close(fd);
    if (!err && rename(fresh, path) < 0)
        err = -errno;
    if (!err)
        err = sync_folder(dir);
    return err ? fail(detail, err, "cannot write %.150s: %s", path, strerror(-err)) : 0;
}

static int make_folder(const char *dir, char *detail)
{
    if (mkdir(dir, 0700) == 0 || errno == EEXIST)
        return 0;
    return fail(detail, -errno, "cannot make %.150s: %s", dir, strerror(errno));
}

/* ---- certificates */

static bool add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e && X509_add_ext(cert, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

static bool set_serial(X509 *cert)
{
    BIGNUM *n = BN_new();
    bool ok = n && BN_rand(n, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) &&
              BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));
    BN_free(n);
    return ok;
}

static bool set_times(X509 *cert, const struct authority_times *t)
{
    time_t now = time(NULL);
    return X509_time_adj_ex(X509_getm_notBefore(cert), 0, (long)t->from, &now) &&
           X509_time_adj_ex(X509_getm_notAfter(cert), 0, (long)t->until, &now);
}

static bool set_names(X509 *cert, X509 *issuer, const char *cloud, const char *name)
{
    X509_NAME *n = X509_get_subject_name(cert);
    return X509_NAME_add_entry_by_txt(n, "O", MBSTRING_ASC, (const unsigned char *)cloud, -1, -1,
                                      0) &&
           X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1,
                                      0) &&
           X509_set_issuer_name(cert, X509_get_subject_name(issuer));
}

/* Unsigned, without extensions. issuer: NULL for one that signs itself. */
static X509 *new_cert(X509 *issuer, const char *cloud, const char *name, EVP_PKEY *key,
                      const struct authority_times *times)
{
    X509 *cert = X509_new();
    if (cert && X509_set_version(cert, X509_VERSION_3) && set_serial(cert) &&
        set_times(cert, times) && X509_set_pubkey(cert, key) &&
        set_names(cert, issuer ? issuer : cert, cloud, name))
        return cert;
    X509_free(cert);
    return NULL;
}

/* ---- the authority's own */

static int new_authority(const char *dir, const char *cloud, char *detail)
{
    static const struct authority_times times = {BACKDATE, (int64_t)CA_DAYS * DAY};
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = key ? new_cert(NULL, cloud, "Umbel authority", key, &times) : NULL;
    int err = 0;
    if (!cert || !add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
        !add_extension(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        !add_extension(cert, cert, NID_subject_key_identifier, "hash") ||
        !X509_sign(cert, key, EVP_sha256()))
        err = fail(detail, -EIO, "the authority's certificate cannot be made: %s",
                   ERR_reason_error_string(ERR_peek_last_error()));
    /* The certificate last: where it is, the key is, too. */
    if (!err)
        err = save(dir, AUTHORITY_KEY, write_key, key, detail);
    if (!err)
        err = save(dir, IDENTITY_CA, write_cert, cert, detail);
    X509_free(cert);
    EVP_PKEY_free(key);
    return err;
}

int authority_create(const char *dir, const char *cloud, char detail[IDENTITY_DETAIL])
{
    char path[PATH_MAX];
    detail[0] = '\0';
    int err = join_path(dir, IDENTITY_CA, "", path, detail);
    if (!err && access(path, F_OK) == 0)
        return 0;
    return err ? err : new_authority(dir, cloud, detail);
}

static FILE *open_file(const char *dir, const char *name, char *detail, int *err)
{
    char path[PATH_MAX];
    *err = join_path(dir, name, "", path, detail);
    FILE *f = *err ? NULL : fopen(path, "re");
    if (!f && !*err)
        *err = fail(detail, -errno, "the cloud's authority: cannot read %.150s: %s", path,
                    strerror(errno));
    return f;
}

static int load_key(struct authority *a, const char *dir, char *detail)
{
    struct stat st;
    int err;
    FILE *f = open_file(dir, AUTHORITY_KEY, detail, &err);
    if (!f)
        return err;
    if (fstat(fileno(f), &st) < 0 || (st.st_mode & 077))
        err = fail(detail, -EPERM, "%.150s/" AUTHORITY_KEY " may be read by others: chmod 600 it",
                   dir);
    else if (!(a->key = PEM_read_PrivateKey(f, NULL, NULL, (void *)(uintptr_t) "")))
        err = fail(detail, -EKEYREJECTED, "%.150s/" AUTHORITY_KEY " is damaged", dir);
    fclose(f);
    return err;
}

static int load_cert(struct authority *a, const char *dir, char *detail)
{
    int err;
    FILE *f = open_file(dir, IDENTITY_CA, detail, &err);
    if (!f)
        return err;
    a->cert = PEM_read_X509(f, NULL, NULL, (void *)(uintptr_t) "");
    fclose(f);
    if (!a->cert)
        return fail(detail, -EKEYREJECTED, "%.150s/" IDENTITY_CA " is damaged", dir);
    if (X509_NAME_get_text_by_NID(X509_get_subject_name(a->cert), NID_organizationName, a->cloud,
                                  sizeof(a->cloud)) <= 0)
        return fail(detail, -EKEYREJECTED, "%.150s/" IDENTITY_CA " is no authority of a cloud",
                    dir);
    return 0;
}

int authority_open(const char *dir, const char *cloud, struct authority **out,
                   char detail[IDENTITY_DETAIL])
{
    struct authority *a = calloc(1, sizeof(*a));
    detail[0] = '\0';
    if (!a)
        return fail(detail, -ENOMEM, "no memory");
    int err = load_cert(a, dir, detail);
    if (!err)
        err = load_key(a, dir, detail);
    if (!err && X509_check_private_key(a->cert, a->key) != 1)
        err = fail(detail, -EKEYREJECTED, "%.150s: the authority's key does not fit", dir);
    if (!err && cloud && strcmp(cloud, a->cloud) != 0)
        err = fail(detail, -EXDEV, "%.150s: this authority is of cloud %s", dir, a->cloud);
    if (err)
        authority_close(a);
    else
        *out = a;
    return err;
}

void authority_close(struct authority *a)
{
    if (!a)
        return;
    X509_free(a->cert);
    EVP_PKEY_free(a->key);
    free(a);
}

void authority_fingerprint(const struct authority *a, uint8_t out[32])
{
    unsigned n = 0;
    X509_digest(a->cert, EVP_sha256(), out, &n);
}

/* DER into out[AUTHORITY_DER_MAX]; cert NULL: -EIO. */
static int put_der(X509 *cert, uint8_t *out)
{
    int n = cert ? i2d_X509(cert, NULL) : -1;
    if (n <= 0 || n > AUTHORITY_DER_MAX)
        return -EIO;
    return i2d_X509(cert, &out);
}

int authority_certificate(const struct authority *a, uint8_t out[AUTHORITY_DER_MAX])
{
    return put_der(a->cert, out);
}

/* ---- signing */

/* NULL: what may be wrong is in the library's error queue. */
static X509 *sign(const struct authority *a, EVP_PKEY *key, const struct identity_name *who,
                  const struct authority_times *times)
{
    static const struct authority_times usual = {BACKDATE, (int64_t)CERT_DAYS * DAY};
    char uri[IDENTITY_TEXT], san[IDENTITY_TEXT + 8];
    struct identity_name named = *who;
    snprintf(named.cloud, sizeof(named.cloud), "%s", a->cloud);
    if (identity_format(&named, uri) < 0)
        return NULL;
    snprintf(san, sizeof(san), "URI:%s", uri);
    /* A mount never serves. */
    const char *usage = named.role == IDENTITY_MOUNT ? "clientAuth" : "clientAuth,serverAuth";
    X509 *cert = new_cert(a->cert, a->cloud, named.name, key, times ? times : &usual);
    if (cert && add_extension(cert, a->cert, NID_basic_constraints, "critical,CA:FALSE") &&
        add_extension(cert, a->cert, NID_key_usage, "critical,digitalSignature") &&
        add_extension(cert, a->cert, NID_ext_key_usage, usage) &&
        add_extension(cert, a->cert, NID_subject_alt_name, san) &&
        add_extension(cert, a->cert, NID_authority_key_identifier, "keyid") &&
        X509_sign(cert, a->key, EVP_sha256()))
        return cert;
    X509_free(cert);
    return NULL;
}

/* What others bring must be neither weak nor slow to verify. */
static bool key_is_good(EVP_PKEY *key)
{
    char group[32] = "";
    if (EVP_PKEY_is_a(key, "ED25519"))
        return true;
    return EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) &&
           strcmp(group, "prime256v1") == 0;
}

int authority_sign(const struct authority *a, const void *request, size_t n,
                   const struct identity_name *who, const struct authority_times *times,
                   uint8_t out[AUTHORITY_DER_MAX], char detail[IDENTITY_DETAIL])
{
    const unsigned char *at = request;
    X509_REQ *req = n <= AUTHORITY_DER_MAX ? d2i_X509_REQ(NULL, &at, (long)n) : NULL;
    EVP_PKEY *key = req ? X509_REQ_get0_pubkey(req) : NULL;
    int rc;
    if (!key || at != (const unsigned char *)request + n || !key_is_good(key) ||
        X509_REQ_verify(req, key) != 1) {
        rc = fail(detail, -EINVAL, "this is no request for a certificate, or its key is refused");
    } else {
        X509 *cert = sign(a, key, who, times);
        rc = put_der(cert, out);
        if (rc < 0)
            fail(detail, rc, "the certificate cannot be made");
        X509_free(cert);
    }
    X509_REQ_free(req);
    return rc;
}

int authority_issue(const struct authority *a, const char *dir, const struct identity_name *who,
                    const struct authority_times *times, char detail[IDENTITY_DETAIL])
{
    detail[0] = '\0';
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = key ? sign(a, key, who, times) : NULL;
    int err = cert ? make_folder(dir, detail)
                   : fail(detail, -EIO, "the certificate of %s cannot be made", who->name);
    if (!err)
        err = save(dir, IDENTITY_KEY, write_key, key, detail);
    if (!err)
        err = save(dir, IDENTITY_CA, write_cert, a->cert, detail);
    if (!err)
        err = save(dir, IDENTITY_CERT, write_cert, cert, detail);
    X509_free(cert);
    EVP_PKEY_free(key);
    return err;
}

/* ---- the joiner's side */

static int put_request(EVP_PKEY *key, uint8_t *out)
{
    X509_REQ *req = X509_REQ_new();
    int n = -EIO;
    if (req && X509_REQ_set_version(req, X509_REQ_VERSION_1) && X509_REQ_set_pubkey(req, key) &&
        X509_REQ_sign(req, key, EVP_sha256()) && (n = i2d_X509_REQ(req, NULL)) > 0 &&
        n <= AUTHORITY_DER_MAX)
        n = i2d_X509_REQ(req, &out);
    X509_REQ_free(req);
    return n > 0 ? n : -EIO;
}

int identity_request(const char *dir, uint8_t out[AUTHORITY_DER_MAX], char detail[IDENTITY_DETAIL])
{
    detail[0] = '\0';
    EVP_PKEY *key = EVP_EC_gen("P-256");
    int n = key ? put_request(key, out) : -EIO;
    int err = n < 0 ? fail(detail, n, "a key cannot be made") : make_folder(dir, detail);
    if (!err)
        err = save(dir, IDENTITY_KEY, write_key, key, detail);
    EVP_PKEY_free(key);
    return err ? err : n;
}

static int install(const char *dir, const char *name, const void *der, size_t n, char *detail)
{
    const unsigned char *at = der;
    X509 *cert = n <= AUTHORITY_DER_MAX ? d2i_X509(NULL, &at, (long)n) : NULL;
    int err = cert && at == (const unsigned char *)der + n
                  ? save(dir, name, write_cert, cert, detail)
                  : fail(detail, -EPROTO, "the centre's answer holds no certificate");
    X509_free(cert);
    return err;
}

int identity_install(const char *dir, const void *cert, size_t cert_n, const void *ca, size_t ca_n,
                     char detail[IDENTITY_DETAIL])
{
    detail[0] = '\0';
    int err = install(dir, IDENTITY_CA, ca, ca_n, detail);
    return err ? err : install(dir, IDENTITY_CERT, cert, cert_n, detail);
}
