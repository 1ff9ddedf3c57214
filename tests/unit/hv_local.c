/* Nodes that are started on demand: the driver for processes on this machine, and the thread in
 * which drivers work. The "node" is a shell script. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hv/hv_held.h"
#include "hv/hv_local.h"

#define MIB  (1ull << 20)
#define NAME "node-d7"

struct place {
    char dir[64], stores[96], run[96], logs[96], identities[96];
    const char *args[4];
    struct hv_local_options o;
    void *self;
    atomic_bool *cancel;
    char detail[HV_DETAIL];
};

/* script: what a node does. */
static void place_make(struct place *p, const char *script)
{
    memset(p, 0, sizeof(*p));
    snprintf(p->dir, sizeof(p->dir), "/tmp/umbel-hv-XXXXXX");
    cr_assert_not_null(mkdtemp(p->dir));
    snprintf(p->stores, sizeof(p->stores), "%s/root", p->dir);
    snprintf(p->run, sizeof(p->run), "%s/run", p->dir);
    snprintf(p->logs, sizeof(p->logs), "%s/log", p->dir);
    snprintf(p->identities, sizeof(p->identities), "%s/identity", p->dir);
    cr_assert_eq(mkdir(p->stores, 0700) | mkdir(p->run, 0700) | mkdir(p->logs, 0700) |
                     mkdir(p->identities, 0700),
                 0);
    p->args[0] = "sh";
    p->args[1] = "-c";
    p->args[2] = script;
    p->o = (struct hv_local_options){.program = "/bin/sh",
                                     .args = p->args,
                                     .stores = p->stores,
                                     .run = p->run,
                                     .logs = p->logs,
                                     .identities = p->identities,
                                     .prefix = "node-d",
                                     .gone_file = "gone",
                                     .capacity_min = MIB};
    cr_assert_eq(hv_local_open(&p->o, &p->self, &p->cancel), 0);
}

static void place_end(struct place *p)
{
    char command[128];

    if (p->self) {
        hv_local.stop(p->self, NAME, 1, p->detail);
        hv_local.close(p->self);
    }
    snprintf(command, sizeof(command), "rm -rf %s", p->dir);
    cr_assert_eq(system(command), 0);
}

static char *path_of(const struct place *p, const char *rest)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", p->dir, rest);
    return path;
}

static void put(const struct place *p, const char *rest, const char *text)
{
    FILE *f = fopen(path_of(p, rest), "w");

    cr_assert_not_null(f);
    fputs(text, f);
    fclose(f);
}

static int start(struct place *p)
{
    struct hv_spec spec = {.name = NAME, .capacity = 64 * MIB};

    p->detail[0] = '\0';
    return hv_local.start(p->self, &spec, p->detail);
}

static enum hv_state state_of(struct place *p)
{
    enum hv_state state = HV_ABSENT;

    p->detail[0] = '\0';
    int rc = hv_local.state(p->self, NAME, &state, p->detail);
    cr_assert_eq(rc, 0, "%s", strerror(-rc));
    return state;
}

static void until_ended(struct place *p)
{
    for (int n = 0; state_of(p) == HV_RUNS; n++) {
        cr_assert_lt(n, 500, "it does not end");
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

static pid_t pid_of(const struct place *p)
{
    return hv_held_by(path_of(p, "run/" NAME ".lock"));
}

Test(hv_local, starts_once_and_leaves_nothing)
{
    struct place p;
    char names[4][HV_NAME];
    size_t n = 0;

    place_make(&p, "echo ready >&3; exec sleep 1000");
    cr_assert_eq(state_of(&p), HV_ABSENT);
    cr_assert_eq(start(&p), 0, "%s", p.detail);
    pid_t pid = pid_of(&p);
    cr_assert_gt(pid, 0, "it has its lock before start returns");
    cr_assert_neq(getpgid(pid), getpgrp(), "a signal for us is none for it");
    cr_assert_eq(start(&p), 0);
    cr_assert_eq(pid_of(&p), pid, "there is one, not two");
    cr_assert_eq(state_of(&p), HV_RUNS);
    cr_assert_eq(hv_local.find(p.self, names, 4, &n, p.detail), 0);
    cr_assert_eq(n, 1);
    cr_assert_str_eq(names[0], NAME);
    cr_assert_eq(hv_local.destroy(p.self, NAME, p.detail), -EBUSY);
    cr_assert_eq(access(path_of(&p, "root/" NAME), F_OK), 0);
    put(&p, "root/" NAME "/data", "staged");
    cr_assert_eq(mkdir(path_of(&p, "identity/" NAME), 0700), 0);
    cr_assert_eq(hv_local.stop(p.self, NAME, 1, p.detail), 0);
    until_ended(&p);
    cr_assert_eq(state_of(&p), HV_ENDED);
    cr_assert_eq(access(path_of(&p, "root/" NAME "/data"), F_OK), 0);
    cr_assert_eq(hv_local.destroy(p.self, NAME, p.detail), 0, "%s", p.detail);
    cr_assert_eq(state_of(&p), HV_ABSENT);
    cr_assert_neq(access(path_of(&p, "root/" NAME), F_OK), 0);
    cr_assert_neq(access(path_of(&p, "identity/" NAME), F_OK), 0);
    cr_assert_neq(access(path_of(&p, "run/" NAME ".lock"), F_OK), 0);
    cr_assert_neq(access(path_of(&p, "log/" NAME ".log"), F_OK), 0);
    cr_assert_eq(access(path_of(&p, "log/ended-node.log"), F_OK), 0);
    n = 9;
    cr_assert_eq(hv_local.find(p.self, names, 4, &n, p.detail), 0);
    cr_assert_eq(n, 0);
    cr_assert_eq(hv_local.destroy(p.self, NAME, p.detail), 0, "once more is nothing");
    place_end(&p);
}

Test(hv_local, another_one_finds_it)
{
    struct place p;

    place_make(&p, "exec sleep 1000");
    cr_assert_eq(start(&p), 0);
    pid_t pid = pid_of(&p);
    hv_local.close(p.self);
    cr_assert_eq(hv_local_open(&p.o, &p.self, &p.cancel), 0);
    cr_assert_eq(state_of(&p), HV_RUNS);
    cr_assert_eq(start(&p), 0);
    cr_assert_eq(pid_of(&p), pid);
    place_end(&p);
}

Test(hv_local, says_what_it_said)
{
    struct place p;

    place_make(&p, "echo 'error: no pool there' >&3; echo to the log; exit 1");
    cr_assert_eq(start(&p), 0);
    until_ended(&p);
    cr_assert_eq(state_of(&p), HV_ENDED);
    cr_assert_str_eq(p.detail, "no pool there");
    put(&p, "root/" NAME "/gone", "released\n");
    cr_assert_eq(state_of(&p), HV_LEFT);
    place_end(&p);
}

Test(hv_local, gets_its_name_and_no_descriptor_of_ours)
{
    struct place p;
    char text[512] = "";

    place_make(&p, "echo \"$0 $*\" >&3; ls /proc/self/fd | tr '\\n' ' '");
    int ours = open("/dev/null", O_RDONLY);
    cr_assert_eq(dup2(ours, 77), 77);
    cr_assert_eq(start(&p), 0);
    close(77);
    close(ours);
    until_ended(&p);
    cr_assert_eq(state_of(&p), HV_ENDED);
    cr_assert_str_eq(p.detail, "--name " NAME " --capacity 67108864 --ready-fd 3");
    FILE *f = fopen(path_of(&p, "log/" NAME ".log"), "r");
    cr_assert_not_null(f);
    cr_assert_not_null(fgets(text, sizeof(text), f));
    fclose(f);
    cr_assert_null(strstr(text, "77"), "%s", text);
    cr_assert_null(strstr(text, "6"), "%s", text); /* 0 to 5 at most, ls' own among them */
    place_end(&p);
}

static uint64_t so_much(const void *arg)
{
    return *(const uint64_t *)arg;
}

Test(hv_local, takes_what_it_may_at_its_start)
{
    struct place p;
    uint64_t most = 3 * MIB;

    place_make(&p, "echo \"$*\" >&3");
    hv_local.close(p.self);
    p.o.capacity = so_much;
    p.o.capacity_arg = &most;
    cr_assert_eq(hv_local_open(&p.o, &p.self, &p.cancel), 0);
    for (; most <= 4 * MIB; most += MIB) {
        char said[64];
        snprintf(said, sizeof(said), "--capacity %lu --ready-fd 3", (unsigned long)most);
        cr_assert_eq(start(&p), 0);
        until_ended(&p);
        cr_assert_eq(state_of(&p), HV_ENDED);
        cr_assert_not_null(strstr(p.detail, said), "%s", p.detail);
    }
    place_end(&p);
}

Test(hv_local, what_cannot_be_started)
{
    struct place p;

    place_make(&p, "exec sleep 1000");
    put(&p, "root/" NAME, "a file");
    cr_assert_eq(start(&p), -ENOTDIR);
    cr_assert_not_null(strstr(p.detail, "store"), "%s", p.detail);
    cr_assert_eq(hv_local.destroy(p.self, NAME, p.detail), 0);
    p.o.capacity_min = UINT64_MAX / 2;
    hv_local.close(p.self);
    cr_assert_eq(hv_local_open(&p.o, &p.self, &p.cancel), 0);
    cr_assert_eq(start(&p), -ENOSPC);
    p.o.capacity_min = MIB;
    p.o.program = "/nowhere/umbel";
    hv_local.close(p.self);
    cr_assert_eq(hv_local_open(&p.o, &p.self, &p.cancel), 0);
    cr_assert_eq(start(&p), -ENOENT);
    cr_assert_not_null(strstr(p.detail, "/nowhere/umbel"), "%s", p.detail);
    until_ended(&p);
    p.o.why_not = "no mount";
    hv_local.close(p.self);
    cr_assert_eq(hv_local_open(&p.o, &p.self, &p.cancel), 0);
    struct hv_offer offer;
    cr_assert_eq(hv_local.offer(p.self, &offer, p.detail), -EOPNOTSUPP);
    cr_assert_str_eq(p.detail, "no mount");
    cr_assert_eq(start(&p), -EOPNOTSUPP);
    place_end(&p);
}

Test(hv_local, touches_nothing_but_nodes)
{
    static const char *const bad[] = {"node-1", "node-d", "node-d1x", "node-d/../x", "..", ""};
    struct place p;
    enum hv_state state;

    place_make(&p, "exec sleep 1000");
    cr_assert_eq(mkdir(path_of(&p, "root/node-1"), 0700), 0);
    put(&p, "keep", "me");
    cr_assert_eq(mkdir(path_of(&p, "root/" NAME), 0700), 0);
    cr_assert_eq(symlink(p.dir, path_of(&p, "root/" NAME "/link")), 0);
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        struct hv_spec spec = {.capacity = MIB};
        snprintf(spec.name, sizeof(spec.name), "%s", bad[k]);
        cr_assert_eq(hv_local.start(p.self, &spec, p.detail), -EINVAL, "%s", bad[k]);
        cr_assert_eq(hv_local.state(p.self, bad[k], &state, p.detail), -EINVAL);
        cr_assert_eq(hv_local.stop(p.self, bad[k], 1, p.detail), -EINVAL);
        cr_assert_eq(hv_local.destroy(p.self, bad[k], p.detail), -EINVAL);
    }
    cr_assert_eq(hv_local.destroy(p.self, NAME, p.detail), 0);
    cr_assert_eq(access(path_of(&p, "keep"), F_OK), 0, "not through a link");
    cr_assert_eq(access(path_of(&p, "root/node-1"), F_OK), 0);
    place_end(&p);
}

/* ---- the thread */

struct heard {
    int n, last;
    enum hv_state state;
};

static void on_answer(void *arg, const struct hv_answer *a)
{
    struct heard *h = arg;

    h->n++;
    h->last = a->status;
    h->state = a->state;
}

static void turn(uv_loop_t *loop, const struct heard *h, int n)
{
    for (int k = 0; h->n < n; k++) {
        cr_assert_lt(k, 1000, "no answer");
        uv_run(loop, UV_RUN_NOWAIT);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

Test(hv, answers_come_in_the_loop_in_order)
{
    struct hv_spec spec = {.name = NAME, .capacity = 64 * MIB};
    struct heard h = {0};
    struct place p;
    struct hv *hv;
    uv_loop_t loop;

    place_make(&p, "exec sleep 1000");
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(hv_open(&loop, &hv_local, p.self, p.cancel, &hv), 0);
    p.self = NULL;
    cr_assert_str_eq(hv_driver_name(hv), "local");
    cr_assert_eq(hv_offer(hv, on_answer, &h), 0);
    cr_assert_eq(hv_start(hv, &spec, on_answer, &h), 0);
    cr_assert_eq(hv_state(hv, NAME, on_answer, &h), 0);
    cr_assert_eq(h.n, 0, "never at once");
    turn(&loop, &h, 3);
    cr_assert_eq(h.last, 0);
    cr_assert_eq(h.state, HV_RUNS);
    cr_assert_eq(hv_stop(hv, NAME, 1, on_answer, &h), 0);
    cr_assert_eq(hv_find(hv, on_answer, &h), 0);
    cr_assert_eq(hv_destroy(hv, NAME, on_answer, &h), 0);
    turn(&loop, &h, 6);
    cr_assert_eq(h.last, 0);
    for (int k = 0; k < HV_CALLS_MAX; k++)
        cr_assert_eq(hv_state(hv, NAME, on_answer, &h), 0);
    cr_assert_eq(hv_state(hv, NAME, on_answer, &h), -EBUSY, "a bound");
    hv_close(hv);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(h.n, 6, "after the close nobody is called");
    cr_assert_eq(uv_loop_close(&loop), 0);
    place_end(&p);
}
