#include "control/wire/fault.h"

#ifdef UMBEL_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAULT_POINTS_MAX 64
#define FAULT_TEXT_MAX   4096
#define FAULT_KILL       (-1)

struct point {
    char name[64];
    int error;           /* errno or FAULT_KILL */
    unsigned long first; /* 0: every hit */
    bool onwards;        /* all after first, too */
    unsigned long hits;
};

/* Only in builds for tests: process-wide on purpose. */
static struct {
    pthread_mutex_t lock;
    bool read;
    struct stat seen;
    struct point points[FAULT_POINTS_MAX];
    size_t count;
} faults = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int error_number(const char *name)
{
    if (strcmp(name, "KILL") == 0)
        return FAULT_KILL;
    for (int e = 1; e < 134; e++) {
        const char *known = strerrorname_np(e);
        if (known && strcmp(known, name) == 0)
            return e;
    }
    int number = atoi(name);
    return number > 0 ? number : EIO;
}

static void add_point(char *word)
{
    char *error = strchr(word, '=');
    if (!error || faults.count == FAULT_POINTS_MAX)
        return;
    *error++ = '\0';
    struct point *p = &faults.points[faults.count++];
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "%s", word);
    char *at = strchr(error, '@');
    if (at) {
        *at++ = '\0';
        p->first = strtoul(at, &at, 10);
        p->onwards = *at == '+';
    }
    p->error = error_number(error);
}

static void parse(char *text)
{
    faults.count = 0;
    char *rest = text;
    for (char *word; (word = strsep(&rest, ", \t\n"));)
        if (*word)
            add_point(word);
}

static void read_file(const char *path)
{
    struct stat st;
    char text[FAULT_TEXT_MAX] = "";
    if (stat(path, &st) < 0) {
        faults.count = 0;
        memset(&faults.seen, 0, sizeof(faults.seen));
        return;
    }
    if (st.st_ino == faults.seen.st_ino && st.st_size == faults.seen.st_size &&
        st.st_mtim.tv_sec == faults.seen.st_mtim.tv_sec &&
        st.st_mtim.tv_nsec == faults.seen.st_mtim.tv_nsec)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    faults.seen = st;
    parse(text);
}

static void refresh(void)
{
    const char *path = getenv("UMBEL_FAULT_FILE");
    if (path) {
        read_file(path);
    } else if (!faults.read) {
        const char *env = getenv("UMBEL_FAULT");
        char text[FAULT_TEXT_MAX];
        snprintf(text, sizeof(text), "%s", env ? env : "");
        parse(text);
    }
    faults.read = true;
}

static bool hit(struct point *p)
{
    p->hits++;
    return p->first == 0 || p->hits == p->first || (p->onwards && p->hits > p->first);
}

int fault(const char *name)
{
    int error = 0;
    pthread_mutex_lock(&faults.lock);
    refresh();
    for (size_t i = 0; i < faults.count; i++)
        if (strcmp(faults.points[i].name, name) == 0 && hit(&faults.points[i]))
            error = faults.points[i].error;
    pthread_mutex_unlock(&faults.lock);
    if (error == FAULT_KILL)
        raise(SIGKILL);
    return -error;
}

#endif
