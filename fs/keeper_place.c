#include "fs/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/wire/clock.h"
#include "control/wire/daemon.h"
#include "control/wire/log.h"

/* mountinfo writes space, tab, newline and backslash as \ooo. */
static void unescape(char *s)
{
    char *to = s;

    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
}

struct mounted {
    unsigned major, minor;
    bool fuse;
};

/* What is on top at path. -ENOENT: nothing. */
static int find_mount(const char *path, struct mounted *out)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;
    int rc = -ENOENT;

    if (!f)
        return -errno;
    while (getline(&line, &size, f) > 0) {
        struct mounted m = {0};
        char where[PATH_MAX];
        const char *type = strstr(line, " - ");
        if (!type || sscanf(line, "%*d %*d %u:%u %*s %4095s", &m.major, &m.minor, where) != 3)
            continue;
        unescape(where);
        if (strcmp(where, path) != 0)
            continue;
        m.fuse = strncmp(type + 3, "fuse", 4) == 0;
        *out = m;
        rc = 0; /* the last one is on top */
    }
    free(line);
    fclose(f);
    return rc;
}

int place_check(const char *path, struct mount_place *place, char detail[256])
{
    struct mounted m;
    struct stat st;

    if (!realpath(path, place->path)) {
        int rc = -errno;
        if (rc == -ENOTCONN)
            snprintf(detail, 256, "%.120s is a mount whose process is gone: run umount -l %.80s",
                     path, path);
        else
            snprintf(detail, 256, "mountpoint %.150s: %s%s", path, strerror(-rc),
                     rc == -ENOENT ? " (create the directory first)" : "");
        return rc;
    }
    if (find_mount(place->path, &m) == 0 && m.fuse) {
        snprintf(detail, 256, "%.120s already is a FUSE mount: unmount it first (umount %.80s)",
                 path, path);
        return -EBUSY;
    }
    if (stat(place->path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        snprintf(detail, 256, "mountpoint %.180s is not a directory: name one", path);
        return -ENOTDIR;
    }
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        int rc = -errno;
        snprintf(detail, 256, "/dev/fuse: %s: %s", strerror(-rc),
                 rc == -ENOENT || rc == -ENODEV || rc == -ENXIO
                     ? "load the kernel's FUSE module (modprobe fuse)"
                     : "mount as root");
        return rc;
    }
    close(fd);
    return 0;
}

int place_find(struct mount_place *place)
{
    struct mounted m;
    int rc = find_mount(place->path, &m);

    if (rc == 0) {
        place->major = m.major;
        place->minor = m.minor;
    }
    return rc;
}

bool place_is_ours(const struct mount_place *place)
{
    struct mounted m;

    return find_mount(place->path, &m) == 0 && m.fuse && m.major == place->major &&
           m.minor == place->minor;
}

/* In a child, as both calls wait for the worker and may hang with it. Exit status 0: unmounted. */
static void unmount_child(const struct mount_place *place)
{
    int fd = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        syncfs(fd); /* dirty pages of mappings; a lazy unmount alone would leave them to the end */
        close(fd);
    }
    _exit(umount2(place->path, UMOUNT_NOFOLLOW) == 0 ? 0 : 1);
}

static bool wait_child(pid_t child, int64_t deadline_ms, int *status)
{
    int64_t until = clock_boot_ms() + deadline_ms;
    struct timespec pause = {.tv_nsec = 5000000};

    while (waitpid(child, status, WNOHANG) == 0) {
        if (clock_boot_ms() >= until)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0)
        return -errno;
    if (write(fd, text, strlen(text)) < 0)
        rc = -errno;
    close(fd);
    return rc;
}

int place_unmount(const struct mount_place *place, int64_t deadline_ms)
{
    int status = 0;

    if (!place_is_ours(place))
        return 0;
    pid_t child = fork();
    if (child < 0)
        return -errno;
    if (child == 0) {
        daemon_child();
        unmount_child(place);
    }
    if (!wait_child(child, deadline_ms, &status)) {
        kill(child, SIGKILL); /* it dies when the connection is aborted; init reaps it after us */
        return -EBUSY;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

int place_take_down(const struct mount_place *place)
{
    char path[64];

    if (!place_is_ours(place))
        return 0;
    /* Before it leaves the tree: then the number may belong to another mount. Without this file
     * (fusectl not mounted) the connection ends with the last descriptor. */
    snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", place->minor);
    int rc = write_text(path, "1");
    if (rc < 0 && rc != -ENOENT)
        log_warning("%s: %s", path, strerror(-rc));
    return umount2(place->path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

void place_read_ahead(const struct mount_place *place)
{
    char path[64], text[16];

    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", place->major, place->minor);
    snprintf(text, sizeof(text), "%d", READ_AHEAD_KB);
    int rc = write_text(path, text);
    if (rc < 0)
        log_info("read-ahead stays at the kernel's default: %s: %s", path, strerror(-rc));
}
