/* cp -r through an NFS client that is mounted once: libnfs' file calls one after the other, for
 * each file LOOKUP, CREATE, WRITE and COMMIT, as a kernel's client does for cp
 * (tests/bench/roads.sh).
 *
 *   nfs_tree FOLDER URL NAME      the export at URL gets a folder of that name
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <nfsc/libnfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1 << 20)

/* nftw() passes nothing on. */
static struct nfs_context *nfs;
static const char *folder, *name;
static char bytes[FILE_MAX];

static int failed(const char *what, const char *path)
{
    fprintf(stderr, "nfs_tree: %s %s: %s\n", what, path, nfs_get_error(nfs));
    return 1;
}

static int copy_file(const char *path, const char *to, const struct stat *st)
{
    struct nfsfh *out;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
    ssize_t n = fd >= 0 && st->st_size <= FILE_MAX ? read(fd, bytes, (size_t)st->st_size) : -1;

    if (fd >= 0)
        close(fd);
    if (n != st->st_size) {
        fprintf(stderr, "nfs_tree: cannot read %s\n", path);
        return 1;
    }
    if (nfs_creat(nfs, to, 0600, &out) != 0)
        return failed("creat", to);
    rc = nfs_pwrite(nfs, out, 0, (uint64_t)n, bytes) == n ? 0 : failed("write", to);
    if (nfs_close(nfs, out) != 0 && rc == 0)
        rc = failed("close", to);
    return rc;
}

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char to[PATH_MAX];

    (void)ftw;
    snprintf(to, sizeof to, "/%s%s", name, path + strlen(folder));
    if (type == FTW_D)
        return nfs_mkdir(nfs, to) == 0 ? 0 : failed("mkdir", to);
    return type == FTW_F ? copy_file(path, to, st) : 0;
}

int main(int argc, char **argv)
{
    struct nfs_url *url;

    nfs = nfs_init_context();
    if (argc != 4 || nfs == NULL || (url = nfs_parse_url_dir(nfs, argv[2])) == NULL) {
        fprintf(stderr, "usage: nfs_tree FOLDER URL NAME\n");
        return 2;
    }
    if (nfs_mount(nfs, url->server, url->path) != 0)
        return failed("mount", argv[2]);
    folder = argv[1];
    name = argv[3];
    int rc = nftw(folder, visit, 16, FTW_PHYS);
    nfs_destroy_url(url);
    nfs_destroy_context(nfs);
    return rc != 0;
}
