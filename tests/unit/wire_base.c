/* Addresses, and what a daemon needs around its work. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/wire/address.h"
#include "control/wire/awake.h"
#include "control/wire/clock.h"
#include "control/wire/daemon.h"
#include "control/wire/fault.h"
#include "control/wire/log.h"

static char folder[64];

static void make_folder(void)
{
    snprintf(folder, sizeof(folder), "/tmp/umbel-wire-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(wire_base, .init = make_folder, .fini = remove_folder);

/* ---- addresses */

static void talk(const char *address)
{
    struct listener l;
    char text[8] = "";
    struct stat st;
    cr_assert_eq(address_listen(address, &l), 0);
    cr_assert_eq(stat(address + 5, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    int fd = address_connect(address);
    cr_assert_geq(fd, 0);
    int server = accept4(l.fd, NULL, NULL, 0);
    cr_assert_geq(server, 0);
    uid_t uid;
    gid_t gid;
    pid_t pid;
    cr_assert_eq(address_peer(server, &uid, &gid, &pid), 0);
    cr_assert_eq(pid, getpid());
    cr_assert_eq(write(fd, "hello", 5), 5);
    cr_assert_eq(read(server, text, sizeof(text)), 5);
    close(server);
    close(fd);
    address_close(address, &l);
    cr_assert_eq(access(address + 5, F_OK), -1);
}

Test(wire_base, short_and_long_paths)
{
    char address[600];
    mode_t old = umask(0);
    snprintf(address, sizeof(address), "unix:%s/socket", folder);
    talk(address);
    size_t at = (size_t)snprintf(address, sizeof(address), "unix:%s", folder);
    for (int i = 0; i < 4; i++) { /* far longer than sun_path */
        at += (size_t)snprintf(address + at, sizeof(address) - at, "/%0*d", 100, i);
        cr_assert_eq(mkdir(address + 5, 0700), 0);
    }
    snprintf(address + at, sizeof(address) - at, "/control-1.sock");
    talk(address);
    snprintf(address + at, sizeof(address) - at, "/%0*d", 120, 1);
    struct listener l;
    cr_assert_eq(address_listen(address, &l), -ENAMETOOLONG);
    umask(old);
}

Test(wire_base, stale_and_live_sockets)
{
    char address[128];
    struct listener first, second;
    snprintf(address, sizeof(address), "unix:%s/socket", folder);
    cr_assert_eq(address_connect(address), -ENOENT);
    cr_assert_eq(address_listen(address, &first), 0);
    cr_assert_eq(address_listen(address, &second), -EADDRINUSE);
    close(first.fd); /* as after a SIGKILL: the file stays */
    cr_assert_eq(address_connect(address), -ECONNREFUSED);
    usleep(20000); /* file times may be as coarse as the kernel's tick */
    cr_assert_eq(address_listen(address, &second), 0);
    first.fd = dup(second.fd);
    address_close(address,
                  &first); /* the late end of the first must not remove the second's file */
    int fd = address_connect(address);
    cr_assert_geq(fd, 0);
    close(fd);
    address_close(address, &second);

    fd = open(address + 5, O_CREAT | O_WRONLY, 0600);
    close(fd);
    cr_assert_eq(address_listen(address, &second), -EADDRINUSE,
                 "a file of somebody is not removed");
}

Test(wire_base, bad_addresses)
{
    struct listener l;
    static const char *const bad[] = {"",     "unix:", "unix:/", "unix:relative", "tcp://host:1",
                                      "/path"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_eq(address_check(bad[i]), -EINVAL, "%s", bad[i]);
        cr_assert_eq(address_connect(bad[i]), -EINVAL);
        cr_assert_eq(address_listen(bad[i], &l), -EINVAL);
    }
    cr_assert_eq(address_check(NULL), -EINVAL);
    cr_assert_eq(address_listen("unix:/no/such/folder/socket", &l), -ENOENT);
}

/* ---- daemons */

Test(wire_base, ready)
{
    int fds[2];
    char text[2048];
    cr_assert_eq(pipe(fds), 0);
    daemon_ready(fds[1], NULL);
    ssize_t n = read(fds[0], text, sizeof(text));
    cr_assert(n == 6 && memcmp(text, "ready\n", 6) == 0);
    cr_assert_eq(read(fds[0], text, sizeof(text)), 0, "it was closed");
    close(fds[0]);

    cr_assert_eq(pipe(fds), 0);
    daemon_ready(fds[1], "no such pool");
    n = read(fds[0], text, sizeof(text));
    cr_assert(n == 20 && memcmp(text, "error: no such pool\n", 20) == 0);
    close(fds[0]);
    daemon_ready(-1, NULL);
}

Test(wire_base, pid_file)
{
    char path[128], text[32] = "";
    snprintf(path, sizeof(path), "%s/node-1.pid", folder);
    cr_assert_eq(daemon_pid_write(path), 0);
    FILE *f = fopen(path, "r");
    cr_assert_not_null(fgets(text, sizeof(text), f));
    fclose(f);
    cr_assert_eq(atoi(text), getpid());
    daemon_pid_remove(path);
    cr_assert_eq(access(path, F_OK), -1);

    f = fopen(path, "w");
    fputs("1\n", f);
    fclose(f);
    daemon_pid_remove(path);
    cr_assert_eq(access(path, F_OK), 0, "another's stays");
    cr_assert_eq(daemon_pid_write("/no/such/folder/x.pid"), -ENOENT);
    cr_assert_eq(daemon_pid_write(NULL), 0);
}

Test(wire_base, stop_signals)
{
    int fds[2];
    char byte;
    cr_assert_eq(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (daemon_start() == 0)
            daemon_ready(dup(fds[1]), NULL);
        raise(SIGPIPE);
        _exit(daemon_wait_for_stop() == SIGTERM ? 7 : 1);
    }
    cr_assert_eq(read(fds[0], &byte, 1), 1);
    kill(pid, SIGTERM);
    int status;
    waitpid(pid, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    close(fds[0]);
    close(fds[1]);
}

/* ---- log */

Test(wire_base, log_lines)
{
    int fds[2], saved = dup(STDERR_FILENO);
    char text[8192];
    char longer[5000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    cr_assert_eq(pipe(fds), 0);
    dup2(fds[1], STDERR_FILENO);
    log_start("node-7", LOG_LEVEL_INFO);
    errno = ENOSPC;
    log_error("name %s: %m", "a\nb");
    cr_assert_eq(errno, ENOSPC);
    log_debug("not shown");
    log_info("%s", longer);
    dup2(saved, STDERR_FILENO);
    close(fds[1]);
    ssize_t n = read(fds[0], text, sizeof(text) - 1);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    char *end = strchr(text, '\n');
    cr_assert_not_null(end);
    *end = '\0';
    cr_assert_str_eq(text + 24, " node-7 error: name a b: No space left on device");
    cr_assert(text[4] == '-' && text[10] == 'T' && text[19] == '.' && text[23] == 'Z');
    cr_assert_eq(strchr(end + 1, '\n')[1], '\0', "one more line, cut");
    close(fds[0]);
    close(saved);
}

/* ---- the rest */

Test(wire_base, clocks_and_ids)
{
    char a[37], b[37];
    cr_assert_eq(clock_boot_id(a), 0);
    cr_assert_eq(clock_boot_id(b), 0);
    cr_assert_eq(strlen(a), 36);
    cr_assert_str_eq(a, b);
    int64_t before = clock_boot_ns();
    cr_assert_leq(before / 1000000, clock_boot_ms());
    cr_assert_neq(random_id(), random_id());
    cr_assert_gt(clock_real().tv_sec, 1700000000);
}

/* Many requests hold the processors awake, and their end lets go. */
Test(wire_base, awake)
{
    struct awake *a;
    int err = awake_start(&a);
    if (err) /* not root, or no such device: all of it must be harmless */
        cr_assert_null(a);
    for (int i = 0; i < 200 && (!awake_holds(a) || i < 20); i++) {
        for (int k = 0; k < 100; k++)
            awake_touch(a);
        usleep(5000);
    }
    cr_assert(err || awake_holds(a));
    for (int i = 0; i < 400 && awake_holds(a); i++)
        usleep(5000);
    cr_assert_not(awake_holds(a));
    awake_touch(a); /* once from rest */
    awake_stop(a);
}

#ifdef UMBEL_FAULTS
Test(wire_base, faults)
{
    char path[128];
    setenv("UMBEL_FAULT", "a=ENOSPC@3,b=EIO,c=5@2+", 1);
    cr_assert_eq(fault("a"), 0);
    cr_assert_eq(fault("a"), 0);
    cr_assert_eq(fault("a"), -ENOSPC);
    cr_assert_eq(fault("a"), 0);
    cr_assert_eq(fault("b"), -EIO);
    cr_assert_eq(fault("b"), -EIO);
    cr_assert_eq(fault("c"), 0);
    cr_assert_eq(fault("c"), -5);
    cr_assert_eq(fault("c"), -5);
    cr_assert_eq(fault("d"), 0);

    snprintf(path, sizeof(path), "%s/faults", folder);
    setenv("UMBEL_FAULT_FILE", path, 1);
    cr_assert_eq(fault("b"), 0, "no file: nothing is armed");
    FILE *f = fopen(path, "w");
    fputs("x=EDQUOT\ny=KILL\n", f);
    fclose(f);
    cr_assert_eq(fault("x"), -EDQUOT);
    pid_t pid = fork();
    if (pid == 0) {
        fault("y");
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    unlink(path);
    cr_assert_eq(fault("x"), 0);
}
#endif

Test(clock, another_machines_clock_is_told_from_a_slow_answer)
{
    const int64_t hour = 3600 * 1000000000ll;

    cr_assert_eq(clock_ahead_ns(1000, 1400, 1000), 0);
    cr_assert_eq(clock_ahead_ns(1000, 1400, 1400), 0);
    cr_assert_eq(clock_ahead_ns(1000, 1400, 1200 + hour), hour);
    cr_assert_eq(clock_ahead_ns(1000, 1400, 1200 - hour), -hour);
    cr_assert_eq(clock_ahead_ns(1000, 1000 + 2 * hour, 1000 + hour), 0, "it took that long");
    /* Never further off than the answer took. */
    cr_assert_eq(clock_ahead_ns(1000, 1400, 1500), 300);
}
