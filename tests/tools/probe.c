/*
 * probe DIR: what applications may ask of a filesystem and a shell cannot: each check works in a
 * folder of its own in DIR. Prints one line per check that fails; exit status 1 if there is one.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PAGE       4096
#define CHECK_SECS 60 /* no check may hang */

/* Ends the check (each runs in a process of its own). */
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s (%s)\n", __LINE__, #condition, strerror(errno));                   \
            fflush(stdout);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#define FAILS(call, error) NEED((errno = 0, (call) < 0) && errno == (error))

static void put(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    NEED(fd >= 0);
    NEED(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    NEED(close(fd) == 0);
}

static bool holds(const char *name, const char *text)
{
    char buf[256] = "";
    int fd = open(name, O_RDONLY);

    NEED(fd >= 0);
    ssize_t n = read(fd, buf, sizeof(buf) - 1);
    NEED(n >= 0 && close(fd) == 0);
    return strcmp(buf, text) == 0;
}

static pid_t child(void (*fn)(void *arg), void *arg)
{
    pid_t pid = fork();

    NEED(pid >= 0);
    if (pid == 0) {
        fn(arg);
        _exit(0);
    }
    return pid;
}

static void joined(pid_t pid)
{
    int status;

    NEED(waitpid(pid, &status, 0) == pid);
    NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- data */

static void write_read(void)
{
    char out[3 * PAGE], in[sizeof(out)];
    int fd = open("f", O_RDWR | O_CREAT | O_EXCL, 0600);

    NEED(fd >= 0);
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (char)(i * 7);
    NEED(pwrite(fd, out, sizeof(out), 1000) == sizeof(out));
    NEED(pread(fd, in, sizeof(in), 1000) == sizeof(in) && memcmp(in, out, sizeof(in)) == 0);
    NEED(pread(fd, in, 1000, 0) == 1000);
    for (int i = 0; i < 1000; i++)
        NEED(in[i] == 0);
    NEED(pread(fd, in, PAGE, 1000 + sizeof(out)) == 0);
    NEED(pread(fd, in, PAGE, 900 + sizeof(out)) == 100);
    FAILS(open("f", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
    FAILS(read(open("f", O_WRONLY), in, 1), EBADF);
}

static void truncation(void)
{
    struct stat st;
    char buf[PAGE];
    int fd = open("f", O_RDWR | O_CREAT, 0600);

    memset(buf, 'x', sizeof(buf));
    NEED(pwrite(fd, buf, PAGE, 0) == PAGE && ftruncate(fd, 100) == 0);
    NEED(fstat(fd, &st) == 0 && st.st_size == 100);
    NEED(ftruncate(fd, PAGE) == 0 && pread(fd, buf, PAGE, 0) == PAGE);
    NEED(buf[99] == 'x');
    for (int i = 100; i < PAGE; i++)
        NEED(buf[i] == 0); /* what was cut off does not come back */
    NEED(truncate("f", 1ll << 40) == 0 && stat("f", &st) == 0 && st.st_size == 1ll << 40);
    NEED(pread(fd, buf, 1, (1ll << 40) - 1) == 1 && buf[0] == 0);
    int other = open("f", O_WRONLY | O_TRUNC);
    NEED(other >= 0 && fstat(fd, &st) == 0 && st.st_size == 0 && pread(fd, buf, 1, 0) == 0);
    FAILS(ftruncate(open("f", O_RDONLY), 0), EINVAL);
}

static void sparse(void)
{
    struct stat st;
    int fd = open("f", O_RDWR | O_CREAT, 0600);
    off_t far = 5ll << 30;

    NEED(pwrite(fd, "begin", 5, 0) == 5 && pwrite(fd, "end", 3, far) == 3);
    NEED(fsync(fd) == 0 && fstat(fd, &st) == 0 && st.st_size == far + 3);
    NEED(st.st_blocks < (64 << 20) / 512); /* holes take no room */
    NEED(lseek(fd, 0, SEEK_DATA) == 0);
    off_t hole = lseek(fd, 0, SEEK_HOLE);
    NEED(hole >= 5 && hole <= far);
    off_t data = lseek(fd, hole, SEEK_DATA);
    NEED(data > hole && data <= far);
    NEED(lseek(fd, far, SEEK_HOLE) == far + 3);
    FAILS(lseek(fd, far + 3, SEEK_DATA), ENXIO);
}

static void allocation(void)
{
    struct stat st;
    char buf[PAGE];
    int fd = open("f", O_RDWR | O_CREAT, 0600);

    memset(buf, 'x', sizeof(buf));
    for (int i = 0; i < 8; i++)
        NEED(write(fd, buf, PAGE) == PAGE);
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, 3 * PAGE) == 0) {
        NEED(pread(fd, buf, PAGE, 3 * PAGE) == PAGE);
        for (int i = 0; i < PAGE; i++)
            NEED(buf[i] == 0);
        NEED(pread(fd, buf, 1, 5 * PAGE) == 1 && buf[0] == 'x');
        NEED(pread(fd, buf, 1, 2 * PAGE - 1) == 1 && buf[0] == 'x');
    } else {
        NEED(errno == EOPNOTSUPP);
    }
    NEED(posix_fallocate(fd, 0, 100 * PAGE) == 0);
    NEED(fstat(fd, &st) == 0 && st.st_size == 100 * PAGE);
    NEED(pread(fd, buf, 1, 99 * PAGE) == 1 && buf[0] == 0);
}

static void append_many(void *arg)
{
    char line[64];
    int fd = open("f", O_WRONLY | O_APPEND);

    NEED(fd >= 0);
    for (int i = 0; i < 500; i++) {
        int n = snprintf(line, sizeof(line), "%c%05d-this-line-is-whole\n", *(char *)arg, i);
        NEED(write(fd, line, (size_t)n) == n);
    }
    NEED(close(fd) == 0);
}

static void appending(void)
{
    char letters[] = "abcd", line[64];
    int next[4] = {0}, number, end;
    pid_t pids[4];

    put("f", "");
    for (int i = 0; i < 4; i++)
        pids[i] = child(append_many, &letters[i]);
    for (int i = 0; i < 4; i++)
        joined(pids[i]);
    FILE *f = fopen("f", "r");
    NEED(f != NULL);
    for (int i = 0; i < 2000; i++) {
        NEED(fgets(line, sizeof(line), f) != NULL);
        char letter;
        NEED(sscanf(line, "%c%05d-this-line-is-whole\n%n", &letter, &number, &end) == 2);
        NEED(letter >= 'a' && letter <= 'd' && number == next[letter - 'a']++);
    }
    NEED(fgets(line, sizeof(line), f) == NULL);
}

static void mapping(void)
{
    int fd = open("f", O_RDWR | O_CREAT, 0600);
    char buf[16] = "";

    NEED(ftruncate(fd, 4 * PAGE) == 0);
    char *map = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(map != MAP_FAILED);
    strcpy(map + PAGE, "by the map");
    NEED(msync(map, 4 * PAGE, MS_SYNC) == 0);
    NEED(pread(fd, buf, 10, PAGE) == 10 && strcmp(buf, "by the map") == 0);
    NEED(pwrite(fd, "by a write", 10, 2 * PAGE) == 10 &&
         strncmp(map + 2 * PAGE, "by a write", 10) == 0);
    NEED(close(fd) == 0); /* a mapping outlives its descriptor */
    strcpy(map + 3 * PAGE, "late");
    NEED(munmap(map, 4 * PAGE) == 0);
    fd = open("f", O_RDONLY);
    NEED(pread(fd, buf, 5, 3 * PAGE) == 5 && strcmp(buf, "late") == 0);
    map = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    NEED(map != MAP_FAILED && strcmp(map + PAGE, "by the map") == 0);
    map[PAGE] = 'X';
    NEED(pread(fd, buf, 1, PAGE) == 1 && buf[0] == 'b');
}

static void copying(void)
{
    char buf[PAGE];
    off_t from = 100, to = 50;

    memset(buf, 'c', sizeof(buf));
    int in = open("in", O_RDWR | O_CREAT, 0600), out = open("out", O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 64; i++)
        NEED(write(in, buf, PAGE) == PAGE);
    ssize_t n = copy_file_range(in, &from, out, &to, 10 * PAGE, 0);
    NEED(n > 0 && from == 100 + n && to == 50 + n);
    NEED(pread(out, buf, 51, 0) == 51 && buf[0] == 0 && buf[49] == 0 && buf[50] == 'c');
}

/* ---- names */

static void unlink_open(void)
{
    char buf[8] = "";
    struct stat st;
    int fd;

    put("f", "alive");
    fd = open("f", O_RDWR);
    NEED(fd >= 0 && unlink("f") == 0);
    FAILS(open("f", O_RDONLY), ENOENT);
    NEED(pread(fd, buf, 5, 0) == 5 && strcmp(buf, "alive") == 0);
    NEED(pwrite(fd, "still", 5, 0) == 5 && pread(fd, buf, 5, 0) == 5 && strcmp(buf, "still") == 0);
    NEED(fstat(fd, &st) == 0 && st.st_nlink == 0);
    put("f", "other");
    NEED(pread(fd, buf, 5, 0) == 5 && strcmp(buf, "still") == 0 && holds("f", "other"));
    NEED(fsync(fd) == 0 && close(fd) == 0);
}

static void renaming(void)
{
    char buf[8] = "";
    int fd;

    put("a", "a");
    put("b", "b");
    fd = open("b", O_RDONLY);
    NEED(rename("a", "b") == 0 && holds("b", "a"));
    NEED(pread(fd, buf, 1, 0) == 1 && buf[0] == 'b'); /* the replaced one lives on */
    FAILS(open("a", O_RDONLY), ENOENT);
    put("c", "c");
    FAILS(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_NOREPLACE), EEXIST);
    NEED(renameat2(AT_FDCWD, "b", AT_FDCWD, "c", RENAME_EXCHANGE) == 0);
    NEED(holds("b", "c") && holds("c", "a"));
    NEED(mkdir("d", 0755) == 0 && mkdir("d/e", 0755) == 0 && mkdir("x", 0755) == 0);
    FAILS(rename("d", "d/e/f"), EINVAL);
    FAILS(rename("x", "d"), ENOTEMPTY);
    FAILS(rename("c", "d"), EISDIR);
    FAILS(rename("d", "c"), ENOTDIR);
    FAILS(rename("none", "y"), ENOENT);
    NEED(rename("d/e", "x") == 0);
    FAILS(rmdir("d/e"), ENOENT);
    NEED(rename("c", "c") == 0 && holds("c", "a"));
}

static void linking(void)
{
    struct stat a, b;
    char target[PATH_MAX];

    put("a", "one");
    NEED(link("a", "b") == 0 && stat("a", &a) == 0 && stat("b", &b) == 0);
    NEED(a.st_ino == b.st_ino && a.st_nlink == 2 && b.st_nlink == 2);
    put("b", "two");
    NEED(holds("a", "two") && unlink("a") == 0 && stat("b", &b) == 0 && b.st_nlink == 1);
    NEED(mkdir("d", 0700) == 0);
    FAILS(link("d", "e"), EPERM);
    FAILS(link("b", "d"), EEXIST);
    NEED(symlink("b", "s") == 0 && holds("s", "two") && readlink("s", target, sizeof(target)) == 1);
    NEED(lstat("s", &a) == 0 && S_ISLNK(a.st_mode) && a.st_size == 1);
    NEED(symlink("loop", "loop") == 0);
    FAILS(open("loop", O_RDONLY), ELOOP);
    FAILS(rmdir("b"), ENOTDIR);
    FAILS(unlink("d"), EISDIR);
    put("d/f", "");
    FAILS(rmdir("d"), ENOTEMPTY);
}

static void names(void)
{
    char name[300];

    memset(name, 'n', sizeof(name));
    name[255] = '\0';
    put(name, "long");
    NEED(holds(name, "long"));
    name[255] = 'n';
    name[256] = '\0';
    FAILS(open(name, O_WRONLY | O_CREAT, 0600), ENAMETOOLONG);
    put("\xff\xfe not utf-8 \n\t\"\\ %s", "odd");
    NEED(holds("\xff\xfe not utf-8 \n\t\"\\ %s", "odd"));
}

static void special(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    struct stat st;

    NEED(mkfifo("fifo", 0640) == 0 && stat("fifo", &st) == 0 && S_ISFIFO(st.st_mode));
    int fd = open("fifo", O_RDWR | O_NONBLOCK);
    char c = 0;
    NEED(fd >= 0 && write(fd, "x", 1) == 1 && read(fd, &c, 1) == 1 && c == 'x');
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    NEED(s >= 0 && bind(s, (struct sockaddr *)&address, sizeof(address)) == 0);
    NEED(stat("socket", &st) == 0 && S_ISSOCK(st.st_mode));
    fd = open(".", O_TMPFILE | O_RDWR, 0600);
    NEED(fd >= 0 || errno == EOPNOTSUPP);
}

/* A listing that goes on while its folder changes: what was there all the time is seen exactly
 * once. */
static void listing(void)
{
    char name[32];
    bool seen[2000] = {false};
    struct dirent *e;
    int n;

    for (int i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "stay-%04d", i);
        put(name, "");
        if (i % 4 == 0) {
            snprintf(name, sizeof(name), "go-%04d", i);
            put(name, "");
        }
    }
    DIR *d = opendir(".");
    NEED(d != NULL);
    for (int i = 0; (e = readdir(d)) != NULL; i++) {
        if (sscanf(e->d_name, "stay-%d", &n) == 1) {
            NEED(n >= 0 && n < 2000 && !seen[n]);
            seen[n] = true;
        }
        if (i < 500) {
            snprintf(name, sizeof(name), "go-%04d", i * 4);
            unlink(name);
            snprintf(name, sizeof(name), "new-%04d", i);
            put(name, "");
        }
    }
    for (int i = 0; i < 2000; i++)
        NEED(seen[i]);
    rewinddir(d);
    NEED((e = readdir(d)) != NULL);
    long place = telldir(d);
    NEED((e = readdir(d)) != NULL);
    snprintf(name, sizeof(name), "%.31s", e->d_name);
    seekdir(d, place);
    NEED((e = readdir(d)) != NULL && strcmp(e->d_name, name) == 0);
}

/* ---- attributes */

static void attributes(void)
{
    const struct timespec times[2] = {{1234567890, 123456789}, {1000000000, 987654321}};
    struct stat st, later;

    put("f", "12345");
    NEED(chmod("f", 04751) == 0 && stat("f", &st) == 0 && (st.st_mode & 07777) == 04751);
    NEED(chown("f", 1234, 5678) == 0 && stat("f", &st) == 0 && st.st_uid == 1234 &&
         st.st_gid == 5678);
    NEED(!(st.st_mode & S_ISUID)); /* a change of owner takes it */
    NEED(utimensat(AT_FDCWD, "f", times, 0) == 0 && stat("f", &st) == 0);
    NEED(st.st_atim.tv_sec == 1234567890 && st.st_atim.tv_nsec == 123456789);
    NEED(st.st_mtim.tv_sec == 1000000000 && st.st_mtim.tv_nsec == 987654321);
    usleep(20000);
    int fd = open("f", O_WRONLY);
    NEED(write(fd, "x", 1) == 1 && fstat(fd, &later) == 0);
    NEED(later.st_mtim.tv_sec > st.st_mtim.tv_sec && later.st_ctim.tv_sec >= st.st_ctim.tv_sec);
    NEED(stat(".", &st) == 0);
    usleep(20000);
    put("g", "");
    NEED(stat(".", &later) == 0);
    NEED(later.st_mtim.tv_sec > st.st_mtim.tv_sec || later.st_mtim.tv_nsec > st.st_mtim.tv_nsec);
    NEED(stat("f", &st) == 0 && st.st_size == 5);
    struct statvfs fs;
    NEED(statvfs(".", &fs) == 0 && fs.f_namemax == 255 && fs.f_blocks > 0 &&
         fs.f_bavail <= fs.f_blocks);
}

static void extended(void)
{
    char value[70000], list[256];

    put("f", "");
    memset(value, 'v', sizeof(value));
    FAILS(getxattr("f", "user.none", value, 10), ENODATA);
    NEED(setxattr("f", "user.a", "1", 1, XATTR_CREATE) == 0);
    FAILS(setxattr("f", "user.a", "2", 1, XATTR_CREATE), EEXIST);
    FAILS(setxattr("f", "user.b", "2", 1, XATTR_REPLACE), ENODATA);
    NEED(setxattr("f", "user.a", "222", 3, XATTR_REPLACE) == 0);
    NEED(getxattr("f", "user.a", NULL, 0) == 3);
    FAILS(getxattr("f", "user.a", list, 1), ERANGE);
    NEED(setxattr("f", "user.big", value, 4000, 0) == 0 &&
         getxattr("f", "user.big", value, sizeof(value)) == 4000);
    FAILS(setxattr("f", "user.huge", value, 65537, 0), E2BIG);
    ssize_t n = listxattr("f", list, sizeof(list));
    NEED(n == sizeof("user.a") + sizeof("user.big"));
    NEED(removexattr("f", "user.a") == 0);
    FAILS(removexattr("f", "user.a"), ENODATA);
    NEED(setxattr("f", "trusted.t", "t", 1, 0) == 0 && getxattr("f", "trusted.t", list, 8) == 1);
}

static void as_nobody(void *arg)
{
    (void)arg;
    NEED(setgid(65534) == 0 && setuid(65534) == 0);
    FAILS(open("secret", O_RDONLY), EACCES);
    FAILS(open("new", O_WRONLY | O_CREAT, 0600), EACCES);
    FAILS(unlink("sticky/f"), EPERM);
    FAILS(chmod("open", 0600), EPERM);
    NEED(open("open", O_RDONLY) >= 0);
    int fd = open("sticky/mine", O_WRONLY | O_CREAT, 0644);
    struct stat st;
    NEED(fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == 65534);
    fd = open("setuid", O_WRONLY);
    NEED(fd >= 0 && write(fd, "x", 1) == 1 && fstat(fd, &st) == 0 && !(st.st_mode & S_ISUID));
}

static void permissions(void)
{
    put("secret", "s");
    put("open", "o");
    put("setuid", "program");
    NEED(chmod("secret", 0600) == 0 && mkdir("sticky", 0777) == 0 && chmod("sticky", 01777) == 0);
    NEED(chmod("setuid", 04777) == 0 && chmod(".", 0755) == 0);
    put("sticky/f", "");
    joined(child(as_nobody, NULL));
    NEED(mkdir("group", 0700) == 0 && chown("group", 0, 4321) == 0 && chmod("group", 02775) == 0);
    NEED(mkdir("group/inner", 0755) == 0);
    struct stat st;
    NEED(stat("group/inner", &st) == 0 && st.st_gid == 4321 && (st.st_mode & S_ISGID));
}

/* ---- locks */

static struct flock range(short type, off_t start, off_t len)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
}

static void meet_lock(void *arg)
{
    struct flock lock = range(F_WRLCK, 0, 10);
    int fd = open("f", O_RDWR);

    (void)arg;
    NEED(fd >= 0 && fcntl(fd, F_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES));
    NEED(fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK && lock.l_pid == getppid());
    NEED(lock.l_start == 5 && lock.l_len == 10);
    lock = range(F_WRLCK, 15, 5);
    NEED(fcntl(fd, F_SETLK, &lock) == 0);
}

static void wait_lock(void *arg)
{
    struct flock lock = range(F_WRLCK, 5, 1);
    int fd = open("f", O_RDWR), *done = arg;

    NEED(fd >= 0 && fcntl(fd, F_SETLKW, &lock) == 0);
    NEED(write(done[1], "x", 1) == 1);
}

static void record_locks(void)
{
    struct flock lock = range(F_WRLCK, 5, 10);
    int fd, done[2];

    put("f", "0123456789012345678901234567890");
    fd = open("f", O_RDWR);
    NEED(fcntl(fd, F_SETLK, &lock) == 0 && pipe(done) == 0);
    joined(child(meet_lock, NULL));
    pid_t pid = child(wait_lock, done);
    struct pollfd p = {.fd = done[0], .events = POLLIN};
    NEED(poll(&p, 1, 300) == 0); /* it waits */
    lock.l_type = F_UNLCK;
    NEED(fcntl(fd, F_SETLK, &lock) == 0 && poll(&p, 1, 20000) == 1);
    joined(pid);
    lock = range(F_WRLCK, 0, 0); /* the child's locks went with it */
    NEED(fcntl(fd, F_SETLK, &lock) == 0);
}

static void meet_flock(void *arg)
{
    int fd = open("f", O_RDONLY);

    (void)arg;
    FAILS(flock(fd, LOCK_SH | LOCK_NB), EWOULDBLOCK);
}

#define FLOCK_ROUNDS 200

static void file_locks(void)
{
    int fd, other;

    put("f", "");
    fd = open("f", O_RDONLY);
    NEED(flock(fd, LOCK_EX) == 0);
    joined(child(meet_flock, NULL));
    other = open("f", O_RDONLY);
    FAILS(flock(other, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    NEED(close(fd) == 0 && flock(other, LOCK_EX | LOCK_NB) == 0);
    close(other);
    /* The kernel does not wait for the end of a lock: so often that one is overtaken. */
    for (int round = 0; round < FLOCK_ROUNDS; round++) {
        fd = open("f", O_RDONLY);
        NEED(flock(fd, LOCK_EX) == 0);
        other = open("f", O_RDONLY);
        NEED(close(fd) == 0 && flock(other, LOCK_EX | LOCK_NB) == 0);
        close(other);
    }
}

static void ignore_signal(int signal)
{
    (void)signal;
}

/* A wait for a lock ends by a signal, and leaves no lock behind. */
static void interrupted(void *arg)
{
    struct sigaction action = {.sa_handler = ignore_signal};
    struct flock lock = range(F_WRLCK, 0, 1);
    int fd = open("f", O_RDWR);

    (void)arg;
    NEED(sigaction(SIGALRM, &action, NULL) == 0);
    alarm(1);
    FAILS(fcntl(fd, F_SETLKW, &lock), EINTR);
}

static void interrupts(void)
{
    struct flock lock = range(F_WRLCK, 0, 1);
    int fd;

    put("f", "x");
    fd = open("f", O_RDWR);
    NEED(fcntl(fd, F_SETLK, &lock) == 0);
    joined(child(interrupted, NULL));
    lock.l_type = F_UNLCK;
    NEED(fcntl(fd, F_SETLK, &lock) == 0);
    lock.l_type = F_WRLCK;
    NEED(fcntl(fd, F_SETLK, &lock) == 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} checks[] = {
    {"write-read", write_read},
    {"truncation", truncation},
    {"sparse", sparse},
    {"allocation", allocation},
    {"appending", appending},
    {"mapping", mapping},
    {"copying", copying},
    {"unlink-open", unlink_open},
    {"renaming", renaming},
    {"linking", linking},
    {"names", names},
    {"special", special},
    {"listing", listing},
    {"attributes", attributes},
    {"extended", extended},
    {"permissions", permissions},
    {"record-locks", record_locks},
    {"file-locks", file_locks},
    {"interrupts", interrupts},
};

static bool passes(const char *dir, size_t i)
{
    char path[PATH_MAX];
    int status;

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        printf("%s: ", checks[i].name);
        umask(022);
        alarm(CHECK_SECS);
        snprintf(path, sizeof(path), "%s/%s", dir, checks[i].name);
        NEED(mkdir(path, 0755) == 0 && chdir(path) == 0);
        checks[i].run();
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return false;
    if (WIFSIGNALED(status))
        printf("%s: ended by signal %d\n", checks[i].name, WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    unsigned failed = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: probe DIR\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
        failed += !passes(argv[1], i);
    if (failed > 0)
        printf("%u checks failed\n", failed);
    return failed > 0;
}
