/*
 * What follows "nfs:" in a pool's URL:
 *
 *   //HOST/EXPORT/PATH[?KEY=VALUE[&KEY=VALUE...]]
 *
 * HOST: a name, an IPv4 address, or an IPv6 address in brackets. The path begins with the export;
 * what lies below it is a folder of the pool. Keys, each at most once: version (3), nfsport (2049),
 * mountport (asked from the server's portmapper), uid, gid (those of the process). Everything is
 * taken as it stands: there is no %-encoding.
 */
#ifndef UMBEL_POOL_NFS_URL_H
#define UMBEL_POOL_NFS_URL_H

#include <stdint.h>

#define NFS_URL_HOST 256  /* bytes with the NUL: 255 is the longest name that DNS knows */
#define NFS_URL_PATH 1024 /* bytes with the NUL: MNTPATHLEN of the mount protocol */

struct np_url {
    char host[NFS_URL_HOST];
    char path[NFS_URL_PATH]; /* "/", or without a slash at its end */
    unsigned version;
    uint16_t nfs_port;
    uint16_t mount_port; /* 0: ask the portmapper */
    int64_t uid, gid;    /* -1: the process's */
};

/* -EINVAL with one line in detail. A pure function. */
int np_url_parse(const char *rest, struct np_url *out, char *detail);

#endif
