#include "nodecache/pool/pool_fault.h"

#ifdef UMBEL_FAULTS

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FAULTS_MAX 32
#define TEXT_MAX   4096
#define KILL       (-1)

struct fault_point {
    char name[48];
    int error;
    unsigned at, hits; /* at 0: every hit */
    bool onwards;      /* all after that one, too */
};

/* The one state of the process that is global: the environment is so, too. */
static struct {
    pthread_mutex_t lock;
    bool started;
    struct timespec changed; /* the file */
    off_t size;
    int count;
    struct fault_point points[FAULTS_MAX];
} faults = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int error_number(const char *name)
{
    if (strcmp(name, "KILL") == 0)
        return KILL;
    for (int e = 1; e < 134; e++) {
        const char *known = strerrorname_np(e);
        if (known != NULL && strcmp(known, name) == 0)
            return e;
    }
    return atoi(name) > 0 ? atoi(name) : EIO;
}

static void parse(const char *spec)
{
    char text[TEXT_MAX], error[24], *save = NULL;

    faults.count = 0;
    snprintf(text, sizeof text, "%s", spec);
    for (char *one = strtok_r(text, ", \t\r\n", &save); one != NULL && faults.count < FAULTS_MAX;
         one = strtok_r(NULL, ", \t\r\n", &save)) {
        struct fault_point *f = &faults.points[faults.count];
        *f = (struct fault_point){.at = 0};
        char plus = '\0';
        if (sscanf(one, "%47[^=]=%23[^@]@%u%c", f->name, error, &f->at, &plus) < 2)
            continue;
        f->onwards = plus == '+';
        f->error = error_number(error);
        faults.count++;
    }
}

static void parse_file(const char *path)
{
    char text[TEXT_MAX];
    struct stat st;

    if (stat(path, &st) != 0) {
        faults.count = 0;
        return;
    }
    if (faults.started && st.st_size == faults.size && st.st_mtim.tv_sec == faults.changed.tv_sec &&
        st.st_mtim.tv_nsec == faults.changed.tv_nsec)
        return;
    FILE *f = fopen(path, "re");
    size_t len = f == NULL ? 0 : fread(text, 1, sizeof text - 1, f);
    if (f != NULL)
        fclose(f);
    text[len] = '\0';
    faults.changed = st.st_mtim;
    faults.size = st.st_size;
    parse(text);
}

int pool_fault(const char *name)
{
    const char *file = getenv("UMBEL_FAULT_FILE"), *spec = getenv("UMBEL_FAULT");
    int rc = 0;

    if (file == NULL && spec == NULL)
        return 0;
    pthread_mutex_lock(&faults.lock);
    if (file != NULL)
        parse_file(file);
    else if (!faults.started)
        parse(spec);
    faults.started = true;
    for (int i = 0; i < faults.count && rc == 0; i++) {
        struct fault_point *f = &faults.points[i];
        if (strcmp(f->name, name) != 0)
            continue;
        f->hits++;
        if (f->at == 0 || f->hits == f->at || (f->onwards && f->hits > f->at))
            rc = -f->error;
    }
    pthread_mutex_unlock(&faults.lock);
    if (rc == -KILL)
        raise(SIGKILL);
    return rc;
}

#else
/* Without fault points this file is empty, which ISO C does not allow. */
typedef int pool_fault_unused;
#endif
