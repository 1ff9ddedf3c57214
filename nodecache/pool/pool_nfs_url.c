/* nfs: URLs. */
#include "nodecache/pool/pool_nfs_url.h"
#include "nodecache/pool/pool_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NFS_PORT_DEFAULT 2049
#define NFS_ID_MAX       4294967294u /* the highest one is "nobody in particular" */

enum seen { SEEN_VERSION = 1, SEEN_NFSPORT = 2, SEEN_MOUNTPORT = 4, SEEN_UID = 8, SEEN_GID = 16 };

static int bad(char *detail, const char *rest, const char *what)
{
    return pool_fail(detail, -EINVAL, "%s in nfs:%.80s (nfs://HOST/EXPORT/PATH?KEY=VALUE&...)",
                     what, rest);
}

/* Only digits, no signs, no spaces. */
static bool number(const char *text, size_t len, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;

    if (len == 0 || len > 10)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(text[i] - '0');
    }
    *out = n;
    return n <= max;
}

static bool host_ok(const char *host, size_t len, bool bracketed)
{
    const char *also = bracketed ? ":." : "-._";

    if (len == 0 || len >= NFS_URL_HOST)
        return false;
    for (size_t i = 0; i < len; i++) {
        bool ok = bracketed ? isxdigit((unsigned char)host[i]) : isalnum((unsigned char)host[i]);
        if (!ok && strchr(also, host[i]) == NULL)
            return false;
    }
    return host[0] != '-';
}

/* From behind "//" on; *end: where the path begins. */
static int parse_host(const char *rest, const char *at, struct np_url *u, const char **end,
                      char *detail)
{
    bool bracketed = *at == '[';
    const char *host = bracketed ? at + 1 : at;
    size_t len = strcspn(host, bracketed ? "]/?" : "/?");

    if (!host_ok(host, len, bracketed) || (bracketed && host[len] != ']'))
        return bad(detail, rest, "there is no good host name");
    memcpy(u->host, host, len);
    u->host[len] = '\0';
    at = host + len + (bracketed ? 1 : 0);
    *end = at;
    return 0;
}

/* Absolute, printable, without empty parts, "." and "..": it is compared with what the server says.
 */
static bool path_ok(const char *path)
{
    for (const char *c = path; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    }
    for (const char *part = path; *part == '/';) {
        size_t len = strcspn(part + 1, "/");
        bool last = part[1 + len] == '\0';
        if (len == 0 && !last)
            return false;
        if ((len == 1 && part[1] == '.') || (len == 2 && part[1] == '.' && part[2] == '.'))
            return false;
        if (len > 255)
            return false;
        part += 1 + len;
    }
    return path[0] == '/';
}

static int parse_path(const char *rest, const char *at, struct np_url *u, const char **end,
                      char *detail)
{
    size_t len = strcspn(at, "?");

    if (len == 0 || len >= NFS_URL_PATH)
        return bad(detail, rest, len == 0 ? "there is no path" : "the path is too long");
    memcpy(u->path, at, len);
    u->path[len] = '\0';
    if (!path_ok(u->path))
        return bad(detail, rest, "the path is not a plain absolute one");
    if (len > 1 && u->path[len - 1] == '/')
        u->path[len - 1] = '\0';
    *end = at + len;
    return 0;
}

static int parse_option(const char *rest, const char *at, size_t len, struct np_url *u,
                        unsigned *seen, char *detail)
{
    static const struct {
        const char *key;
        unsigned bit;
        uint64_t max;
    } keys[] = {{"version=", SEEN_VERSION, 99},
                {"nfsport=", SEEN_NFSPORT, UINT16_MAX},
                {"mountport=", SEEN_MOUNTPORT, UINT16_MAX},
                {"uid=", SEEN_UID, NFS_ID_MAX},
                {"gid=", SEEN_GID, NFS_ID_MAX}};
    uint64_t n;

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        size_t head = strlen(keys[i].key);
        if (len < head || memcmp(at, keys[i].key, head) != 0)
            continue;
        bool port = (keys[i].bit & (SEEN_NFSPORT | SEEN_MOUNTPORT)) != 0;
        if (!number(at + head, len - head, keys[i].max, &n) || (port && n == 0))
            return bad(detail, rest, "a value is not a number that it can be");
        if ((*seen & keys[i].bit) != 0)
            return bad(detail, rest, "a key stands twice");
        *seen |= keys[i].bit;
        switch (keys[i].bit) {
        case SEEN_VERSION:
            u->version = (unsigned)n;
            break;
        case SEEN_NFSPORT:
            u->nfs_port = (uint16_t)n;
            break;
        case SEEN_MOUNTPORT:
            u->mount_port = (uint16_t)n;
            break;
        case SEEN_UID:
            u->uid = (int64_t)n;
            break;
        default:
            u->gid = (int64_t)n;
        }
        return 0;
    }
    return bad(detail, rest, "an unknown key (known: version nfsport mountport uid gid)");
}

int np_url_parse(const char *rest, struct np_url *out, char *detail)
{
    struct np_url u = {.version = 3, .nfs_port = NFS_PORT_DEFAULT, .uid = -1, .gid = -1};
    const char *at = rest;
    unsigned seen = 0;
    int rc;

    if (strncmp(rest, "//", 2) != 0)
        return bad(detail, rest, "no // after the scheme");
    rc = parse_host(rest, rest + 2, &u, &at, detail);
    if (rc == 0)
        rc = parse_path(rest, at, &u, &at, detail);
    while (rc == 0 && *at != '\0') {
        size_t len = strcspn(at + 1, "&");
        rc = parse_option(rest, at + 1, len, &u, &seen, detail);
        at += 1 + len;
    }
    if (rc == 0 && u.version != 3)
        rc =
            pool_fail(detail, -EINVAL,
                      "nfs: pools speak version 3 of NFS only, not %u: libnfs' calls for version 4 "
                      "hide the write verifier, so nothing would show that bytes were lost",
                      u.version);
    if (rc == 0)
        *out = u;
    return rc;
}
