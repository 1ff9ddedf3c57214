/*
 * What the writing and the verifying half of crashwrite share: the log of operations, and the
 * contents of files.
 *
 * Log lines, each written by one write() with O_APPEND, P the process and N its operation's number
 * from 1: b P N create NAME | write NAME OFFSET LENGTH SEED | append NAME OFFSET LENGTH SEED |
 * fsync NAME | rename NAME NEW-NAME | unlink NAME          before the operation d P N when it was
 * acknowledged e P N ERRNO                                       when it failed: it may have
 * happened or not A process touches only its own names ("pP-..."), and none again whose state an
 * error left open.
 */
#ifndef CRASHWRITE_H
#define CRASHWRITE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_BYTES 24
#define LINE_BYTES 160
#define FILE_BYTES (1u << 20) /* no file is larger */
#define PROCS_MAX  64

enum kind { CREATE, WRITE, APPEND, FSYNC, RENAME, UNLINK, KINDS };
static const char *const kind_names[KINDS] = {"create", "write",  "append",
                                              "fsync",  "rename", "unlink"};

enum state { BEGUN, DONE, FAILED };

struct op {
    enum kind kind;
    enum state state;
    char name[NAME_BYTES], to[NAME_BYTES];
    uint32_t offset, length;
    uint64_t seed;
};

static inline uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* What an operation with that seed writes at that place of a file. */
static inline uint8_t byte_at(uint64_t seed, uint32_t offset)
{
    return (uint8_t)(mix(seed ^ (offset / 8)) >> (8 * (offset % 8)));
}

static inline void fill(uint8_t *to, uint64_t seed, uint32_t offset, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        to[i] = byte_at(seed, offset + i);
}

#endif
