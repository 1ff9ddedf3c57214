/*
 * The runs that this node knows, and what the files that keep them share: run.c (life, requests),
 * run_watch.c (the thread that has them started and sees them end), run_supervisors.c (who does it
 * for it), run_report.c (the thread that tells the centre).
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
    RUN_GOES,    /* by is its supervisor */
    RUN_STUCK,   /* its supervisor is gone, and not all of its processes are */
    RUN_OVER,    /* result is there; kept until the centre has it */
};

/* The watcher's, but for pidfd and round of one that has a run: these anybody may use who holds
 * runs->lock and finds it in run->by. */
struct run_supervisor {
    int pidfd;
    int channel;     /* -1: adopted from an earlier node; it ends with its run */
    unsigned round;  /* runs that it was given; 0: adopted */
    struct run *run; /* NULL: idle */
    int64_t idle_ms; /* since then, clock_boot_ms() */
    struct run_supervisor *next;
};

struct run {
    UT_hash_handle hh; /* by key */
    struct run_key key;
    char name[RUN_NAME_MAX];
    enum run_state state;
    struct run_supervisor *by;
    struct timespec began;
    int64_t began_ms; /* clock_boot_ms() */
    int end_asked;    /* RUN_CANCEL, RUN_STOP; before it had a supervisor, told when it has one */
    bool told;        /* the centre has heard of this state */
    int64_t told_ms;  /* when; over: said again after a while */
    int64_t stuck_until; /* what is left of it is waited for; clock_boot_ms(). The watcher's */
    char stuck_why[96];
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
    int64_t spawner_ms;          /* when it was started last */
    unsigned asked;              /* requests that the spawner has not answered. The watcher's */
    struct run_supervisor *idle; /* the one that had a run last is first. The watcher's */
    unsigned n_idle;
    unsigned stuck; /* RUN_STUCK. The watcher's */
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

void runs_wake(struct runs *r);

/* run_supervisors.c: all but the last one are the watcher's. */
/* Takes the descriptors if it answers 0. */
int run_supervisor_add(struct runs *r, const struct run_spawned_fds *fds,
                       struct run_supervisor **out);
void run_supervisor_drop(struct runs *r, struct run_supervisor *s); /* not an idle one */
/* After epoll. GONE: or it will be, as its run is over and it takes no other. */
enum run_supervisor_said { RUN_SAID_NOTHING, RUN_SAID_AGAIN, RUN_SAID_GONE };
enum run_supervisor_said run_supervisor_said(const struct run_supervisor *s);
/* It has no run any more: kept for another one, or dropped. */
void run_supervisor_rest(struct runs *r, struct run_supervisor *s);
/* An idle one that has been given the run of that name, or NULL. */
struct run_supervisor *run_supervisor_ask_idle(struct runs *r, const char *name);
/* Drops one that may be idle. */
void run_supervisor_is_gone(struct runs *r, struct run_supervisor *s);
/* Drops those that have been idle for long. */
void run_supervisors_thin(struct runs *r, int64_t now_ms);
/* Drops all idle ones, and waits for them to end. */
void run_supervisors_end(struct runs *r);
/* A signal to the supervisor of a run (run_signal_value()); runs->lock is held, or nobody else is
 * there. -ESRCH: it has gone. */
int run_supervisor_tell(const struct run_supervisor *s, int number);

/* run_watch.c */
int runs_adopt(struct runs *r, char detail[RUN_DETAIL]); /* before the threads start; this too */
int runs_start_spawner(struct runs *r, char detail[RUN_DETAIL]);
void *runs_watch(void *arg);
/* run_report.c */
void *runs_report(void *arg);

#endif
