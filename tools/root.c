#include "tools/root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "control/wire/authority.h"
#include "nodecache/pool/pool.h"
#include "tools/keyring.h"
#include "tools/text.h"

#define CONF_NEW_NAME "umbel.conf.new" /* there until the cloud is whole */
/* A cloud begins with a reserve under its log; with less it could not take a single write. */
#define CREATE_SPACE_MIN (256ull << 20)
/* A node gets half of the free space (all nodes together), but not more than this unasked. */
#define CAPACITY_DEFAULT_MAX (64ull << 30)

static int fail(struct root *r, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(struct root *r, int error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(r->detail, sizeof(r->detail), format, args);
    va_end(args);
    return error;
}

int root_path(const struct root *r, const char *relative, char *out)
{
    return snprintf(out, PATH_MAX, "%s/%s", r->path, relative) >= PATH_MAX ? -ENAMETOOLONG : 0;
}

int root_socket(const struct root *r, const char *name, char *out)
{
    if (snprintf(out, PATH_MAX, "unix:%s/run/%s.sock", r->path, name) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

int root_listen(const struct root *r, unsigned port_offset, char *out)
{
    struct address_tcp a;
    char whole[sizeof(r->conf.listen) + 8];

    if (r->conf.listen[0] == '\0')
        return -ENOENT;
    snprintf(whole, sizeof(whole), "tcp:%s", r->conf.listen);
    if (address_parse_tcp(whole, &a) < 0)
        return -EINVAL;
    long port = strtol(a.port, NULL, 10) + (long)port_offset;
    if (port > 65535)
        return -ERANGE;
    return snprintf(out, PATH_MAX, a.v6 ? "tcp:[%s]:%ld" : "tcp:%s:%ld", a.host, port) < PATH_MAX
               ? 0
               : -ENAMETOOLONG;
}

/* The longest socket name under a root must fit into an address. */
static int check_length(struct root *r)
{
    size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("/run/control-1.sock");

    if (strlen(r->path) > most)
        return fail(r, -ENAMETOOLONG,
                    "the path of the root has %zu characters; sockets leave room for %zu",
                    strlen(r->path), most);
    return 0;
}

static int take_lock(struct root *r)
{
    r->lock = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->lock < 0)
        return fail(r, -errno, "cannot open %.300s: %s", r->path, strerror(errno));
    if (flock(r->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    int error = errno;
    root_close(r);
    if (error == EWOULDBLOCK)
        return fail(
            r, -EBUSY,
            "another umbel command is starting or stopping the cloud in %.300s; wait for it",
            r->path);
    return fail(r, -error, "cannot lock %.300s: %s", r->path, strerror(error));
}

void root_close(struct root *r)
{
    if (r->lock >= 0)
        close(r->lock);
    r->lock = -1;
}

static int resolve(struct root *r, const char *dir)
{
    struct stat st;

    r->lock = -1;
    r->created = false;
    r->detail[0] = '\0';
    if (realpath(dir, r->path) == NULL || stat(r->path, &st) != 0)
        return fail(r, -errno, "%.300s: %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return fail(r, -ENOTDIR, "%.300s is not a folder", dir);
    return check_length(r);
}

static int read_conf(struct root *r)
{
    char path[PATH_MAX];

    if (root_path(r, ROOT_CONF_NAME, path) != 0)
        return fail(r, -ENAMETOOLONG, "the path of the root is too long");
    int rc = conf_read(path, &r->conf, r->detail);
    if (rc == -ENOENT)
        fail(r, rc, "%.300s is not the root of a cloud (there is no " ROOT_CONF_NAME " in it)",
             r->path);
    return rc;
}

int root_open(struct root *r, const char *dir, bool lock)
{
    int rc = resolve(r, dir);

    if (rc == 0)
        rc = read_conf(r);
    if (rc == 0 && lock)
        rc = take_lock(r);
    return rc;
}

/* Whether nothing lies in the folder but what an interrupted first `up` left, or a filesystem is
 * born with. */
static int check_empty(struct root *r)
{
    struct dirent *e;
    DIR *d = opendir(r->path);

    if (d == NULL)
        return fail(r, -errno, "cannot read %.300s: %s", r->path, strerror(errno));
    char found[NAME_MAX + 1] = "";
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            strcmp(e->d_name, "lost+found") == 0 || strcmp(e->d_name, CONF_NEW_NAME "~") == 0)
            continue;
        snprintf(found, sizeof(found), "%s", e->d_name);
    }
    closedir(d);
    if (found[0] == '\0')
        return 0;
    return fail(r, -ENOTEMPTY,
                "%.200s is not the root of a cloud (it holds '%.60s' and no " ROOT_CONF_NAME
                "); give an empty folder to make a new cloud",
                r->path, found);
}

static int make_folder(struct root *r, const char *name)
{
    char path[PATH_MAX];

    if (root_path(r, name, path) != 0)
        return fail(r, -ENAMETOOLONG, "the path of the root is too long");
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return fail(r, -errno, "cannot make %.300s: %s", path, strerror(errno));
    return 0;
}

static int make_folders(struct root *r)
{
    static const char *const names[] = {"identity", "log", "run", "control-1"};
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < sizeof(names) / sizeof(names[0]); i++)
        rc = make_folder(r, names[i]);
    for (uint64_t i = 1; rc == 0 && i <= r->conf.nodes; i++) {
        char name[ROOT_NAME_MAX];
        snprintf(name, sizeof(name), "node-%ju", (uintmax_t)i);
        rc = make_folder(r, name);
    }
    return rc;
}

/* "dir:relative" becomes absolute: daemons run elsewhere. */
static int set_pool(struct root *r, const char *url)
{
    char folder[PATH_MAX], whole[PATH_MAX];
    const char *path = url + 4, *slash;

    if (url[0] == '\0' || strpbrk(url, "\n#") != NULL || strlen(url) >= sizeof(r->conf.pool))
        return fail(r, -EINVAL, "'%.200s' is not a pool URL (dir:/path nfs://host/export/path)",
                    url);
    if (strncmp(url, "dir:", 4) != 0 || path[0] == '/') {
        snprintf(r->conf.pool, sizeof(r->conf.pool), "%s", url);
        return 0;
    }
    slash = strrchr(path, '/');
    snprintf(folder, sizeof(folder), "%.*s", slash == NULL ? 1 : (int)(slash - path),
             slash == NULL ? "." : path);
    if (realpath(folder, whole) == NULL)
        return fail(r, -errno, "pool folder %.200s: %s", folder, strerror(errno));
    const char *last = slash != NULL ? slash + 1 : path;
    if (snprintf(r->conf.pool, sizeof(r->conf.pool), "dir:%s/%s", whole, last) >=
        (int)sizeof(r->conf.pool))
        return fail(r, -ENAMETOOLONG, "the path of the pool is too long");
    return 0;
}

/* "HOST:PORT", with room behind it for the nodes. */
static int set_listen(struct root *r, const char *listen)
{
    char whole[sizeof(r->conf.listen) + 8];
    struct address_tcp a;

    snprintf(whole, sizeof(whole), "tcp:%s", listen);
    if (strlen(listen) >= sizeof(r->conf.listen) || address_parse_tcp(whole, &a) < 0 || a.peer[0] ||
        strcmp(a.port, "0") == 0 || atoi(a.port) + CONF_NODES_MAX > 65535)
        return fail(r, -EINVAL,
                    "--listen: '%.100s' is not HOST:PORT (the nodes have the %d ports behind it)",
                    listen, CONF_NODES_MAX);
    snprintf(r->conf.listen, sizeof(r->conf.listen), "%s", listen);
    return 0;
}

static int first_conf(struct root *r, const struct root_wish *wish)
{
    struct statvfs fs;

    if (statvfs(r->path, &fs) != 0)
        return fail(r, -errno, "%.300s: %s", r->path, strerror(errno));
    uint64_t available = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (available < CREATE_SPACE_MIN) {
        char have[24], need[24];
        return fail(r, -ENOSPC, "no space for a cloud in %.200s: %s free, it needs %s", r->path,
                    text_size(available, have), text_size(CREATE_SPACE_MIN, need));
    }
    r->conf.format = CONF_FORMAT;
    r->conf.controls = 1;
    r->conf.seal = wish->seal == NULL || strcmp(wish->seal, "off") != 0;
    r->conf.nodes = wish->nodes != 0 ? wish->nodes : 1;
    r->conf.capacity = wish->capacity;
    if (wish->capacity == 0) {
        uint64_t share = available / 2 / r->conf.nodes;
        r->conf.capacity = share > CAPACITY_DEFAULT_MAX ? CAPACITY_DEFAULT_MAX : share;
        if (r->conf.capacity < CONF_CAPACITY_MIN)
            r->conf.capacity = CONF_CAPACITY_MIN;
    }
    int rc = wish->listen != NULL ? set_listen(r, wish->listen) : 0;
    if (rc != 0)
        return rc;
    char pool[PATH_MAX + 16];
    snprintf(pool, sizeof(pool), "dir:%s/pool", r->path);
    return set_pool(r, wish->pool != NULL ? wish->pool : pool);
}

static int make_identity(struct root *r, struct authority *a, enum identity_role role,
                         const char *name, char *detail)
{
    struct identity_name who = {.role = role};
    char relative[ROOT_NAME_MAX + 40], dir[PATH_MAX], cert[PATH_MAX];

    snprintf(who.name, sizeof(who.name), "%s", name);
    snprintf(relative, sizeof(relative), "identity/%s", name);
    if (root_path(r, relative, dir) != 0)
        return -ENAMETOOLONG;
    snprintf(relative, sizeof(relative), "identity/%s/" IDENTITY_CERT, name);
    if (root_path(r, relative, cert) != 0)
        return -ENAMETOOLONG;
    return access(cert, F_OK) == 0 ? 0 : authority_issue(a, dir, &who, NULL, detail);
}

/* The cloud's authority, and certificates for all that runs on this machine. */
static int make_identities(struct root *r)
{
    char dir[PATH_MAX], name[ROOT_NAME_MAX], detail[IDENTITY_DETAIL] = "";
    struct authority *a = NULL;
    int rc = root_path(r, "identity", dir);

    if (rc == 0)
        rc = authority_create(dir, r->conf.cloud, detail);
    if (rc == 0)
        rc = authority_open(dir, r->conf.cloud, &a, detail);
    if (rc == 0)
        rc = make_identity(r, a, IDENTITY_CONTROL, "control-1", detail);
    if (rc == 0)
        rc = make_identity(r, a, IDENTITY_MOUNT, ROOT_MOUNT_IDENTITY, detail);
    for (uint64_t i = 1; rc == 0 && i <= r->conf.nodes; i++) {
        snprintf(name, sizeof(name), "node-%ju", (uintmax_t)i);
        rc = make_identity(r, a, IDENTITY_NODE, name, detail);
    }
    authority_close(a);
    return rc == 0 ? 0 : fail(r, rc, "%s", detail[0] ? detail : strerror(-rc));
}

bool root_is_on_demand(const char *name)
{
    size_t n = strlen(ROOT_DEMAND_PREFIX);

    return strncmp(name, ROOT_DEMAND_PREFIX, n) == 0 && name[n] != '\0' &&
           strspn(name + n, "0123456789") == strlen(name + n) && strlen(name) < ROOT_NAME_MAX;
}

/* Nobody listens there now. */
static bool port_is_free(const char *address)
{
    struct listener l;

    if (address_listen(address, &l) < 0)
        return false;
    address_close(address, &l);
    return true;
}

int root_demand_listen(struct root *r, const char *name, char *out, bool *wanted)
{
    char dir[PATH_MAX], detail[IDENTITY_DETAIL] = "";
    struct authority *a = NULL;

    *wanted = r->conf.listen[0] != '\0';
    if (!*wanted)
        return 0;
    int rc = root_path(r, "identity", dir);
    if (rc == 0)
        rc = authority_open(dir, r->conf.cloud, &a, detail);
    if (rc == 0)
        rc = make_identity(r, a, IDENTITY_NODE, name, detail);
    authority_close(a);
    if (rc != 0)
        return fail(r, rc, "%s", detail[0] ? detail : strerror(-rc));
    for (unsigned k = (unsigned)r->conf.nodes + 1; k <= CONF_NODES_MAX; k++)
        if (root_listen(r, k, out) == 0 && port_is_free(out))
            return 0;
    return fail(r, -EADDRINUSE, "no port is free for %s behind %.200s", name, r->conf.listen);
}

static int make_pool(struct root *r)
{
    struct pool *p = NULL;
    char detail[POOL_DETAIL] = "";
    int rc = pool_open(r->conf.pool, r->conf.cloud, true, &p, detail);

    if (rc != 0)
        return fail(r, rc, "cannot use the pool %.200s: %s", r->conf.pool,
                    detail[0] != '\0' ? detail : strerror(-rc));
    pool_close(p);
    return 0;
}

/* The keys that the cloud begins with. */
static int begin_keys(struct root *r, const struct root_wish *wish, struct keyring *ring)
{
    char path[PATH_MAX];
    int rc = 0;

    if (root_path(r, KEYRING_NAME, path) != 0)
        return fail(r, -ENAMETOOLONG, "the path of the root is too long");
    if (access(path, F_OK) == 0) /* an interrupted creation */
        rc = keyring_read(ring, path, r->detail);
    else if (wish->keys != NULL)
        *ring = *wish->keys;
    else
        rc = keyring_add(ring, r->detail);
    snprintf(ring->path, sizeof(ring->path), "%s", path);
    snprintf(ring->cloud, sizeof(ring->cloud), "%s", r->conf.cloud);
    return rc;
}

static int store_wrapped(struct root *r, struct keyring *ring)
{
    uint8_t wrapped[RECOVERY_WRAP_MAX];
    char detail[POOL_DETAIL] = "";
    struct pool *p = NULL;
    size_t len;
    int rc = keyring_wrap(ring, wrapped, &len);

    if (rc == 0)
        rc = pool_open(r->conf.pool, r->conf.cloud, false, &p, detail);
    if (rc == 0)
        rc = pool_keys_put(p, ring->serial, wrapped, len, detail);
    pool_close(p);
    if (rc != 0)
        return fail(r, rc, "cannot put the wrapped keys into the pool: %s",
                    detail[0] != '\0' ? detail : strerror(-rc));
    keyring_stored(ring, ring->serial);
    return keyring_write(ring, r->detail);
}

/* An interrupted creation gets a recovery key anew: nobody may have seen the one before. */
static int make_recovery(struct root *r, const struct root_wish *wish, struct keyring *ring)
{
    struct recovery_lock lock = {{0}, {0}};
    struct recovery_key key;
    char text[RECOVERY_TEXT] = "";
    int rc = recovery_new(&key);

    if (rc == 0)
        rc = recovery_lock_of(&key, &lock);
    if (rc == 0)
        rc = recovery_text(&key, text);
    if (rc != 0)
        fail(r, rc, "a recovery key cannot be made: %s", strerror(-rc));
    else
        keyring_lock(ring, &lock);
    if (rc == 0)
        rc = keyring_write(ring, r->detail);
    if (rc == 0)
        rc = store_wrapped(r, ring);
    if (rc == 0 && (rc = wish->show_recovery(text)) != 0)
        fail(r, rc, "the recovery key cannot be shown: %s", strerror(-rc));
    recovery_wipe(&key);
    recovery_lock_wipe(&lock);
    explicit_bzero(text, sizeof(text));
    return rc;
}

static int make_keys(struct root *r, const struct root_wish *wish)
{
    struct keyring ring = {.count = 0};
    int rc = begin_keys(r, wish, &ring);

    if (rc == 0)
        rc = wish->keys == NULL ? make_recovery(r, wish, &ring) : keyring_write(&ring, r->detail);
    keyring_wipe(&ring);
    return rc;
}

/* umbel.conf comes last: a cloud that has one is whole. An interrupted creation goes on with its
 * id. */
static int make_cloud(struct root *r, const struct root_wish *wish)
{
    char path[PATH_MAX], fresh[PATH_MAX];
    struct conf begun;
    int rc;

    if (root_path(r, ROOT_CONF_NAME, path) != 0 || root_path(r, CONF_NEW_NAME, fresh) != 0)
        return fail(r, -ENAMETOOLONG, "the path of the root is too long");
    rc = conf_read(fresh, &begun, r->detail);
    bool resumed = rc == 0;
    if (resumed)
        memcpy(r->conf.cloud, begun.cloud, sizeof(begun.cloud));
    else if (rc == -ENOENT)
        rc = check_empty(r);
    if (rc == 0 && r->conf.cloud[0] == '\0' && conf_new_cloud(r->conf.cloud) != 0)
        rc = fail(r, -EIO, "the system gives no random numbers");
    if (rc == 0)
        rc = first_conf(r, wish);
    if (rc == 0 && chmod(r->path, 0700) != 0)
        rc = fail(r, -errno, "cannot protect %.300s: %s", r->path, strerror(errno));
    if (rc == 0)
        rc = conf_write(fresh, &r->conf, r->detail);
    if (rc == 0) {
        rc = make_pool(r);
        if (rc != 0 && !resumed)
            unlink(fresh); /* nothing else is there yet: another URL may do */
    }
    if (rc == 0)
        rc = make_folders(r);
    if (rc == 0)
        rc = make_identities(r);
    if (rc == 0 && r->conf.seal)
        rc = make_keys(r, wish);
    if (rc == 0)
        rc = conf_write(path, &r->conf, r->detail);
    if (rc == 0 && unlink(fresh) != 0)
        rc = fail(r, -errno, "cannot remove %.300s: %s", fresh, strerror(errno));
    r->created = rc == 0;
    return rc;
}

/* A node has a store only after the control process has had a log. Begun anew, that would know
 * nothing of what is in the nodes and in the pool. */
static int check_log(struct root *r)
{
    char log[PATH_MAX], mark[PATH_MAX], name[ROOT_NAME_MAX + 8];

    if (root_path(r, "control-1/log", log) != 0)
        return fail(r, -ENAMETOOLONG, "the path of the root is too long");
    if (access(log, F_OK) == 0)
        return 0;
    for (uint64_t i = 1; i <= r->conf.nodes; i++) {
        snprintf(name, sizeof(name), "node-%ju/mark", (uintmax_t)i);
        if (root_path(r, name, mark) == 0 && access(mark, F_OK) == 0)
            return fail(r, -ENOENT,
                        "control-1: its log is missing (%.200s), but node-%ju holds data of this "
                        "cloud; put the folder back",
                        log, (uintmax_t)i);
    }
    return 0;
}

/* Options of a later `up`: what can change is changed, what cannot is refused. */
static int change_conf(struct root *r, const struct root_wish *wish)
{
    struct conf before = r->conf;
    char path[PATH_MAX];
    int rc = check_log(r);

    if (rc == 0 && wish->pool != NULL) {
        rc = set_pool(r, wish->pool);
        if (rc == 0 && strcmp(before.pool, r->conf.pool) != 0)
            rc = fail(r, -EEXIST, "this cloud's pool is %.200s; it cannot become %.200s",
                      before.pool, wish->pool);
    }
    if (rc == 0 && wish->seal != NULL && (strcmp(wish->seal, "on") == 0) != before.seal)
        rc = fail(r, -EEXIST, "this cloud's packs are %s; that cannot change",
                  before.seal ? "sealed" : "not sealed");
    if (rc == 0 && wish->nodes != 0 && wish->nodes < before.nodes)
        rc =
            fail(r, -EBUSY, "this cloud has %ju nodes, which may hold data: --nodes %ju is refused",
                 (uintmax_t)before.nodes, (uintmax_t)wish->nodes);
    if (rc == 0 && wish->nodes != 0)
        r->conf.nodes = wish->nodes;
    if (rc == 0 && wish->capacity != 0)
        r->conf.capacity = wish->capacity;
    if (rc == 0 && wish->listen != NULL)
        rc = set_listen(r, wish->listen);
    if (rc == 0)
        rc = make_folders(r);
    if (rc == 0)
        rc = make_identities(r);
    if (rc != 0 || (before.nodes == r->conf.nodes && before.capacity == r->conf.capacity &&
                    strcmp(before.listen, r->conf.listen) == 0))
        return rc;
    if (root_path(r, ROOT_CONF_NAME, path) != 0)
        return fail(r, -ENAMETOOLONG, "the path of the root is too long");
    rc = conf_write(path, &r->conf, r->detail);
    r->resized = rc == 0 && before.capacity != r->conf.capacity;
    return rc;
}

int root_create(struct root *r, const char *dir, const struct root_wish *wish)
{
    char path[PATH_MAX];
    bool made = false;
    int rc;

    r->resized = false;
    if (mkdir(dir, 0700) == 0)
        made = true;
    else if (errno != EEXIST)
        return r->lock = -1, fail(r, -errno, "cannot make %.300s: %s", dir, strerror(errno));
    rc = resolve(r, dir);
    if (rc == 0)
        rc = take_lock(r);
    if (rc == 0)
        rc = root_path(r, ROOT_CONF_NAME, path);
    if (rc == 0 && access(path, F_OK) == 0) {
        rc = read_conf(r);
        if (rc == 0)
            rc = change_conf(r, wish);
    } else if (rc == 0) {
        memset(&r->conf, 0, sizeof(r->conf));
        rc = make_cloud(r, wish);
    }
    if (rc != 0 && made)
        rmdir(dir); /* only if nothing came into it */
    if (rc != 0)
        root_close(r);
    return rc;
}
