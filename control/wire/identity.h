/*
 * Who a process is, and who it talks to, between machines: X.509 certificates of the cloud's own
 * authority (authority.h makes them).
 *
 * A certificate's subject alternative name is one URI, umbel://CLOUD/ROLE/NAME, for mounts with
 * what its users are mapped to: umbel://CLOUD/mount/NAME?all_squash=UID:GID or
 * ?root_squash=UID:GID.
 *
 * An identity is a folder, which only its owner may read: ca.crt, self.crt, self.key (PEM). It is
 * loaded once, never changes, and is used by any number of connections from any thread; it must
 * outlive what was started with it.
 *
 * How long certificates hold: CERT_DAYS, from one day before they were made. A clock that is off by
 * up to CERT_SKEW_S on either side is tolerated at both ends. They are long-lived on purpose: a
 * cloud must not stop because nobody renewed something. What ends one is its revocation, which the
 * centre keeps in its state; a new one is had by `umbel join` with a new token.
 */
#ifndef UMBEL_WIRE_IDENTITY_H
#define UMBEL_WIRE_IDENTITY_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#define IDENTITY_DETAIL 256
#define IDENTITY_TEXT   192 /* of a URI, with its end */
/* Of a certificate's beginning and end, whatever the clocks say. */
#define CERT_SKEW_S 3600
#define CERT_DAYS   3650
#define CA_DAYS     10950

#define IDENTITY_CA   "ca.crt"
#define IDENTITY_CERT "self.crt"
#define IDENTITY_KEY  "self.key"

enum identity_role { IDENTITY_NONE, IDENTITY_CONTROL, IDENTITY_NODE, IDENTITY_MOUNT };

/* Users of a mount: as they are; root is another; all are one other. */
enum identity_squash { SQUASH_NONE, SQUASH_ROOT, SQUASH_ALL };

struct identity_name {
    enum identity_role role;
    char cloud[40]; /* a UUID */
    char name[40];  /* letters, digits and ._- */
    enum identity_squash squash;
    uint32_t uid, gid; /* of squash */
};

/* Who is at the other end of a connection. */
struct identity_peer {
    bool tls;                 /* false: a unix socket: its credentials are all there is */
    struct identity_name who; /* role NONE over TLS: it showed no certificate (only JOIN is open) */
};

/* "control", "node", "mount"; "none". Static. */
const char *identity_role_text(enum identity_role role);
enum identity_role identity_role_parse(const char *text);
/* A name that may stand in a certificate. Pure, as are the next three. */
bool identity_name_ok(const char *name);
/* -EINVAL. */
int identity_parse(const char *uri, struct identity_name *out);
/* -ENAMETOOLONG, -EINVAL. */
int identity_format(const struct identity_name *who, char out[IDENTITY_TEXT]);
/* "none", "root_squash[=UID:GID]", "all_squash=UID:GID" into *who. -EINVAL. */
int identity_squash_parse(const char *text, struct identity_name *who);
void identity_squash_format(const struct identity_name *who, char out[48]);

struct identity;

/* 0, or -errno with a line that says what is wrong and what to do: -ENOENT, -EPERM (the key may be
 * read by others), -EKEYREJECTED (the key or the certificate does not fit), -EKEYEXPIRED, -EXDEV
 * (the certificate is of another cloud than `cloud`; NULL: any). */
int identity_load(const char *dir, const char *cloud, struct identity **out,
                  char detail[IDENTITY_DETAIL]);
/* For who has no certificate yet: knows the cloud by the SHA-256 of its authority's certificate. */
int identity_for_join(const uint8_t fingerprint[32], struct identity **out,
                      char detail[IDENTITY_DETAIL]);
/* May be NULL. */
void identity_free(struct identity *id);

const struct identity_name *identity_self(const struct identity *id);
/* For channel.c. anonymous: a server that also lets in who shows no certificate. */
SSL_CTX *identity_context(const struct identity *id, bool server, bool anonymous);
/* Whether the certificate of the other end, already verified, names somebody of this cloud. -EXDEV,
 * -EKEYREJECTED. */
int identity_of_peer(const struct identity *id, SSL *ssl, struct identity_name *who,
                     char detail[IDENTITY_DETAIL]);

#endif
