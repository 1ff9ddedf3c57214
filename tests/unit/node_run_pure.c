/* Runs of jobs: what is pure in them. */
#include <criterion/criterion.h>
#include <errno.h>

#include "nodecache/run_private.h"

static void is_words(const char *command, const char *script, unsigned n, const char *const *want)
{
    struct run_argv a;

    cr_assert_eq(run_command_words(command, script != NULL, (const uint8_t *)script,
                                   script ? strlen(script) : 0, &a),
                 0);
    cr_expect_eq(a.n, n, "%s: %u words", command, a.n);
    for (unsigned i = 0; i < n && i < a.n; i++)
        cr_expect_str_eq(a.argv[i], want[i], "%s", command);
    cr_expect_null(a.argv[a.n]);
    run_argv_free(&a);
}
#define WORDS(command, script, ...)                                                                \
    is_words(command, script, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *),         \
             (const char *const[]){__VA_ARGS__})
#define SHELL(command) WORDS(command, NULL, "/bin/sh", "-c", command)

Test(node_run_pure, a_shell_only_where_one_is_needed)
{
    WORDS("/bin/true", NULL, "/bin/true");
    WORDS("  gcc -O2\t-o x  x.c ", NULL, "gcc", "-O2", "-o", "x", "x.c");
    WORDS("make -j2 CC=gcc", NULL, "make", "-j2", "CC=gcc");
    SHELL("CC=gcc make");
    SHELL("exit 3");
    SHELL("echo hello");
    SHELL("cd /x");
    SHELL("a | b");
    SHELL("a $HOME");
    SHELL("ls *.c");
    SHELL("ls ~");
    SHELL("a 'b c'");
    SHELL("a\nb");
    SHELL("# nothing");
}

Test(node_run_pure, scripts)
{
    WORDS("", "#!/bin/bash\n", RUN_SCRIPT);
    WORDS("", "echo hello\n", "/bin/sh", RUN_SCRIPT);
    WORDS("python3 -u", "print()\n", "python3", "-u", RUN_SCRIPT);
    WORDS("X=1 sh", "true\n", "/bin/sh", "-c", "X=1 sh " RUN_SCRIPT);
    struct run_argv a;
    cr_expect_eq(run_command_words("", false, NULL, 0, &a), -EINVAL);
    cr_expect_eq(run_command_words(" \t", false, NULL, 0, &a), -EINVAL);
}

Test(node_run_pure, names)
{
    struct run_key k = {.job = UINT64_MAX, .copy = UINT32_MAX, .attempt = UINT32_MAX}, back;
    char name[RUN_NAME_MAX];
    static const char *const bad[] = {"",       "1",      "1.2",    "1.2.3.4",
                                      "01.2.3", "1.2.3 ", "-1.2.3", "1.2.-3",
                                      "lease",  "1..3",   "+1.2.3", "1.2.4294967296"};

    run_key_name(&k, name);
    cr_expect_eq(run_key_parse(name, &back), 0);
    cr_expect_eq(memcmp(&k, &back, sizeof(k)), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(run_key_parse(bad[i], &back), -EINVAL, "'%s'", bad[i]);
}

Test(node_run_pure, shares_of_a_processor)
{
    uint64_t quota, period;

    run_cgroup_quota(1000, &quota, &period);
    cr_expect(quota == 100000 && period == 100000);
    run_cgroup_quota(2250, &quota, &period);
    cr_expect(quota == 225000 && period == 100000);
    run_cgroup_quota(1, &quota, &period);
    cr_expect(quota == 1000 && period == 1000000, "the kernel's least");
    run_cgroup_quota(1024000, &quota, &period);
    cr_expect_eq(quota, 102400000);
}

Test(node_run_pure, flat_keyed_files)
{
    const char *text = "low 1\noom 2\noom_kill 3\noom_group_kill 4\n";

    cr_expect_eq(run_cgroup_key(text, "low"), 1);
    cr_expect_eq(run_cgroup_key(text, "oom"), 2);
    cr_expect_eq(run_cgroup_key(text, "oom_kill"), 3);
    cr_expect_eq(run_cgroup_key(text, "kill"), 0);
    cr_expect_eq(run_cgroup_key("", "oom"), 0);
    cr_expect_eq(run_cgroup_key("oom", "oom"), 0);
}
