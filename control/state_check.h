/* Private to state_check*.c: what a check gathers on its way through the rows. */
#ifndef UMBEL_CONTROL_STATE_CHECK_H
#define UMBEL_CONTROL_STATE_CHECK_H

#include "control/state_private.h"

/* One inode: what its row says, and what others say of it. */
struct seen_inode {
    uint64_t ino, parent, mapped, xattr_bytes;
    uint64_t next_cookie, entries;
    uint32_t type, nlink, home, names_bytes;
    uint32_t links, subdirs; /* counted */
    uint8_t flags, acls;
    bool orphan, target, known_entry;
    uint64_t map_end; /* of the last extent seen */
    uint64_t size, found_entries, found_mapped, found_xattr_bytes;
    uint32_t found_names;
};

struct seen_record {
    uint64_t id, pack;
    uint32_t length, refs, found_refs, number;
};

struct seen_pack {
    uint64_t id, live_bytes, live_records, size;
    uint32_t state;
    uint64_t found_bytes, found_records;
};

struct list {
    void *rows; /* in the order of their first member, a uint64_t */
    size_t n, size, row;
};

struct check {
    struct state *s;
    state_report_fn fn;
    void *arg;
    int64_t problems;
    struct list inodes, records, packs;
    uint64_t moved, found_moved; /* records that lie in another pack than their first */
    struct state_totals totals;  /* counted */
};

typedef int (*st_check_row_fn)(struct check *c, const MDB_val *key, const MDB_val *val);

/* The count is of all, however many are reported. */
void st_check_problem(struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* All rows of a database in order. */
int st_check_each(struct check *c, enum db db, st_check_row_fn fn);
void *st_check_add(struct check *c, struct list *l,
                   uint64_t id); /* zeroed; ids grow; NULL: no memory */
void *st_check_find(const struct list *l, uint64_t id);
struct seen_inode *st_check_inode(struct check *c, uint64_t ino);

int st_check_names(
    struct check *c); /* state_check_names.c: inodes, entries, xattrs, symlinks, orphans */
int st_check_data(struct check *c); /* state_check_data.c: extents, records, packs, copies */
int st_check_rest(struct check *c); /* state_check_data.c: nodes, sessions, results, settings */

#endif
