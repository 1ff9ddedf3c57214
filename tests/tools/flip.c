/*
 * A disk that forgets: flips random bits in the files below a folder.
 *   flip FOLDER COUNT SEED
 * Files are chosen by their size; holes are left alone. Prints a line for each: path, offset.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct victim {
    char *path;
    uint64_t size;
};

static struct victims {
    struct victim *all;
    size_t count, room;
    uint64_t bytes;
} found; /* nftw takes no argument for its function */

static int add(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)ftw;
    if (flag != FTW_F || st->st_size == 0)
        return 0;
    if (found.count == found.room) {
        found.room = found.room ? found.room * 2 : 64;
        found.all = realloc(found.all, found.room * sizeof(*found.all));
        if (!found.all)
            return -1;
    }
    found.all[found.count++] = (struct victim){.path = strdup(path), .size = (uint64_t)st->st_size};
    found.bytes += (uint64_t)st->st_size;
    return 0;
}

/* 1: flipped; 0: a hole. */
static int flip(const char *path, uint64_t offset, int bit)
{
    uint8_t byte;
    int rc = -errno;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (lseek(fd, (off_t)offset, SEEK_DATA) != (off_t)offset) {
        rc = 0;
    } else if (pread(fd, &byte, 1, (off_t)offset) != 1) {
        rc = -EIO;
    } else {
        byte = (uint8_t)(byte ^ 1u << bit);
        rc = pwrite(fd, &byte, 1, (off_t)offset) == 1 ? 1 : -EIO;
    }
    close(fd);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("usage: flip FOLDER COUNT SEED\n", stderr);
        return 2;
    }
    unsigned long count = strtoul(argv[2], NULL, 10);
    srand48(strtol(argv[3], NULL, 10));
    if (nftw(argv[1], add, 16, FTW_PHYS) != 0 || found.bytes == 0) {
        fprintf(stderr, "flip: %s: no files with data\n", argv[1]);
        return 1;
    }
    for (unsigned long done = 0, tries = 0; done < count; tries++) {
        uint64_t at = (uint64_t)(drand48() * (double)found.bytes);
        size_t n = 0;
        while (n + 1 < found.count && at >= found.all[n].size)
            at -= found.all[n++].size;
        int rc = flip(found.all[n].path, at, (int)(drand48() * 8));
        if (rc < 0 || tries > 100 * count) {
            fprintf(stderr, "flip: %s: %s\n", found.all[n].path, rc < 0 ? strerror(-rc) : "holes");
            return 1;
        }
        if (rc > 0) {
            printf("%s %lu\n", found.all[n].path, (unsigned long)at);
            done++;
        }
    }
    return 0;
}
