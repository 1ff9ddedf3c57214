#include "tools/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/clock.h"

#define BLOCK    (1u << 20)
#define PAGE     4096u
#define CHECK_AT 64 /* random operations between two looks at the clock */

static int path_of(const struct bench_job *job, char *out, const char *format, unsigned n)
{
    char name[64];

    snprintf(name, sizeof(name), format, n);
    if (snprintf(out, PATH_MAX, "%s/%s", job->dir, name) >= PATH_MAX)
        return -ENAMETOOLONG;
    return 0;
}

static int open_large(const struct bench_job *job, int flags)
{
    char path[PATH_MAX];
    int rc = path_of(job, path, "large", 0);

    if (rc != 0)
        return rc;
    int fd = open(path, flags | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

static uint64_t large_blocks(const struct bench_job *job)
{
    uint64_t n = job->size->file_bytes / job->processes / BLOCK;

    return n > 0 ? n : 1;
}

/* xorshift: fast, and the same in every run. */
static uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Bytes that no layer can compress away. */
static void fill(unsigned char *buf, size_t len, uint64_t seed)
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        uint64_t n = random_next(&seed);
        memcpy(buf + i, &n, 8);
    }
}

/* ---- one large file */

static int remove_large(struct bench_job *job)
{
    char path[PATH_MAX];
    int rc = path_of(job, path, "large", 0);

    if (rc == 0 && unlink(path) != 0 && errno != ENOENT)
        rc = -errno;
    return rc;
}

static int write_blocks(int fd, const unsigned char *buf, uint64_t blocks, uint64_t *work)
{
    for (uint64_t i = 0; i < blocks; i++) {
        ssize_t n = write(fd, buf, BLOCK);
        if (n != (ssize_t)BLOCK)
            return n < 0 ? -errno : -ENOSPC;
        *work += BLOCK;
    }
    return 0;
}

static int sequential_write(struct bench_job *job, uint64_t *work)
{
    unsigned char *buf = malloc(BLOCK);
    int fd = open_large(job, O_WRONLY | O_CREAT | O_TRUNC), rc = fd < 0 ? fd : 0;

    if (buf == NULL)
        rc = -ENOMEM;
    if (rc == 0) {
        fill(buf, BLOCK, job->seed);
        rc = write_blocks(fd, buf, large_blocks(job), work);
    }
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = -errno;
    free(buf);
    return rc;
}

/* The kernel's pages of the file go; what lies below (a disk, a node's own page cache) keeps what
 * it has. */
static int drop_pages(struct bench_job *job)
{
    int fd = open_large(job, O_RDONLY), rc = 0;

    if (fd < 0)
        return fd;
    if (fsync(fd) != 0)
        rc = -errno;
    if (rc == 0)
        rc = -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return rc;
}

static int sequential_read(struct bench_job *job, uint64_t *work)
{
    unsigned char *buf = malloc(BLOCK);
    int fd = open_large(job, O_RDONLY), rc = fd < 0 ? fd : 0;
    ssize_t n = 0;

    if (buf == NULL)
        rc = -ENOMEM;
    while (rc == 0 && (n = read(fd, buf, BLOCK)) > 0)
        *work += (uint64_t)n;
    if (n < 0)
        rc = -errno;
    if (rc == 0 && *work < large_blocks(job) * BLOCK)
        rc = -EIO; /* shorter than it was written */
    if (fd >= 0)
        close(fd);
    free(buf);
    return rc;
}

static int warm_pages(struct bench_job *job)
{
    uint64_t work = 0;

    return sequential_read(job, &work);
}

enum random_kind { RANDOM_READ, RANDOM_READ_COLD, RANDOM_WRITE };

static int random_io(struct bench_job *job, enum random_kind kind, uint64_t *work)
{
    bool writing = kind == RANDOM_WRITE;
    int fd = open_large(job, writing ? O_WRONLY : O_RDONLY), rc = 0;
    uint64_t pages = large_blocks(job) * BLOCK / PAGE;
    int64_t end = clock_boot_ms() + job->size->random_ms;
    unsigned char buf[PAGE];

    if (fd < 0)
        return fd;
    fill(buf, sizeof(buf), job->seed);
    if (kind == RANDOM_READ_COLD) /* no read-ahead: it would warm what comes later */
        rc = -posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    while (rc == 0 && (*work % CHECK_AT != 0 || clock_boot_ms() < end)) {
        off_t at = (off_t)(random_next(&job->seed) % pages * PAGE);
        if (kind == RANDOM_READ_COLD)
            rc = -posix_fadvise(fd, at, PAGE, POSIX_FADV_DONTNEED);
        ssize_t n = writing ? pwrite(fd, buf, PAGE, at) : pread(fd, buf, PAGE, at);
        if (n != (ssize_t)PAGE)
            rc = n < 0 ? -errno : -EIO;
        ++*work;
    }
    if (close(fd) != 0 && rc == 0)
        rc = -errno;
    return rc;
}

static int random_read(struct bench_job *job, uint64_t *work)
{
    return random_io(job, RANDOM_READ, work);
}

static int random_read_cold(struct bench_job *job, uint64_t *work)
{
    return random_io(job, RANDOM_READ_COLD, work);
}

static int random_write(struct bench_job *job, uint64_t *work)
{
    return random_io(job, RANDOM_WRITE, work);
}

/* ---- many small files */

static unsigned small_files(const struct bench_job *job)
{
    unsigned n = job->size->files / job->processes;

    return n > 0 ? n : 1;
}

static int remove_small(struct bench_job *job)
{
    char path[PATH_MAX];

    for (unsigned i = 0; i < small_files(job); i++)
        for (int renamed = 0; renamed < 2; renamed++)
            if (path_of(job, path, renamed ? "r%06u" : "f%06u", i) == 0 && unlink(path) != 0 &&
                errno != ENOENT)
                return -errno;
    return 0;
}

static int create_small(struct bench_job *job, uint64_t *work)
{
    unsigned char buf[PAGE];
    char path[PATH_MAX];
    int rc = 0;

    fill(buf, sizeof(buf), job->seed);
    for (unsigned i = 0; rc == 0 && i < small_files(job); i++, ++*work) {
        rc = path_of(job, path, "f%06u", i);
        int fd = rc == 0 ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
        if (fd < 0)
            return rc != 0 ? rc : -errno;
        ssize_t n = write(fd, buf, sizeof(buf));
        if (n != (ssize_t)sizeof(buf))
            rc = n < 0 ? -errno : -ENOSPC;
        if (close(fd) != 0 && rc == 0)
            rc = -errno;
    }
    return rc;
}

static int stat_small(struct bench_job *job, uint64_t *work)
{
    char path[PATH_MAX];
    struct stat st;

    for (unsigned i = 0; i < small_files(job); i++, ++*work) {
        if (path_of(job, path, "f%06u", i) != 0 || stat(path, &st) != 0)
            return -errno;
        if (st.st_size != (off_t)PAGE)
            return -EIO;
    }
    return 0;
}

static int stat_once(struct bench_job *job)
{
    uint64_t work = 0;

    return stat_small(job, &work);
}

static int read_small(struct bench_job *job, uint64_t *work)
{
    unsigned char buf[PAGE];
    char path[PATH_MAX];

    for (unsigned i = 0; i < small_files(job); i++, ++*work) {
        if (path_of(job, path, "f%06u", i) != 0)
            return -ENAMETOOLONG;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        ssize_t n = read(fd, buf, sizeof(buf));
        int error = errno;
        close(fd);
        if (n != (ssize_t)sizeof(buf))
            return n < 0 ? -error : -EIO;
    }
    return 0;
}

static int rename_small(struct bench_job *job, uint64_t *work)
{
    char from[PATH_MAX], to[PATH_MAX];

    for (unsigned i = 0; i < small_files(job); i++, ++*work) {
        if (path_of(job, from, "f%06u", i) != 0 || path_of(job, to, "r%06u", i) != 0)
            return -ENAMETOOLONG;
        if (rename(from, to) != 0)
            return -errno;
    }
    return 0;
}

static int unlink_small(struct bench_job *job, uint64_t *work)
{
    char path[PATH_MAX];

    for (unsigned i = 0; i < small_files(job); i++, ++*work) {
        if (path_of(job, path, "r%06u", i) != 0)
            return -ENAMETOOLONG;
        if (unlink(path) != 0)
            return -errno;
    }
    return 0;
}

/* ---- one large folder: the first process makes it, all list it */

static int make_entries(struct bench_job *job)
{
    char path[PATH_MAX];

    if (job->number != 0)
        return 0;
    if (path_of(job, path, "folder", 0) != 0 || (mkdir(path, 0700) != 0 && errno != EEXIST))
        return -errno;
    for (unsigned i = 0; i < job->size->entries; i++) {
        if (path_of(job, path, "folder/entry-%06u", i) != 0)
            return -ENAMETOOLONG;
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return -errno;
        close(fd);
    }
    return 0;
}

static int list_once(const char *path, const struct bench_job *job)
{
    unsigned seen = 0;
    struct dirent *e;
    DIR *d = opendir(path);

    if (d == NULL)
        return -errno;
    errno = 0;
    while ((e = readdir(d)) != NULL)
        seen += e->d_name[0] != '.';
    int error = errno;
    closedir(d);
    if (error != 0)
        return -error;
    return seen == job->size->entries ? 0 : -EIO;
}

static int list_folder(struct bench_job *job, uint64_t *work)
{
    int64_t end = clock_boot_ms() + job->size->random_ms;
    char path[PATH_MAX];
    int rc = path_of(job, path, "../p0/folder", 0);

    while (rc == 0) {
        rc = list_once(path, job);
        ++*work;
        if (clock_boot_ms() >= end)
            break;
    }
    return rc;
}

/* ---- an archive, unpacked by tar */

#define TREE_FOLDERS 32u
#define TREE_SIZE    (16u << 10) /* of the largest file */

/* A header of the ustar format. */
static void archive_header(char block[512], const char *name, size_t size, bool folder)
{
    unsigned sum = 0;

    memset(block, 0, 512);
    snprintf(block, 100, "%s", name);
    snprintf(block + 100, 8, "%07o", folder ? 0755u : 0644u);
    snprintf(block + 108, 8, "%07o", 0u);
    snprintf(block + 116, 8, "%07o", 0u);
    snprintf(block + 124, 12, "%011zo", size);
    snprintf(block + 136, 12, "%011o", 1000000000u);
    memset(block + 148, ' ', 8);
    block[156] = folder ? '5' : '0';
    memcpy(block + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)block[i];
    snprintf(block + 148, 8, "%06o", sum);
}

static int archive_add(int fd, const char *name, const unsigned char *content, size_t size)
{
    char block[512];
    size_t padded = (size + 511) / 512 * 512;

    archive_header(block, name, size, content == NULL);
    if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) ||
        (padded > 0 && write(fd, content, padded) != (ssize_t)padded))
        return errno != 0 ? -errno : -ENOSPC;
    return 0;
}

static int archive_fill(struct bench_job *job, unsigned char *content)
{
    char name[64];
    int rc = 0;

    fill(content, TREE_SIZE, job->seed);
    for (unsigned i = 0; rc == 0 && i < TREE_FOLDERS; i++) {
        snprintf(name, sizeof(name), "tree/%02u/", i);
        rc = archive_add(job->archive, name, NULL, 0);
    }
    for (unsigned i = 0; rc == 0 && i < small_files(job); i++) {
        snprintf(name, sizeof(name), "tree/%02u/file-%06u", i % TREE_FOLDERS, i);
        rc = archive_add(job->archive, name, content, random_next(&job->seed) % TREE_SIZE);
    }
    if (rc == 0 && write(job->archive, (char[1024]){0}, 1024) != 1024)
        rc = -ENOSPC;
    return rc;
}

static int run_program(const char *program, const char *const *args)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        execvp(program, (char *const *)args);
        _exit(EXIT_FAILURE);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS ? 0 : -EIO;
}

static int make_archive(struct bench_job *job)
{
    unsigned char *content = malloc(TREE_SIZE);
    char path[PATH_MAX];
    int rc = path_of(job, path, "tree", 0);

    if (content == NULL)
        return -ENOMEM;
    if (rc == 0)
        rc = run_program("rm", (const char *const[]){"rm", "-rf", path, NULL});
    job->archive = memfd_create("archive", 0); /* not close-on-exec: tar reads it */
    if (rc == 0)
        rc = job->archive < 0 ? -errno : archive_fill(job, content);
    free(content);
    return rc;
}

static int unpack(struct bench_job *job, uint64_t *work)
{
    char from[32];

    snprintf(from, sizeof(from), "/proc/self/fd/%d", job->archive);
    *work = small_files(job);
    return run_program("tar", (const char *const[]){"tar", "-xf", from, "-C", job->dir, NULL});
}

const struct bench_test bench_tests[] = {
    {"sequential write, 1 MiB blocks", true, remove_large, sequential_write},
    {"sequential read, pages dropped", true, drop_pages, sequential_read},
    {"sequential read, warm", true, warm_pages, sequential_read},
    {"random read 4 KiB, pages dropped", false, drop_pages, random_read_cold},
    {"random read 4 KiB, warm", false, warm_pages, random_read},
    {"random write 4 KiB", false, NULL, random_write},
    {"create + write 4 KiB + close", false, remove_small, create_small},
    {"stat, warm", false, stat_once, stat_small},
    {"open + read 4 KiB + close, warm", false, NULL, read_small},
    {"rename", false, NULL, rename_small},
    {"unlink", false, NULL, unlink_small},
    {"list a folder of 5,000, warm", false, make_entries, list_folder},
    {"untar, files of up to 16 KiB", false, make_archive, unpack},
    {NULL, false, NULL, NULL},
};
