/*
 * The control files of a mounted cloud: `umbel`'s admin commands are sugar over them.
 */
#ifndef UMBEL_TOOLS_CTL_H
#define UMBEL_TOOLS_CTL_H

#include <argp.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --root and --mount, for argp_child; input is a struct ctl_options. */
struct ctl_options {
    const char *root, *mount;
};
extern const struct argp ctl_argp;

struct ctl {
    char mount[PATH_MAX]; /* mountpoint through which the control files are reached */
};

/* Finds the cloud: --root (through one of its mounts), --mount, else the mount that holds `path`
 * (may be NULL), $UMBEL_MOUNT, or the mount that holds the working directory. 0, or -errno after a
 * line on standard error. */
int ctl_find(struct ctl *c, const struct ctl_options *o, const char *path);

/* The text of .umbel/FILE. -errno; nothing is said. */
int ctl_read(const struct ctl *c, const char *file, char **text);

/* One command. On an error, what the cloud says of it is told on standard error. */
int ctl_write(const struct ctl *c, const char *file, const char *command);

/* As ctl_write, with a progress line that shows how much is staged meanwhile. */
int ctl_write_slow(const struct ctl *c, const char *file, const char *command, const char *what);
/* The same with a progress line of its own: show calls progress_tick. */
struct progress;
typedef void (*ctl_show_fn)(const struct ctl *c, struct progress *p);
int ctl_write_watched(const struct ctl *c, const char *file, const char *command, const char *what,
                      ctl_show_fn show);
/* "KEY N" in a control file; 0 if it is not there. */
uint64_t ctl_number(const struct ctl *c, const char *file, const char *key);

/* "cannot read .umbel/FILE of MOUNT: ..." on standard error. */
void ctl_tell(const struct ctl *c, const char *file, int error);

/* The machine's own "/", which is in no cloud, so commands take it for the cloud's whole tree. */
bool ctl_is_top(const char *path);

/* path (which must exist) as the cloud names it: "/a/b", "/" for the mountpoint itself and for the
 * machine's "/"; in out[PATH_MAX]. */
int ctl_inside(const struct ctl *c, const char *path, char *out);

/* fn for every name in .umbel/FOLDER, sorted, until it returns not 0. Tells what it cannot read. */
int ctl_each(const struct ctl *c, const char *folder,
             int (*fn)(const struct ctl *c, const char *name, void *arg), void *arg);

/* The nearest name in .umbel/FOLDER to word, malloc'd; NULL: none. */
char *ctl_nearest(const struct ctl *c, const char *folder, const char *word);

#endif
