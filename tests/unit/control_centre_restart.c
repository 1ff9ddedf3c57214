/* The centre from outside: killed, frozen and stopped; what the log, the snapshots and the grace
 * period bring back. */
#include <dirent.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "control/events.h"
#include "control_fake.h"

static struct cloud cloud;
static struct fake_node node;
static struct mount a, b;

static void begin(void)
{
    memset(&cloud, 0, sizeof(cloud));
    cloud_make(&cloud);
    node_start(&node, &cloud, "node-1");
    mount_start(&a, &cloud, "mnt-1");
}

static void end(void)
{
    mount_stop(&a);
    node_stop(&node);
    cloud_end(&cloud);
}

TestSuite(control_centre_restart, .init = begin, .fini = end, .timeout = 600);

static void restart(void)
{
    cloud_kill(&cloud);
    cloud_start(&cloud);
}

static uint64_t made_ino(struct ask *question)
{
    Star__EntryReply *r = NULL;
    int rc = ask_reply(question, entry_reply, &r);
    uint64_t ino = r && r->attr ? r->attr->ino : 0;

    cr_expect_eq(rc, 0);
    if (r)
        star__entry_reply__free_unpacked(r, NULL);
    return ino;
}

/* ---- exactly once */

Test(control_centre_restart, a_mutation_happens_once)
{
    uint64_t ino = made_ino(make_seq(&a, T(MKDIR), 1, "d", 1000));

    cr_expect_eq(made_ino(make_seq(&a, T(MKDIR), 1, "d", 1000)), ino);
    cr_expect_eq(ask_end(make_seq(&a, T(MKDIR), 1, "d", 1001)), -EEXIST);
    restart();
    cr_expect_eq(made_ino(make_seq(&a, T(MKDIR), 1, "d", 1000)), ino);
    cr_expect_eq(ask_end(make_seq(&a, T(MKDIR), 1, "d", 1001)), -EEXIST);
    /* A refusal is remembered, too. */
    cr_assert_eq(ask_end(rename_name(&a, "d", "e")), 0);
    cr_expect_eq(ask_end(make_seq(&a, T(MKDIR), 1, "d", 1001)), -EEXIST);
    cr_expect_eq(ask_end(make_seq(&a, T(MKDIR), 1, "d", 1002)), 0);
}

/* What is on its way when the centre dies is sent again by the client, and answered. */
Test(control_centre_restart, killed_with_mutations_on_their_way)
{
    struct ask *asks[400];
    char name[16];

    for (unsigned k = 0; k < 400; k++) {
        snprintf(name, sizeof(name), "d%u", k);
        asks[k] = make(&a, T(MKDIR), 1, name);
        if (k == 200)
            restart();
    }
    for (unsigned k = 0; k < 400; k++)
        cr_expect_eq(ask_end(asks[k]), 0);
    cr_expect(ctl_says(&a, "status", "inodes 401\n"));
    cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
}

/* ---- the grace period */

Test(control_centre_restart, nothing_changes_until_all_are_back)
{
    Star__EntryReply *r = NULL;

    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&b, T(CREATE), "x");
    b.opens[0] = (Star__HeldOpen)STAR__HELD_OPEN__INIT;
    b.opens[0].ino = ino;
    b.opens[0].writers = 1;
    b.opens_n = 1;
    b.locks[0] = (Star__Lock)STAR__LOCK__INIT;
    b.locks[0].ino = ino;
    b.locks[0].owner = 7;
    b.locks[0].type = F_WRLCK;
    b.locks[0].end = INT64_MAX;
    b.locks_n = 1;
    cr_assert_eq(ask_end(lock_file(&b, ino, F_WRLCK, false)), 0);
    cr_assert_eq(ask_end(unlink_name(&a, "x")), 0);
    atomic_store(&b.away, true);
    restart();
    struct ask *make_dir = make(&a, T(MKDIR), 1, "d");
    cr_expect(ask_waits(make_dir, 500));
    cr_expect(ctl_says(&a, "status", "state grace\n"));
    struct ask *lock = lock_file(&a, ino, F_RDLCK, false);
    int64_t began = clock_boot_ms();
    atomic_store(&b.away, false);
    cr_expect_eq(ask_end(make_dir), 0);
    cr_expect_lt(clock_boot_ms() - began, 4000);
    cr_expect(ctl_says(&a, "status", "state serving\n"));
    cr_expect_eq(ask_end(lock), -EAGAIN); /* reclaimed */
    cr_expect_eq(lookup(&a, "d", &r), 0);
    star__entry_reply__free_unpacked(r, NULL);
    nap(200);
    cr_expect_not(node_dropped(&node, ino)); /* reclaimed, too */
    cr_assert_eq(release(&b, ino, true, 0, 0), 0);
    eventually(node_dropped(&node, ino));
    mount_stop(&b);
}

/* Who cannot have his lock back is told so. */
Test(control_centre_restart, a_lock_is_lost)
{
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(CREATE), "x"), other = file_new(&a, T(CREATE), "y");
    for (unsigned k = 0; k < 2; k++) {
        b.locks[k] = (Star__Lock)STAR__LOCK__INIT;
        b.locks[k].ino = k ? other : ino;
        b.locks[k].owner = 7;
        b.locks[k].type = F_WRLCK;
        b.locks[k].end = INT64_MAX;
    }
    b.locks_n = 2;
    cr_assert_eq(ask_end(lock_file(&a, ino, F_RDLCK, false)), 0);
    client_reset(b.client);
    eventually(atomic_load(&b.connects) == 2);
    cr_expect_eq(atomic_load(&b.lost), 1);
    cr_expect_eq(ask_end(lock_file(&a, other, F_RDLCK, false)), -EAGAIN);
    cr_expect(ctl_says(&a, "events", "lock-lost"));
    mount_stop(&b);
}

/* One that does not come back is waited for as long as its lease may last; then what it held is
 * free. */
Test(control_centre_restart, a_mount_never_comes_back)
{
    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&b, T(CREATE), "x");
    cr_assert_eq(ask_end(unlink_name(&a, "x")), 0);
    mount_stop(&b);
    restart();
    struct ask *make_dir = make(&a, T(MKDIR), 1, "d");
    int64_t took = mount_waits(&a, make_dir);
    cr_expect_eq(ask_end(make_dir), 0);
    cr_expect(took > 9000 && took < 12000, "%lld ms", (long long)took);
    eventually(node_dropped(&node, ino));
}

/* A centre that was frozen (or slept with its machine) does not take it for the silence of mounts.
 */
Test(control_centre_restart, frozen)
{
    struct got got;

    kill(cloud.pid, SIGSTOP);
    nap(11500);
    kill(cloud.pid, SIGCONT);
    cr_expect_eq(mount_renew(&a), 0);
    nap(500);
    cr_expect_eq(mount_renew(&a), 0);
    cr_expect_eq(attr_end(getattr(&a, 1), &got), 0);
    cr_expect_eq(atomic_load(&a.connects), 1);
}

Test(control_centre_restart, stopped_with_work_on_its_way)
{
    Star__EntryReply *r = NULL;
    struct got got;

    mount_start(&b, &cloud, "mnt-2");
    uint64_t ino = file_new(&a, T(CREATE), "x"), plain = file_new(&a, T(MKNOD), "y");
    lookup(&b, "z", &r);
    star__entry_reply__free_unpacked(r, NULL);
    attr_end(getattr(&b, plain), &got);
    atomic_store(&b.silent, true);
    atomic_store(&node.silent, true);
    struct ask *asks[] = {make(&a, T(MKDIR), 1, "z"),     make(&a, T(MKDIR), 1, "z"),
                          setattr(&a, plain, 1 << 0, 1),  setattr(&a, ino, 1 << 3, 1),
                          lock_file(&a, ino, F_RDLCK, 0), lock_file(&b, ino, F_WRLCK, true)};
    nap(100);
    cloud_stop(&cloud);
    cloud_start(&cloud);
    mount_speak(&b);
    atomic_store(&node.silent, false);
    client_reset(node.client);
    for (size_t k = 0; k < 5; k++)
        ask_end(asks[k]);
    mount_stop(&b);
    ask_end(asks[5]);
    cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
}

/* ---- a node that lost power */

static Star__HomedReply *homed(uint64_t after)
{
    Star__Homed body = STAR__HOMED__INIT;
    Star__HomedReply *r = NULL;

    body.after = after;
    cr_assert_eq(ask_reply(ask(node.client, T(HOMED), &body), homed_reply, &r), 0);
    return r;
}

static void copy_line(uint64_t ino, uint64_t cached, uint64_t staged)
{
    Star__Copies body = STAR__COPIES__INIT;
    Star__Copy line = STAR__COPY__INIT, *lines = &line;

    line.ino = ino;
    line.version = 1;
    line.cached = cached;
    line.staged = staged;
    body.n_copies = 1;
    body.copies = &lines;
    cr_assert_eq(ask_end(ask(node.client, T(COPIES), &body)), 0);
}

/* It is told which files the log or a mount knows newer data of than the pool has; what it then
 * says is the truth, and what mounts were told before is recalled. */
Test(control_centre_restart, a_node_lost_what_the_log_knows)
{
    Star__NodeAttrs body = STAR__NODE_ATTRS__INIT;
    Star__HomeAttrs left = STAR__HOME_ATTRS__INIT, *list = &left;
    struct got got;

    file_new(&a, T(MKNOD), "never-written");
    uint64_t x = file_new(&a, T(CREATE), "x");
    uint64_t y = file_new(&a, T(CREATE), "y");
    uint64_t open = file_new(&a, T(CREATE), "z");
    cr_assert_eq(release(&a, x, true, 10, 2), 0);
    cr_assert_eq(release(&a, y, true, 20, 3), 0);
    copy_line(x, 0, 10);
    copy_line(y, 20, 0);
    cr_assert_eq(attr_end(getattr(&a, x), &got), 0);
    cr_assert_eq(got.size, 10);
    mount_forget_recalls(&a);

    Star__HomedReply *r = homed(0);
    cr_expect(r->done);
    cr_assert_eq(r->n_files, 3);
    cr_expect(r->files[0]->ino == x && r->files[0]->version == 2 && r->files[0]->home_epoch == 1);
    cr_expect(r->files[1]->ino == y && r->files[1]->version == 3);
    cr_expect_eq(r->files[2]->ino, open); /* its writer may know more than the log */
    star__homed_reply__free_unpacked(r, NULL);
    r = homed(y);
    cr_expect_eq(r->n_files, 1);
    star__homed_reply__free_unpacked(r, NULL);
    eventually(!ctl_says(&a, "cache", "/y")); /* the answer does not wait for the log */
    cr_expect(ctl_says(&a, "cache", "/x"));

    left.ino = x;
    left.version = 2 + (1ull << 32);
    left.home_epoch = 1;
    body.n_attrs = 1;
    body.attrs = &list;
    body.done = true;
    cr_assert_eq(ask_end(ask(node.client, T(NODE_ATTRS), &body)), 0);
    cr_expect_geq(mount_recalls(&a), 1);
    cr_assert_eq(release(&a, x, true, 30, 4), 0); /* of before: nobody has these bytes */
    cr_assert_eq(attr_end(getattr(&a, x), &got), 0);
    cr_expect_eq(got.size, 0);
    restart();
    cr_assert_eq(attr_end(getattr(&a, x), &got), 0);
    cr_expect_eq(got.size, 0);
}

/* ---- snapshots */

static unsigned snapshots(void)
{
    char path[128];
    struct dirent *e;
    unsigned n = 0;

    snprintf(path, sizeof(path), "%s/snapshots", cloud.dir);
    DIR *d = opendir(path);
    while (d && (e = readdir(d)))
        n += strncmp(e->d_name, "state-", 6) == 0;
    closedir(d);
    return n;
}

/* The mark of a state that was open when the machine went down. */
static void another_boot(void)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/state/mark", cloud.dir);
    int fd = open(path, O_WRONLY);
    cr_assert_geq(fd, 0);
    static const char text[64] = "open 00000000-0000-0000-0000-000000000000\n";
    cr_assert_eq(pwrite(fd, text, sizeof(text), 0), sizeof(text));
    close(fd);
}

static unsigned logged(const char *words)
{
    char path[128], line[512];
    unsigned n = 0;

    snprintf(path, sizeof(path), "%s/log.txt", cloud.dir);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f))
        n += strstr(line, words) != NULL;
    fclose(f);
    return n;
}

static char *names(void)
{
    Star__ReadDir body = STAR__READ_DIR__INIT;
    Star__ReadDirReply *r = NULL;
    char *all = calloc(1, 1 << 20), *at = all;
    bool eof = false;

    body.ino = 1;
    body.max_bytes = 65536;
    while (!eof) {
        cr_assert_eq(ask_reply(ask(a.client, T(READDIR), &body), read_dir_reply, &r), 0);
        for (size_t k = 0; k < r->n_entries; k++) {
            at += sprintf(at, "%.*s %llu\n", (int)r->entries[k]->name.len,
                          (char *)r->entries[k]->name.data, (unsigned long long)r->entries[k]->ino);
            body.cookie = r->entries[k]->cookie;
        }
        eof = r->eof;
        star__read_dir_reply__free_unpacked(r, NULL);
    }
    return all;
}

/* After a crash of the machine the state comes from the newest snapshot and the log behind it. */
Test(control_centre_restart, snapshots)
{
    enum { COUNT = 4000, WINDOW = 8 };
    struct ask *asks[WINDOW] = {0};
    char name[32];

    client_stop(node.client);
    setenv("UMBEL_SNAPSHOT_ENTRIES", "200", 1);
    restart();
    node_start(&node, &cloud, "node-1");
    for (unsigned k = 0; k < COUNT; k++) {
        struct ask **slot = &asks[k % WINDOW];
        if (*slot)
            cr_assert_eq(ask_end(*slot), 0);
        snprintf(name, sizeof(name), "a-name-%u", k);
        *slot = make(&a, k % 3 ? T(MKNOD) : T(MKDIR), 1, name);
    }
    for (unsigned k = 0; k < WINDOW; k++)
        cr_assert_eq(ask_end(asks[k]), 0);
    for (unsigned k = 0; k < COUNT; k += 7) {
        char to[32];
        snprintf(name, sizeof(name), "a-name-%u", k);
        snprintf(to, sizeof(to), "moved-%u", k);
        cr_assert_eq(ask_end(rename_name(&a, name, to)), 0);
    }
    eventually(snapshots() >= 1);
    cr_expect_leq(snapshots(), 3); /* two, and one that is being made */
    char *before = names();
    for (unsigned round = 0; round < 3; round++) {
        cloud_kill(&cloud);
        if (round != 1)
            another_boot();
        cloud_start(&cloud);
        char *after = names();
        cr_expect_str_eq(after, before);
        free(after);
        cr_expect(ctl_says(&a, "status", "inodes 4001\n"));
        cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
    }
    cr_expect_eq(logged("state restored from state-"), 2);
    free(before);
    unsetenv("UMBEL_SNAPSHOT_ENTRIES");
}

static bool set_aside(void)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/state/data.mdb.untrusted", cloud.dir);
    return access(path, F_OK) == 0;
}

static void cannot_start(void)
{
    char text[512] = "";
    int fds[2], status;

    cr_assert_eq(pipe(fds), 0);
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    cloud_exec(&cloud, fds[1]);
    close(fds[1]);
    cr_expect_gt(read(fds[0], text, sizeof(text) - 1), 0);
    cr_expect_str_neq(text, "ready\n");
    close(fds[0]);
    waitpid(cloud.pid, &status, 0);
    cloud.pid = 0;
}

/* What is not trusted is the last that there is if the snapshot turns out to be damaged. */
Test(control_centre_restart, an_untrusted_state_is_kept_until_it_is_replaced)
{
    char from[128], to[128], name[32];

    setenv("UMBEL_SNAPSHOT_ENTRIES", "50", 1);
    restart();
    for (unsigned k = 0; k < 300; k++) {
        snprintf(name, sizeof(name), "name-%u", k);
        cr_assert_eq(make_now(&a, T(MKDIR), name, NULL), 0);
    }
    eventually(snapshots() >= 1);
    char *before = names();
    cloud_kill(&cloud);
    another_boot();
    snprintf(from, sizeof(from), "%s/snapshots", cloud.dir);
    snprintf(to, sizeof(to), "%s/elsewhere", cloud.dir);
    cr_assert_eq(rename(from, to), 0);
    cannot_start();
    cr_expect(set_aside());
    cannot_start();
    cr_expect(set_aside());
    cr_assert_eq(rmdir(from), 0); /* made anew, and empty */
    cr_assert_eq(rename(to, from), 0);
    cloud_start(&cloud);
    cr_expect_not(set_aside());
    char *after = names();
    cr_expect_str_eq(after, before);
    free(after);
    free(before);
    unsetenv("UMBEL_SNAPSHOT_ENTRIES");
}

/* Without a snapshot everything is in the log. */
Test(control_centre_restart, without_its_state)
{
    char command[160];

    uint64_t ino = file_new(&a, T(MKNOD), "x");
    cloud_kill(&cloud);
    snprintf(command, sizeof(command), "rm -r %s/state/*", cloud.dir);
    cr_assert_eq(system(command), 0);
    cloud_start(&cloud);
    Star__EntryReply *r = NULL;
    cr_assert_eq(lookup(&a, "x", &r), 0);
    cr_expect_eq(r->attr->ino, ino);
    star__entry_reply__free_unpacked(r, NULL);
}

/* ---- hostile surroundings */

static int raw_socket(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(to.sun_path, sizeof(to.sun_path), "%s", cloud.address + strlen("unix:"));
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void put_garbage(unsigned seed)
{
    uint8_t bytes[4096];
    struct message m = {.kind = FRAME_REQUEST, .type = (uint16_t)(seed % 120), .id = seed};
    int fd = raw_socket();

    for (size_t k = 0; k < sizeof(bytes); k++)
        bytes[k] = (uint8_t)(rand_r(&seed) >> 8);
    m.body_len = seed % 200;
    if (seed % 3) /* a frame that is right, around a body that is not */
        frame_put_header(&m, bytes);
    if (seed % 7 == 1)
        m.body_len = FRAME_BODY_MAX;
    ssize_t n = send(fd, bytes, seed % 5 ? sizeof(bytes) : 20, MSG_NOSIGNAL);
    cr_expect_gt(n, 0);
    if (seed % 2)
        shutdown(fd, SHUT_WR);
    struct timeval soon = {.tv_usec = 20000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
    n = recv(fd, bytes, sizeof(bytes), 0);
    close(fd);
}

/* Nonsense in well-made frames of a mount that has said HELLO. */
static void ask_nonsense(struct mount *m)
{
    Star__Rename body = STAR__RENAME__INIT;

    body.head = HEAD(m);
    body.parent = 1ull << 63 | 12345;
    body.new_parent = UINT64_MAX;
    body.name = BYTES("..");
    body.new_name = BYTES(".");
    for (uint16_t type = 4; type < 120; type++) {
        if (type == T(BYE) || type == T(RETURN_LEASES))
            continue;
        cr_expect_neq(ask_end(ask(m->client, type, &body)), 1);
    }
}

Test(control_centre_restart, garbage_leaves_it_serving)
{
    for (unsigned seed = 1; seed < 150; seed++)
        put_garbage(seed * 7919);
    ask_nonsense(&a);
    mount_renew(&a);
    cr_expect_eq(make_now(&a, T(MKDIR), "d", NULL), 0);
    cr_expect_not(ctl_says(&a, "metrics", "umbel_garbage_connections_total 0\n"));
    cr_expect_eq(atomic_load(&a.connects), 1);
    cr_expect(ctl_says(&a, "fsck", "problems 0\n"));
}

Test(control_centre_restart, the_disk_under_the_log_is_full)
{
    Star__EntryReply *r = NULL;
    struct got got;

    uint64_t ino = file_new(&a, T(CREATE), "x");
    cloud_kill(&cloud);
    cloud.reserve = UINT64_MAX;
    cloud_start(&cloud);
    cr_expect_eq(make_now(&a, T(MKDIR), "d", NULL), -ENOSPC);
    cr_expect_eq(ask_end(unlink_name(&a, "x")), -ENOSPC);
    cr_expect_eq(lookup(&a, "x", &r), 0);
    star__entry_reply__free_unpacked(r, NULL);
    cr_expect_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_assert_eq(release(&a, ino, true, 10, 2), 0); /* what is closed is remembered */
    nap(100);                                       /* a node would say it again otherwise */
    cr_expect(ctl_says(&a, "health", "ENOSPC"));
    cloud_kill(&cloud);
    cloud.reserve = 0;
    cloud_start(&cloud);
    cr_expect_eq(make_now(&a, T(MKDIR), "d", NULL), 0);
    cr_expect_eq(attr_end(getattr(&a, ino), &got), 0);
    cr_expect_eq(got.size, 10);
}

/* ---- control files */

Test(control_centre_restart, control_files)
{
    Star__ReadDir body = STAR__READ_DIR__INIT;
    Star__ReadDirReply *r = NULL;
    struct got got;

    cr_expect(ctl_says(&a, "status", "cloud " CLOUD_ID "\n"));
    cr_expect(ctl_says(&a, "status", "nodes_here 1\n"));
    cr_expect(ctl_says(&a, "status", "mounts 1\n"));
    cr_expect(ctl_says(&a, "health", "health ok\n"));
    cr_expect(ctl_says(&a, "version", "protocol 1\n"));
    cr_expect(ctl_says(&a, "events", "node-1 is here"));
    cr_expect(ctl_says(&a, "nodes/node-1/status", "state ready\n"));
    cr_expect_eq(ctl_find(&a, "nodes/node-2"), 0);
    cr_expect_eq(ctl_find(&a, "settings/nothing"), 0);
    cr_expect_eq(attr_end(getattr(&a, ctl_find(&a, "ctl")), &got), 0);
    cr_expect_eq(got.mode, S_IFREG | 0200);
    cr_expect_eq(got.lease, STAR__LEASE__LEASE_NONE);
    body.ino = ctl_find(&a, "settings");
    body.max_bytes = 65536;
    cr_assert_eq(ask_reply(ask(a.client, T(CTL_READDIR), &body), read_dir_reply, &r), 0);
    cr_expect_gt(r->n_entries, 5);
    cr_expect(r->eof);
    star__read_dir_reply__free_unpacked(r, NULL);
}

Test(control_centre_restart, settings)
{
    cr_assert_eq(ask_end(ctl_write(&a, "settings/flush_age", " 77 \n")), 0);
    cr_expect(ctl_says(&a, "settings/flush_age", "77\n"));
    cr_expect_eq(ask_end(ctl_write(&a, "settings/flush_age", "soon")), -EINVAL);
    cr_expect(ctl_says(&a, "errors", "flush_age"));
    cr_expect_eq(ask_end(ctl_write(&a, "settings/high_water", "101")), -EINVAL);
    cr_expect_eq(ask_end(ctl_write(&a, "settings/high_water", "")), -EINVAL);
    restart();
    cr_expect(ctl_says(&a, "settings/flush_age", "77\n"));
    cr_expect(ctl_says(&a, "settings/high_water", "90\n"));
}

static unsigned lines_of(const char *path)
{
    char *text = ctl_read(&a, path);
    unsigned n = 0;

    for (const char *p = text; (p = strchr(p, '\n')); p++)
        n++;
    free(text);
    return n;
}

static void many_errors(unsigned from, unsigned to)
{
    char text[32];

    for (unsigned k = from; k < to; k++) {
        snprintf(text, sizeof(text), "burn-%u\n", k);
        cr_assert_eq(ask_end(ctl_write(&a, "ctl", text)), -EINVAL);
    }
}

Test(control_centre_restart, event_limit)
{
    many_errors(0, 30);
    cr_expect_eq(lines_of("errors"), 30);
    cr_assert_eq(ask_end(ctl_write(&a, "settings/event_limit", "12")), 0);
    eventually(lines_of("errors") == 12);
    cr_expect(ctl_says(&a, "errors", "burn-29"));
    cr_expect(ctl_says(&a, "errors", "burn-18"));
    cr_expect_not(ctl_says(&a, "errors", "burn-17"));
    many_errors(30, 37);
    cr_expect_eq(lines_of("errors"), 12);
    cr_expect_not(ctl_says(&a, "errors", "burn-24"));
    cr_assert_eq(ask_end(ctl_write(&a, "settings/event_limit", "8000")), 0);
    nap(400); /* at the next tick */
    many_errors(37, 60);
    cr_expect_eq(lines_of("errors"), 35);
    cr_expect(ctl_says(&a, "errors", "burn-25"));
    cr_expect(ctl_says(&a, "errors", "burn-59"));
}

/* More than a control file can hold: the newest lines, whole. */
Test(control_centre_restart, events_text_is_bounded)
{
    struct events e = {0};
    size_t len, line;

    for (unsigned k = 0; k < 2 * EVENTS_DEFAULT; k++)
        events_add(&e, "test", "number %04u", k);
    char *text = events_text(&e, SIZE_MAX, &len);
    line = len / EVENTS_DEFAULT;
    cr_expect_eq(len, line * EVENTS_DEFAULT);
    cr_expect_not_null(strstr(text, "number 1000\n"));
    free(text);
    text = events_text(&e, 3 * line + line / 2, &len);
    cr_expect_eq(len, 3 * line);
    cr_expect_null(strstr(text, "number 1996"));
    cr_expect_not_null(strstr(text, "number 1997"));
    cr_expect_not_null(strstr(text, "number 1999"));
    free(text);
    events_free(&e);
}

Test(control_centre_restart, commands)
{
    Star__CtlReply *r = NULL;

    file_new(&a, T(MKNOD), "a file");
    cr_expect_eq(ask_end(ctl_write(&a, "ctl", "burn everything\n")), -EINVAL);
    cr_expect(ctl_says(&a, "errors", "'burn' is no command"));
    cr_expect_eq(ask_end(ctl_write(&a, "ctl", "evict\n")), -EINVAL);
    cr_expect_eq(ask_end(ctl_write(&a, "ctl", "flush /no/such file\n")), -ENOENT);
    cr_expect_eq(ask_end(ctl_write(&a, "status", "x")), -EACCES);
    cr_expect_eq(ask_end(ctl_write(&a, "nodes/node-1/ctl", "flush now\n")), -EINVAL);
    cr_assert_eq(ask_reply(ctl_write(&a, "ctl", "flush /a file\n"), ctl_reply, &r), 0);
    cr_expect_str_eq(r->text, "files 3\nbytes 4096\n");
    star__ctl_reply__free_unpacked(r, NULL);
    cr_expect_eq(ask_end(ctl_write(&a, "ctl", "flush")), 0);
    cr_expect_eq(node_count(&node, &node.flushes), 2);
    cr_expect_eq(ask_end(ctl_write(&a, "ctl", "gc\n")), 0);
    client_stop(node.client);
    eventually(ctl_says(&a, "nodes/node-1/status", "here no\n"));
    cr_expect_eq(ask_end(ctl_write(&a, "ctl", "flush")), -EAGAIN);
    cr_expect(ctl_says(&a, "health", "problem node node-1 is away\n"));
    node_start(&node, &cloud, "node-1");
}
