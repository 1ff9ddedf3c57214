/*
 * The authority of a cloud: makes its own certificate, and signs those of everybody else. EC P-256;
 * keys never leave the machine on which they were made (who joins sends a request for a signature).
 *
 * Its folder holds ca.crt and ca.key (0600). Only the machine of the control process has the key.
 *
 * One-time tokens: "umbel1.FINGERPRINT.SECRET", both in hex. The fingerprint (SHA-256 of ca.crt)
 * lets a machine that knows nothing else trust the centre; the secret lets the centre trust the
 * machine, once. The centre keeps only the SHA-256 of the secret.
 */
#ifndef UMBEL_WIRE_AUTHORITY_H
#define UMBEL_WIRE_AUTHORITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/wire/identity.h"

#define AUTHORITY_KEY "ca.key"

#define TOKEN_SECRET 24 /* bytes: 192 random bits */
#define TOKEN_HASH   32
#define TOKEN_TEXT   (7 + 64 + 1 + 2 * TOKEN_SECRET + 1) /* with its end */
/* A certificate or a request in DER stays far below. */
#define AUTHORITY_DER_MAX 4096

struct token {
    uint8_t fingerprint[32];
    uint8_t secret[TOKEN_SECRET];
};

/* Seconds from now; for tests that need a certificate of another time. */
struct authority_times {
    int64_t from, until;
};

struct authority;

/* All of these: 0 or -errno, and then a line in detail. */

/* Makes ca.crt and ca.key in dir if they are not there. */
int authority_create(const char *dir, const char *cloud, char detail[IDENTITY_DETAIL]);
/* -ENOENT: there is no key here; -EPERM: others may read it; -EXDEV: of another cloud. */
int authority_open(const char *dir, const char *cloud, struct authority **out,
                   char detail[IDENTITY_DETAIL]);
void authority_close(struct authority *a); /* may be NULL */
void authority_fingerprint(const struct authority *a, uint8_t out[32]);
/* The certificate in DER. Its length, or < 0. */
int authority_certificate(const struct authority *a, uint8_t out[AUTHORITY_DER_MAX]);

/* Signs a request (DER) as `who` of this cloud: only its public key counts. times: NULL for the
 * usual ones. The length of the certificate in out, or < 0: -EINVAL: not a request, its signature
 * is wrong, or its key is not of the kind P-256 or Ed25519. */
int authority_sign(const struct authority *a, const void *request, size_t n,
                   const struct identity_name *who, const struct authority_times *times,
                   uint8_t out[AUTHORITY_DER_MAX], char detail[IDENTITY_DETAIL]);

/* A whole identity in the folder dir (made if needed), signed here. What is there is replaced. */
int authority_issue(const struct authority *a, const char *dir, const struct identity_name *who,
                    const struct authority_times *times, char detail[IDENTITY_DETAIL]);

/* The joiner's side: a new key in dir/self.key and the request for it. The length, or < 0. */
int identity_request(const char *dir, uint8_t out[AUTHORITY_DER_MAX], char detail[IDENTITY_DETAIL]);
/* What the centre answered becomes dir/self.crt and dir/ca.crt; then identity_load must succeed. */
int identity_install(const char *dir, const void *cert, size_t cert_n, const void *ca, size_t ca_n,
                     char detail[IDENTITY_DETAIL]);

/* -EIO: the system gives no random numbers. */
int token_make(const struct authority *a, struct token *t, char out[TOKEN_TEXT]);
/* -EINVAL: not a token. Pure. */
int token_parse(const char *text, struct token *out);
void token_hash(const uint8_t secret[TOKEN_SECRET], uint8_t out[TOKEN_HASH]);

#endif
