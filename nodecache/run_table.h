/*
 * The runs that this node knows, and what the files that keep them share: run.c (life, requests),
 * run_watch.c (the thread that has them started and sees them end), run_report.c (the thread that
 * tells the centre).
 *
 * Locks: runs->lock, a leaf. No file is read or written under it.
 */
#ifndef UMBEL_NODE_RUN_TABLE_H
#define UMBEL_NODE_RUN_TABLE_H

#include <uthash.h>

#include "nodecache/run_private.h"

enum run_state {
    RUN_NOTING,  /* its folder is being made */
    RUN_WAITING, /* for the spawner */
    RUN_ASKED,   /* the spawner is at it */
    RUN_GOES,    /* pidfd is its supervisor's */
    RUN_OVER,    /* result is there; kept until the centre has it */
};

struct run {
    UT_hash_handle hh; /* by key */
    struct run_key key;
    char name[RUN_NAME_MAX];
    enum run_state state;
    int pidfd; /* -1 */
    struct timespec began;
    int64_t began_ms; /* clock_boot_ms() */
    int end_asked;    /* before it had a supervisor: told when it has one */
    bool told;        /* the centre has heard of this state */
    int64_t told_ms;  /* when; over: said again after a while */
    Star__JobRunReport *result;
};

struct runs {
    struct runs_options options;
    char exe[PATH_MAX];
    struct run_cgroups cgroups;
    int jobs;
    _Atomic uint64_t *lease;
    int epoll, wake; /* eventfd: something waits, or stop */
    int spawner;     /* the socket; -1: lost. The watcher's */
    pid_t spawner_pid;
    int64_t spawner_ms; /* when it was started last */
    unsigned asked;     /* requests that the spawner has not answered. The watcher's */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* everything below */
    struct run *table;
    unsigned active;  /* not over */
    unsigned waiting; /* RUN_WAITING */
    bool stop;
    bool connected;         /* there was a HELLO */
    bool all_due, all_said; /* after the last HELLO */
    bool tell;              /* something is to be told */
    pthread_t watcher, reporter;
    bool watches, reports;
};

/* lock is held. */
struct run *runs_find(struct runs *r, const struct run_key *k);
struct run *runs_add(struct runs *r, const struct run_key *k, enum run_state state);
void runs_drop(struct runs *r, struct run *run);
void runs_tell(struct runs *r);

/* From what was said then, and answered. */
void runs_move_lease(struct runs *r, int64_t said_ms);

/* A signal to the supervisor, with a value; -ESRCH: it has gone. */
int run_tell_supervisor(const struct run *run, int sig, int value);
void runs_wake(struct runs *r);

/* run_watch.c */
int runs_adopt(struct runs *r, char detail[RUN_DETAIL]); /* before the threads start; this too */
int runs_start_spawner(struct runs *r, char detail[RUN_DETAIL]);
void *runs_watch(void *arg);
/* run_report.c */
void *runs_report(void *arg);

#endif
