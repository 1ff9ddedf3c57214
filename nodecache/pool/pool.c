/* Opening a pool: its driver and its marker; the names of packs. */
#include "nodecache/pool/pool_internal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MARKER        "umbel-pool"
#define MARKER_FORMAT 1u
#define MARKER_MAX    512 /* bytes read of it */
/* A marker that somebody else is just creating is waited for: 1 s, far more than a write and three
 * syncs take. */
#define MARKER_WAITS   50
#define MARKER_WAIT_NS 20000000L
#define PACK_DIGITS    16

static const struct pool_driver *const drivers[] = {&pool_dir, &pool_nfs};

int pool_fail(char *detail, int error, const char *format, ...)
{
    va_list args;

    if (detail != NULL) {
        va_start(args, format);
        vsnprintf(detail, POOL_DETAIL, format, args);
        va_end(args);
    }
    return error;
}

void pack_name(uint64_t pack, char name[PACK_NAME])
{
    snprintf(name, PACK_NAME, "packs/%02x/%016" PRIx64, (unsigned)(pack & 0xff), pack);
}

/* ---- marker */

static bool cloud_ok(const char *cloud)
{
    size_t len = strlen(cloud);

    if (len == 0 || len > POOL_CLOUD_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (!isgraph((unsigned char)cloud[i]))
            return false;
    }
    return true;
}

static void marker_text(const char *cloud, char text[MARKER_MAX])
{
    snprintf(text, MARKER_MAX, "umbel-pool %u\ncloud %s\n", MARKER_FORMAT, cloud);
}

/* -EBADMSG also while it is still being written. */
static int marker_check(const char *text, const char *cloud, char *detail)
{
    char found[POOL_CLOUD_MAX + 1];
    unsigned format;
    int end = 0;

    if (sscanf(text, "umbel-pool %u\n%n", &format, &end) != 1 || end == 0)
        return pool_fail(detail, -EBADMSG, "the pool's marker object \"%s\" is damaged", MARKER);
    if (format > MARKER_FORMAT)
        return pool_fail(detail, -EPROTONOSUPPORT, "the pool has format %u, newer than %u", format,
                         MARKER_FORMAT);
    text += end;
    end = 0;
    /* The width is POOL_CLOUD_MAX. */
    if (sscanf(text, "cloud %128s%n", found, &end) != 1 || end == 0 || text[end] != '\n')
        return pool_fail(detail, -EBADMSG, "the pool's marker object \"%s\" is damaged", MARKER);
    if (cloud != NULL && strcmp(found, cloud) != 0)
        return pool_fail(detail, -EXDEV, "the pool belongs to cloud %s, not to %s", found, cloud);
    return 0;
}

static int marker_read(struct pool *p, char text[MARKER_MAX], char *detail)
{
    struct iovec iov = {text, MARKER_MAX - 1};
    ssize_t got = p->driver->read(p->ctx, MARKER, 0, &iov, 1, detail);

    if (got < 0)
        return (int)got;
    text[got] = '\0';
    return 0;
}

static int marker_create(struct pool *p, const char *cloud, char *detail)
{
    char text[MARKER_MAX];
    void *object;
    int rc = p->driver->create(p->ctx, MARKER, &object, detail);

    if (rc != 0)
        return rc;
    marker_text(cloud, text);
    rc = p->driver->append(object, text, strlen(text), detail);
    if (rc == 0)
        rc = p->driver->finish(object, detail);
    else
        p->driver->abandon(object);
    return rc;
}

static bool any_pack(void *arg, uint64_t pack)
{
    (void)pack;
    *(bool *)arg = true;
    return false;
}

/* A marker left half written by a crash, in a pool that was never used, makes room for a whole one.
 */
static int marker_repair(struct pool *p, const char *text, const char *cloud, char *detail)
{
    char whole[MARKER_MAX];
    bool used = false;

    marker_text(cloud, whole);
    if (strncmp(text, whole, strlen(text)) != 0)
        return -EBADMSG; /* detail is set */
    int rc = pack_list(p, any_pack, &used, detail);
    if (rc != 0 || used)
        return rc != 0 ? rc : pool_fail(detail, -EBADMSG, "the pool's marker object is damaged");
    rc = p->driver->remove(p->ctx, MARKER, detail);
    return rc != 0 ? rc : marker_create(p, cloud, detail);
}

static int marker_open(struct pool *p, const char *cloud, bool create, char *detail)
{
    const struct timespec pause = {.tv_nsec = MARKER_WAIT_NS};
    char text[MARKER_MAX];
    int rc = marker_read(p, text, detail);

    if (rc == -ENOENT && !create)
        return pool_fail(detail, rc,
                         "there is no pool in %.100s (no object \"%s\": is it mounted?)", p->rest,
                         MARKER);
    if (rc == -ENOENT) {
        rc = marker_create(p, cloud, detail);
        if (rc != -EEXIST)
            return rc;
        rc = marker_read(p, text, detail);
    }
    if (rc == 0)
        rc = marker_check(text, cloud, detail);
    for (int i = 0; i < MARKER_WAITS && rc == -EBADMSG; i++) {
        nanosleep(&pause, NULL);
        rc = marker_read(p, text, detail);
        if (rc == 0)
            rc = marker_check(text, cloud, detail);
    }
    if (rc == -EBADMSG && create)
        rc = marker_repair(p, text, cloud, detail);
    return rc;
}

/* ---- opening */

static void pool_free(struct pool *p)
{
    pthread_mutex_destroy(&p->lock);
    free(p->rest);
    free(p->cloud);
    free(p);
}

/* Not opened yet. */
static struct pool *pool_new(const struct pool_driver *driver, const char *rest, const char *cloud)
{
    struct pool *p = calloc(1, sizeof *p);

    if (p == NULL)
        return NULL;
    p->driver = driver;
    p->rest = strdup(rest);
    p->cloud = cloud != NULL ? strdup(cloud) : NULL;
    pthread_mutex_init(&p->lock, NULL);
    if (p->rest != NULL && (cloud == NULL || p->cloud != NULL))
        return p;
    pool_free(p);
    return NULL;
}

/* Sets ctx, or nothing. */
static int pool_connect(struct pool *p, bool create, char *detail)
{
    int rc = p->driver->open(p->rest, create, &p->ctx, detail);

    if (rc != 0)
        return rc;
    atomic_store(&p->here, create); /* mending a marker lists packs; nobody else has p yet */
    rc = marker_open(p, p->cloud, create, detail);
    atomic_store_explicit(&p->here, rc == 0, memory_order_release);
    if (rc != 0)
        p->driver->close(p->ctx);
    return rc;
}

static int pool_prepare(const struct pool_driver *driver, const char *rest, const char *cloud,
                        bool create, struct pool **out, char *detail)
{
    if (cloud == NULL ? create : !cloud_ok(cloud))
        return pool_fail(detail, -EINVAL, "the cloud id must be 1 to %d printable bytes",
                         POOL_CLOUD_MAX);
    *out = pool_new(driver, rest, cloud);
    return *out != NULL ? 0 : pool_fail(detail, -ENOMEM, "no memory for opening the pool");
}

int pool_open_driver(const struct pool_driver *driver, const char *rest_of_url, const char *cloud,
                     bool create, struct pool **out, char *detail)
{
    struct pool *p;
    int rc = pool_prepare(driver, rest_of_url, cloud, create, &p, detail);

    if (rc != 0)
        return rc;
    rc = pool_connect(p, create, detail);
    if (rc == 0)
        *out = p;
    else
        pool_free(p);
    return rc;
}

/* NULL: no such; else *rest is what follows the scheme. */
static const struct pool_driver *driver_of(const char *url, const char **rest, char *detail)
{
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        size_t len = strlen(drivers[i]->scheme);
        *rest = url + len + 1;
        if (strncmp(url, drivers[i]->scheme, len) == 0 && url[len] == ':')
            return drivers[i];
    }
    pool_fail(detail, -EINVAL, "unknown pool URL \"%s\" (known: dir:/path nfs://host/export/path)",
              url);
    return NULL;
}

int pool_open(const char *url, const char *cloud, bool create, struct pool **out, char *detail)
{
    const char *rest;
    const struct pool_driver *driver = driver_of(url, &rest, detail);

    return driver == NULL ? -EINVAL : pool_open_driver(driver, rest, cloud, create, out, detail);
}

void pool_close(struct pool *p)
{
    if (p == NULL)
        return;
    if (atomic_load(&p->here))
        p->driver->close(p->ctx);
    pool_free(p);
}

/* ---- a pool that is away */

static void pool_away(struct pool *p, const char *why)
{
    pthread_mutex_lock(&p->lock);
    snprintf(p->why, sizeof p->why, "%s", why);
    pthread_mutex_unlock(&p->lock);
}

int pool_here(struct pool *p, char *detail)
{
    if (atomic_load_explicit(&p->here, memory_order_acquire))
        return 0;
    if (detail != NULL) {
        pthread_mutex_lock(&p->lock);
        snprintf(detail, POOL_DETAIL, "%s", p->why);
        pthread_mutex_unlock(&p->lock);
    }
    return -EIO;
}

int pool_open_later(const char *url, const char *cloud, struct pool **out, char *detail)
{
    const char *rest;
    char why[POOL_DETAIL] = "";
    struct pool *p;
    const struct pool_driver *driver = driver_of(url, &rest, detail);
    int rc = driver == NULL ? -EINVAL : pool_prepare(driver, rest, cloud, false, &p, detail);

    if (rc != 0)
        return rc;
    rc = pool_connect(p, false, why);
    if (detail != NULL)
        snprintf(detail, POOL_DETAIL, "%s", why);
    if (rc == -EINVAL || rc == -EPROTONOSUPPORT || rc == -EXDEV || rc == -ENOMEM) {
        pool_free(p);
        return rc;
    }
    pool_away(p, why);
    *out = p;
    return 0;
}

/* Something else is where the pool was: it is used if it is this cloud's. */
static int pool_follow(struct pool *p, char *detail)
{
    struct pool *fresh;
    int rc = pool_open_driver(p->driver, p->rest, p->cloud, false, &fresh, detail);

    if (rc != 0)
        return rc;
    rc = p->driver->adopt(p->ctx, fresh->ctx, detail);
    pool_close(fresh);
    return rc;
}

int pool_look(struct pool *p, char *detail)
{
    char why[POOL_DETAIL] = "";
    int rc = 0;

    if (!atomic_load(&p->here)) {
        rc = pool_connect(p, false, why);
        pool_away(p, why);
    } else if (p->driver->look != NULL) {
        rc = p->driver->look(p->ctx, why);
        if (rc != 0)
            rc = pool_follow(p, why);
    }
    if (rc != 0 && detail != NULL)
        snprintf(detail, POOL_DETAIL, "%s", why);
    return rc;
}

int pool_cloud(struct pool *p, char cloud[POOL_CLOUD_MAX + 1], char *detail)
{
    char text[MARKER_MAX];
    int rc = pool_here(p, detail);

    if (rc == 0)
        rc = marker_read(p, text, detail);
    if (rc == 0)
        rc = marker_check(text, NULL, detail);
    /* The width is POOL_CLOUD_MAX. */
    if (rc == 0 && sscanf(text, "umbel-pool %*u cloud %128s", cloud) != 1)
        rc = pool_fail(detail, -EBADMSG, "the pool's marker object \"%s\" is damaged", MARKER);
    return rc;
}

int pool_statvfs(struct pool *p, struct statvfs *out, char *detail)
{
    int rc = pool_here(p, detail);
    return rc != 0 ? rc : p->driver->statvfs(p->ctx, out, detail);
}

/* ---- packs as objects */

int pack_remove(struct pool *p, uint64_t pack, char *detail)
{
    char name[PACK_NAME];
    int rc = pool_here(p, detail);

    pack_name(pack, name);
    return rc != 0 ? rc : p->driver->remove(p->ctx, name, detail);
}

struct listing {
    unsigned folder;
    bool (*fn)(void *arg, uint64_t pack);
    void *arg;
    bool ended;
};

static bool list_one(void *arg, const char *name)
{
    struct listing *l = arg;
    char *end;

    /* What is not named like a pack of this folder is no pack. */
    if (strlen(name) != PACK_DIGITS || strspn(name, "0123456789abcdef") != PACK_DIGITS)
        return true;
    uint64_t pack = strtoull(name, &end, 16);
    if ((pack & 0xff) != l->folder)
        return true;
    l->ended = !l->fn(l->arg, pack);
    return !l->ended;
}

int pack_list(struct pool *p, bool (*fn)(void *arg, uint64_t pack), void *arg, char *detail)
{
    struct listing l = {.fn = fn, .arg = arg};
    char folder[16];
    int rc = pool_here(p, detail);

    for (; l.folder <= 0xff && !l.ended && rc == 0; l.folder++) {
        snprintf(folder, sizeof folder, "packs/%02x", l.folder);
        rc = p->driver->list(p->ctx, folder, list_one, &l, detail);
    }
    return rc;
}
