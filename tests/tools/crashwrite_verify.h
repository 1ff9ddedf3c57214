/*
 * The verifying half of crashwrite: reads the log, and looks whether the folder holds what it must
 * and nothing that it cannot hold.
 *
 * Each file has a boundary: the number of the operation up to which everything must be there. That
 * is the process's last acknowledged operation, or with --synced-only the file's last acknowledged
 * fsync. What comes after may be there or not, wholly or in part; but a file of such an operation
 * is bytes that were written, never others.
 *
 * With --synced-only the names are looked at as a whole, too: those of a process must be as they
 * were after one of its operations, each leading to the file that it led to then. With
 * --names-acked that is its last acknowledged one, or one that was begun behind it; otherwise it is
 * not before its last fsync.
 */
#ifndef CRASHWRITE_VERIFY_H
#define CRASHWRITE_VERIFY_H

#include "crashwrite.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMPLAINTS_MAX 20 /* printed; all are counted */

struct named {
    uint64_t n;
    char name[NAME_BYTES];
};

struct file {
    uint64_t created, ended; /* ended 0: never */
    bool created_done;
    uint64_t synced; /* the last fsync */
    uint64_t limit;  /* an error left open what is after it */
    bool found;
    struct named *names;
    size_t name_count;
    uint64_t *writes; /* numbers of operations */
    size_t write_count;
};

struct proc {
    struct op *ops; /* number n is ops[n - 1] */
    size_t op_count;
    uint64_t acked;
    struct file *files;
    size_t file_count;
    struct named *there; /* in the folder; n: how many bytes it has */
    size_t there_count;
};

struct verify {
    const char *log, *dir;
    bool synced_only, names_acked;
    struct proc procs[PROCS_MAX];
    uint8_t *data, *base;
    uint64_t required, optional, found, complaints;
};

static inline void *grow(void *array, size_t count, size_t size)
{
    if (count != 0 && (count & (count - 1)) != 0)
        return array; /* it doubles at each power of two */
    void *bigger = realloc(array, (count == 0 ? 1 : 2 * count) * size);
    if (bigger == NULL) {
        fprintf(stderr, "crashwrite: no memory\n");
        exit(2);
    }
    return bigger;
}

__attribute__((format(printf, 2, 3))) static inline void complain(struct verify *v,
                                                                  const char *format, ...)
{
    va_list args;

    if (v->complaints++ >= COMPLAINTS_MAX)
        return;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

/* ---- the log */

static inline bool parse_begin(struct proc *p, uint64_t n, const char *text)
{
    struct op op = {.state = BEGUN};
    char kind[16];
    int end = 0;

    if (n != p->op_count + 1 || sscanf(text, "%15s %23s%n", kind, op.name, &end) != 2)
        return false;
    while (op.kind < KINDS && strcmp(kind_names[op.kind], kind) != 0)
        op.kind++;
    text += end;
    if (op.kind == KINDS)
        return false;
    if ((op.kind == WRITE || op.kind == APPEND) &&
        (sscanf(text, "%" SCNu32 " %" SCNu32 " %" SCNu64, &op.offset, &op.length, &op.seed) != 3 ||
         op.offset > FILE_BYTES || op.length > FILE_BYTES - op.offset))
        return false;
    if (op.kind == RENAME && sscanf(text, "%23s", op.to) != 1)
        return false;
    p->ops = grow(p->ops, p->op_count, sizeof op);
    p->ops[p->op_count++] = op;
    return true;
}

static inline bool parse_line(struct verify *v, const char *line)
{
    unsigned proc;
    uint64_t n;
    char what;
    int end = 0;

    if (sscanf(line, "%c %u %" SCNu64 "%n", &what, &proc, &n, &end) != 3 || proc >= PROCS_MAX)
        return false;
    struct proc *p = &v->procs[proc];
    if (what == 'b')
        return parse_begin(p, n, line + end);
    if ((what != 'd' && what != 'e') || n == 0 || n != p->op_count)
        return false;
    p->ops[n - 1].state = what == 'd' ? DONE : FAILED;
    p->acked = what == 'd' ? n : p->acked;
    return true;
}

/* False if a line makes no sense. One without its end is of a writer that was killed. */
static inline bool read_log(struct verify *v)
{
    char line[LINE_BYTES];
    uint64_t number = 0;
    bool good = true;
    FILE *f = fopen(v->log, "re");

    if (f == NULL) {
        fprintf(stderr, "crashwrite: %s: %s\n", v->log, strerror(errno));
        return false;
    }
    while (good && fgets(line, sizeof line, f) != NULL && strchr(line, '\n') != NULL) {
        number++;
        good = parse_line(v, line);
    }
    if (!good)
        fprintf(stderr, "crashwrite: %s: line %" PRIu64 " makes no sense\n", v->log, number);
    fclose(f);
    return good;
}

/* ---- what must be there */

static inline const char *last_name(const struct file *f)
{
    return f->names[f->name_count - 1].name;
}

static inline struct file *find_file(struct proc *p, const char *name)
{
    for (size_t i = p->file_count; i > 0; i--) {
        struct file *f = &p->files[i - 1];
        if (f->ended == 0 && strcmp(last_name(f), name) == 0)
            return f;
    }
    return NULL;
}

static inline void add_name(struct file *f, uint64_t n, const char *name)
{
    f->names = grow(f->names, f->name_count, sizeof *f->names);
    f->names[f->name_count].n = n;
    memcpy(f->names[f->name_count++].name, name, NAME_BYTES);
}

static inline void limit(struct file *f, uint64_t n)
{
    f->limit = n < f->limit ? n : f->limit;
}

static inline void replay_create(struct proc *p, uint64_t n, const struct op *op)
{
    p->files = grow(p->files, p->file_count, sizeof *p->files);
    struct file *f = &p->files[p->file_count++];
    *f = (struct file){.created = n, .created_done = op->state == DONE, .limit = UINT64_MAX};
    add_name(f, n, op->name);
    if (op->state != DONE)
        limit(f, n - 1);
}

static inline bool replay_one(struct proc *p, uint64_t n, const struct op *op)
{
    struct file *f = find_file(p, op->name), *replaced;

    if (op->kind == CREATE) {
        replay_create(p, n, op);
        return f == NULL;
    }
    if (f == NULL)
        return false;
    if (op->state != DONE) /* a failed fsync leaves open all since the one before */
        limit(f, op->kind == FSYNC && op->state == FAILED ? f->synced : n - 1);
    if (op->kind == WRITE || op->kind == APPEND) {
        f->writes = grow(f->writes, f->write_count, sizeof *f->writes);
        f->writes[f->write_count++] = n;
    } else if (op->kind == FSYNC && op->state == DONE) {
        f->synced = n;
    } else if (op->kind == UNLINK) {
        f->ended = n;
    } else if (op->kind == RENAME) {
        replaced = find_file(p, op->to);
        if (replaced != NULL) {
            replaced->ended = n;
            if (op->state != DONE)
                limit(replaced, n - 1);
        }
        add_name(f, n, op->to);
    }
    return true;
}

static inline uint64_t boundary(const struct verify *v, const struct proc *p, const struct file *f)
{
    uint64_t b = v->synced_only ? f->synced : p->acked;
    return b < f->limit ? b : f->limit;
}

static inline bool is_required(const struct file *f, uint64_t b)
{
    return f->created_done && f->created <= b && f->ended == 0;
}

/* Whether the file may be there under that name. */
static inline bool may_be(const struct file *f, uint64_t b, const char *name)
{
    if (f->ended != 0 && f->ended <= b)
        return false;
    for (size_t i = 0; i < f->name_count; i++) {
        bool over = i + 1 < f->name_count && f->names[i + 1].n <= b;
        if (!over && strcmp(f->names[i].name, name) == 0)
            return true;
    }
    return false;
}

/* ---- contents */

/* Fills v->base with what must be there, and returns its size; *most is the size with all that may
 * be. */
static inline uint32_t make_base(struct verify *v, const struct proc *p, const struct file *f,
                                 uint64_t b, uint32_t *most)
{
    uint32_t size = 0;

    *most = 0;
    for (size_t i = 0; i < f->write_count; i++) {
        const struct op *op = &p->ops[f->writes[i] - 1];
        uint32_t end = op->offset + op->length;
        *most = end > *most ? end : *most;
        if (f->writes[i] > b)
            continue;
        fill(v->base + op->offset, op->seed, op->offset, op->length);
        size = end > size ? end : size;
    }
    return size;
}

static inline bool byte_may_be(const struct proc *p, const struct file *f, uint64_t b,
                               uint32_t offset, uint8_t byte)
{
    for (size_t i = f->write_count; i > 0 && f->writes[i - 1] > b; i--) {
        const struct op *op = &p->ops[f->writes[i - 1] - 1];
        if (offset >= op->offset && offset - op->offset < op->length &&
            byte_at(op->seed, offset) == byte)
            return true;
    }
    return false;
}

/* Why v->data cannot be the content of that file, into why; true if it can. */
static inline bool content_fits(struct verify *v, const struct proc *p, const struct file *f,
                                uint64_t b, uint32_t size, char why[LINE_BYTES])
{
    uint32_t most, base = make_base(v, p, f, b, &most);

    if (size < base || size > most) {
        snprintf(why, LINE_BYTES, "it has %u bytes, not %u to %u", size, base, most);
        return false;
    }
    if (memcmp(v->data, v->base, base) == 0 && size == base)
        return true;
    for (uint32_t i = 0; i < size; i++) {
        if ((i >= base || v->data[i] != v->base[i]) && !byte_may_be(p, f, b, i, v->data[i])) {
            snprintf(why, LINE_BYTES, "byte %u of %u is %02x, which was never written there", i,
                     size, v->data[i]);
            return false;
        }
    }
    return true;
}

/* ---- the folder */

/* Reads a file into v->data. Its size, or -errno. */
static inline int64_t load(struct verify *v, int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int64_t done = 0;
    ssize_t n = 0;

    if (fd < 0)
        return -errno;
    while (done <= FILE_BYTES && (n = read(fd, v->data + done, FILE_BYTES + 1 - (size_t)done)) > 0)
        done += n;
    if (n < 0)
        done = -errno;
    close(fd);
    return done;
}

static inline void verify_name(struct verify *v, int dir, const char *name)
{
    char why[LINE_BYTES] = "it should not exist";
    unsigned proc;
    bool known = false;

    int64_t size = load(v, dir, name);
    if (size < 0 || size > FILE_BYTES) {
        complain(v, "%s: cannot be read: %s", name, size < 0 ? strerror((int)-size) : "too large");
        return;
    }
    if (sscanf(name, "p%u-", &proc) != 1 || proc >= PROCS_MAX) {
        complain(v, "%s: nobody made it", name);
        return;
    }
    struct proc *p = &v->procs[proc];
    p->there = grow(p->there, p->there_count, sizeof *p->there);
    p->there[p->there_count] = (struct named){.n = (uint64_t)size};
    snprintf(p->there[p->there_count++].name, NAME_BYTES, "%s", name);
    for (size_t i = 0; i < p->file_count; i++) {
        struct file *f = &p->files[i];
        uint64_t b = boundary(v, p, f);
        if (!may_be(f, b, name) || !content_fits(v, p, f, b, (uint32_t)size, why))
            continue;
        f->found = known = true;
    }
    v->found++;
    if (!known)
        complain(v, "%s: %s", name, why);
}

static inline void verify_missing(struct verify *v)
{
    for (unsigned i = 0; i < PROCS_MAX; i++) {
        struct proc *p = &v->procs[i];
        for (size_t k = 0; k < p->file_count; k++) {
            struct file *f = &p->files[k];
            uint64_t b = boundary(v, p, f);
            if (f->ended != 0 && f->ended <= b)
                continue; /* verify_name() found it if it is there */
            bool required = is_required(f, b);
            *(required ? &v->required : &v->optional) += 1;
            if (required && !f->found)
                complain(v, "%s: lost, or not as it was at operation %" PRIu64 " of process %u",
                         last_name(f), b, i);
        }
    }
}

/* ---- the names of a process as a whole */

/* The name that f has after operation n; NULL: none. */
static inline const char *name_at(const struct file *f, uint64_t n)
{
    const char *name = NULL;

    if (f->created > n || (f->ended != 0 && f->ended <= n))
        return NULL;
    for (size_t i = 0; i < f->name_count && f->names[i].n <= n; i++)
        name = f->names[i].name;
    return name;
}

/* An operation that failed may have happened or not; its names are not used again. */
static inline bool left_open(const struct proc *p, const char *name)
{
    for (size_t n = 0; n < p->op_count; n++) {
        if (p->ops[n].state == FAILED &&
            (strcmp(p->ops[n].name, name) == 0 || strcmp(p->ops[n].to, name) == 0))
            return true;
    }
    return false;
}

/* Is what is there what was there after operation n? */
static inline bool names_fit(struct verify *v, int dir, struct proc *p, uint64_t n)
{
    char why[LINE_BYTES];
    size_t open = 0, fit = 0, want = 0;

    for (size_t i = 0; i < p->file_count; i++) {
        const char *name = name_at(&p->files[i], n);
        want += name != NULL && !left_open(p, name);
    }
    for (size_t k = 0; k < p->there_count; k++) {
        const char *name = p->there[k].name;
        const struct file *f = NULL;
        if (left_open(p, name)) {
            open++;
            continue;
        }
        for (size_t i = 0; i < p->file_count && f == NULL; i++) {
            const char *then = name_at(&p->files[i], n);
            f = then != NULL && strcmp(then, name) == 0 ? &p->files[i] : NULL;
        }
        fit += f != NULL && load(v, dir, name) == (int64_t)p->there[k].n &&
               content_fits(v, p, f, boundary(v, p, f), (uint32_t)p->there[k].n, why);
    }
    return fit == want && fit + open == p->there_count;
}

static inline bool changes_names(const struct op *op)
{
    return op->kind == CREATE || op->kind == RENAME || op->kind == UNLINK;
}

static inline void verify_names(struct verify *v, int dir, unsigned number)
{
    struct proc *p = &v->procs[number];
    uint64_t least = 0;

    for (uint64_t n = 1; n <= p->op_count; n++) {
        if (p->ops[n - 1].state == DONE && (v->names_acked || p->ops[n - 1].kind == FSYNC))
            least = n;
    }
    bool fits = names_fit(v, dir, p, least);
    for (uint64_t n = least + 1; n <= p->op_count && !fits; n++)
        fits = changes_names(&p->ops[n - 1]) && names_fit(v, dir, p, n);
    if (!fits)
        complain(v, "the names of process %u are of no moment from operation %" PRIu64 " of %zu on",
                 number, least, p->op_count);
}

static inline void free_procs(struct verify *v)
{
    for (unsigned i = 0; i < PROCS_MAX; i++) {
        struct proc *p = &v->procs[i];
        for (size_t k = 0; k < p->file_count; k++) {
            free(p->files[k].names);
            free(p->files[k].writes);
        }
        free(p->files);
        free(p->there);
        free(p->ops);
    }
    free(v->data);
    free(v->base);
}

static inline int verify(struct verify *v)
{
    struct dirent *e;
    DIR *d = NULL;
    int rc = 2;

    v->data = malloc(FILE_BYTES + 1);
    v->base = malloc(FILE_BYTES);
    if (v->data == NULL || v->base == NULL || !read_log(v))
        goto out;
    for (unsigned i = 0; i < PROCS_MAX; i++) {
        for (size_t n = 1; n <= v->procs[i].op_count; n++) {
            if (!replay_one(&v->procs[i], n, &v->procs[i].ops[n - 1])) {
                fprintf(stderr, "crashwrite: operation %zu of process %u makes no sense\n", n, i);
                goto out;
            }
        }
    }
    d = opendir(v->dir);
    if (d == NULL) {
        fprintf(stderr, "crashwrite: %s: %s\n", v->dir, strerror(errno));
        goto out;
    }
    while (errno = 0, (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            verify_name(v, dirfd(d), e->d_name);
    }
    if (errno != 0)
        complain(v, "%s: cannot be listed: %s", v->dir, strerror(errno));
    for (unsigned i = 0; v->synced_only && i < PROCS_MAX; i++)
        verify_names(v, dirfd(d), i);
    verify_missing(v);
    printf("crashwrite: %" PRIu64 " files that must be there, %" PRIu64 " that may, %" PRIu64
           " found, %" PRIu64 " wrong\n",
           v->required, v->optional, v->found, v->complaints);
    rc = v->complaints == 0 ? 0 : 1;
out:
    if (d != NULL)
        closedir(d);
    free_procs(v);
    return rc;
}

#endif
