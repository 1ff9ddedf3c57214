/* Pool URLs: what is taken is within its bounds, and the same when it is put together again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nodecache/pool/pool.h"
#include "nodecache/pool/pool_nfs_url.h"

#define must(what)                                                                                 \
    do {                                                                                           \
        if (!(what))                                                                               \
            abort();                                                                               \
    } while (0)

static void put_together(const struct np_url *u, char *text, size_t size)
{
    bool v6 = strchr(u->host, ':') != NULL;
    int n = snprintf(text, size, "//%s%s%s%s?version=%u&nfsport=%u", v6 ? "[" : "", u->host,
                     v6 ? "]" : "", u->path, u->version, u->nfs_port);

    if (u->mount_port)
        n += snprintf(text + n, size - (size_t)n, "&mountport=%u", u->mount_port);
    if (u->uid >= 0)
        n += snprintf(text + n, size - (size_t)n, "&uid=%lld", (long long)u->uid);
    if (u->gid >= 0)
        n += snprintf(text + n, size - (size_t)n, "&gid=%lld", (long long)u->gid);
    must((size_t)n < size);
}

static void same(const struct np_url *a, const struct np_url *b)
{
    must(strcmp(a->host, b->host) == 0 && strcmp(a->path, b->path) == 0);
    must(a->version == b->version && a->nfs_port == b->nfs_port);
    must(a->mount_port == b->mount_port && a->uid == b->uid && a->gid == b->gid);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[NFS_URL_HOST + NFS_URL_PATH + 128], detail[POOL_DETAIL] = "";
    char *url = malloc(size + 1);
    struct np_url u, again;

    if (!url)
        return 0;
    memcpy(url, data, size);
    url[size] = '\0';
    if (np_url_parse(url, &u, detail) == 0) {
        must(memchr(u.host, '\0', sizeof(u.host)) && u.host[0] && u.host[0] != '-');
        must(memchr(u.path, '\0', sizeof(u.path)) && u.path[0] == '/');
        must(!strstr(u.path, "//") && !strstr(u.path, "/../"));
        must(u.nfs_port != 0);
        put_together(&u, text, sizeof(text));
        must(np_url_parse(text, &again, detail) == 0);
        same(&u, &again);
    } else {
        must(memchr(detail, '\0', sizeof(detail)) && detail[0]); /* it says why */
    }
    free(url);
    return 0;
}
