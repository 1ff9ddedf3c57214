/* From names to handles. */
#include "nodecache/pool/pool_nfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct np_name *slot_of(struct nfs *n, const char *name)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */

    for (const char *c = name; *c != '\0'; c++)
        hash = (hash ^ (uint8_t)*c) * 1099511628211u;
    return &n->names[(hash ^ (hash >> 32)) % NFS_NAMES_SLOTS];
}

static bool known(struct nfs *n, const char *name, struct np_fh *out)
{
    pthread_mutex_lock(&n->lock);
    const struct np_name *s = slot_of(n, name);
    bool found = strcmp(s->name, name) == 0 && np_now_ms() - s->since < NFS_NAMES_MS;
    if (found)
        *out = s->fh;
    pthread_mutex_unlock(&n->lock);
    return found;
}

static void remember(struct nfs *n, const char *name, const struct np_fh *fh)
{
    if (strlen(name) >= NFS_NAME)
        return;
    pthread_mutex_lock(&n->lock);
    struct np_name *s = slot_of(n, name);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->since = np_now_ms();
    s->fh = *fh;
    pthread_mutex_unlock(&n->lock);
}

void np_names_drop(struct nfs *n, const char *name)
{
    pthread_mutex_lock(&n->lock);
    struct np_name *s = slot_of(n, name);
    if (strcmp(s->name, name) == 0)
        s->name[0] = '\0';
    pthread_mutex_unlock(&n->lock);
}

void np_names_clear(struct nfs *n)
{
    pthread_mutex_lock(&n->lock);
    for (size_t i = 0; i < NFS_NAMES_SLOTS; i++)
        n->names[i].name[0] = '\0';
    pthread_mutex_unlock(&n->lock);
}

void np_root(struct nfs *n, struct np_fh *out)
{
    pthread_mutex_lock(&n->lock);
    *out = n->root;
    pthread_mutex_unlock(&n->lock);
}

static int step(struct np_conn *c, const struct np_fh *dir, const char *part, bool make,
                struct np_file *out)
{
    int rc = np_lookup(c, dir, part, out);

    if (rc != -ENOENT || !make)
        return rc;
    rc = np_mkdir(c, dir, part);
    return rc == 0 || rc == -EEXIST ? np_lookup(c, dir, part, out) : rc;
}

/* The first len bytes of a name. fresh: remembers nothing, believes nothing remembered. */
static int find(struct nfs *n, struct np_conn *c, const char *name, size_t len, bool make,
                bool fresh, struct np_file *out)
{
    char path[NFS_NAME];
    size_t begin = 0;
    int rc = 0;

    if (len >= sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, name, len);
    path[len] = '\0';
    if (len > 0 && !fresh && known(n, path, &out->fh))
        return 0;
    np_root(n, &out->fh);
    while (rc == 0 && begin < len) {
        struct np_fh dir = out->fh;
        size_t end = begin + strcspn(name + begin, "/");
        if (end > len)
            end = len;
        memcpy(path, name, end);
        path[end] = '\0';
        bool last = end == len;
        if (fresh || !known(n, path, &out->fh)) {
            rc = step(c, &dir, path + begin, make, out);
            if (rc == 0 && !last && out->known && !out->folder)
                rc = -ENOTDIR;
            if (rc == 0 && !fresh)
                remember(n, path, &out->fh);
        }
        begin = end + 1;
    }
    return rc;
}

int np_find(struct nfs *n, struct np_conn *c, const char *name, struct np_fh *out)
{
    struct np_file file = {0};
    int rc = find(n, c, name, strlen(name), false, false, &file);

    *out = file.fh;
    return rc;
}

int np_find_parent(struct nfs *n, struct np_conn *c, const char *name, bool make, struct np_fh *out,
                   const char **last)
{
    const char *slash = strrchr(name, '/');
    struct np_file file = {0};
    int rc = find(n, c, name, slash != NULL ? (size_t)(slash - name) : 0, make, false, &file);

    *last = slash != NULL ? slash + 1 : name;
    *out = file.fh;
    return rc;
}

int np_find_fresh(struct nfs *n, struct np_conn *c, const char *name, struct np_file *out)
{
    return find(n, c, name, strlen(name), false, true, out);
}
