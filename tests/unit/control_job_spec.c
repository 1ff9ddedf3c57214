/* Specs of jobs: what is taken, what is refused, and what the refusals say. */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/job_spec.h"

static int parse(const char *text, struct job_spec *s, char why[JOB_SPEC_WHY])
{
    return job_spec_parse(text, strlen(text), s, why);
}

static void refused(const char *text, const char *wanted)
{
    char why[JOB_SPEC_WHY];
    struct job_spec s;

    cr_assert_eq(parse(text, &s, why), -EINVAL, "'%s' was taken", text);
    cr_assert_str_eq(why, wanted);
    cr_assert_null(s.own);
}

/* As the value of `key`. */
static void value_refused(const char *key, const char *value, const char *wanted)
{
    char text[512], why[JOB_SPEC_WHY];

    snprintf(text, sizeof(text), "command = true\n%s = %s\n", key, value);
    snprintf(why, sizeof(why), "line 2: %s: %s", key, wanted);
    refused(text, why);
}

static struct job_spec taken(const char *text)
{
    char why[JOB_SPEC_WHY];
    struct job_spec s;

    cr_assert_eq(parse(text, &s, why), 0, "%s", why);
    cr_assert_str_empty(why);
    return s;
}

static struct job_spec value_taken(const char *key, const char *value)
{
    char text[512];

    snprintf(text, sizeof(text), "command = true\n%s = %s\n", key, value);
    return taken(text);
}

Test(job_spec, the_least_gets_the_defaults)
{
    struct job_spec s = taken("command = echo a = b # c");

    cr_assert_str_eq(s.command, "echo a = b # c");
    cr_assert_str_eq(s.workdir, "/");
    cr_assert_str_empty(s.name);
    cr_assert_str_empty(s.script);
    cr_assert_str_empty(s.input);
    cr_assert_str_empty(s.node);
    cr_assert_eq(s.milli_cpus, 1000);
    cr_assert_eq(s.memory, 256u << 20);
    cr_assert_eq(s.time_s, 86400);
    cr_assert_eq(s.copies, 1);
    cr_assert_eq(s.retries + s.env_n + s.after_n + s.script_len, 0);
    cr_assert_eq(s.priority, 0);
    cr_assert_not(s.array);
    cr_assert_eq(job_spec_jobs(&s), 1);
    job_spec_free(&s);
}

Test(job_spec, every_key)
{
    struct job_spec s = taken(
        "# all of it\n\n  name =\ta job  \ncommand=python3\r\nworkdir = /data/runs\n"
        "   # indented\ncpus = 2.25\nmemory = 2G\ntime = 90\ncopies = 5\nreliability = high\n"
        "after = 42 57-99\nafter = 3,4\nretries = 7\nenv = A=1\nenv = B=x = y\nenv = C=\n"
        "input = in.txt\noutput = /out/o..%c-%a\nerror = e%j.%c\narray = 1-10\npriority = -5\n"
        "%%  \n#!/bin/sh\r\necho %%\n%%\n");

    cr_assert_str_eq(s.name, "a job");
    cr_assert_str_eq(s.command, "python3");
    cr_assert_str_eq(s.workdir, "/data/runs");
    cr_assert_eq(s.milli_cpus, 2250);
    cr_assert_eq(s.memory, 2ull << 30);
    cr_assert_eq(s.time_s, 90);
    cr_assert_eq(s.copies, 5);
    cr_assert_eq(s.retries, 7);
    cr_assert_eq(s.env_n, 3);
    cr_assert_str_eq(s.env[0], "A=1");
    cr_assert_str_eq(s.env[1], "B=x = y");
    cr_assert_str_eq(s.env[2], "C=");
    cr_assert_str_eq(s.input, "in.txt");
    cr_assert_eq(s.inputs_n, 1);
    cr_assert_str_eq(s.output, "/out/o..%c-%a");
    cr_assert_str_eq(s.error, "e%j.%c");
    cr_assert_eq(s.priority, -5);
    cr_assert(s.array);
    cr_assert_eq(s.array_first, 1);
    cr_assert_eq(s.array_last, 10);
    cr_assert_eq(job_spec_jobs(&s), 10);
    cr_assert_str_eq(s.script, "#!/bin/sh\r\necho %%\n%%\n", "a script is left as it is");
    cr_assert_eq(s.script_len, strlen(s.script));
    cr_assert_eq(s.after_n, 3);
    cr_assert_eq(s.after[0].first, 3);
    cr_assert_eq(s.after[0].last, 4);
    cr_assert_eq(s.after[1].first, 42);
    cr_assert_eq(s.after[2].last, 99);
    job_spec_free(&s);
}

Test(job_spec, script_alone_and_line_ends)
{
    struct job_spec s = taken("\xef\xbb\xbfname = x\r\n%%\r\n#!/bin/sh\r\necho a\rb\r\n");

    cr_assert_str_eq(s.name, "x", "what editors put before a text is no key");
    cr_assert_str_eq(s.script, "#!/bin/sh\necho a\rb\n", "CR LF as in the rest of the text");
    cr_assert_eq(s.script_len, strlen(s.script));
    cr_assert_str_empty(s.command);
    job_spec_free(&s);
    refused("%%\n", "line 1: there is no script behind '%%'");
    refused("%%", "line 1: there is no script behind '%%'");
    refused("%%\n \r\n", "line 1: there is no script behind '%%'");
}

Test(job_spec, nothing_to_run)
{
    const char *why =
        "there is nothing to run: give 'command = ...', or a script after a line '%%'";

    refused("", why);
    refused("# only a comment", why);
    refused("name = x\n\n", why);
}

Test(job_spec, unknown_keys_name_the_nearest)
{
    refused("command = a\n\ncpu = 1", "line 3: unknown key 'cpu': did you mean 'cpus'?");
    refused("mem = 1G", "line 1: unknown key 'mem': did you mean 'memory'?");
    refused("CPUS = 1", "line 1: unknown key 'CPUS': did you mean 'cpus'?");
    refused("worKdri = 1", "line 1: unknown key 'worKdri': did you mean 'workdir'?");
    refused("z = 1",
            "line 1: unknown key 'z': known are name, command, workdir, cpus, memory, time, "
            "reliability, copies, after, retries, env, input, output, error, node, array, "
            "priority");
    refused("e\x01\xffv\"x = 1", "line 1: unknown key 'e??v\"x': did you mean 'env'?");
}

Test(job_spec, lines_that_are_none)
{
    refused("# x\necho hello\n",
            "line 2: 'echo hello' is no line 'key = value' (a script follows a line '%%')");
    refused("= 1", "line 1: '= 1' is no line 'key = value' (a script follows a line '%%')");
    refused("command = a\rname = b",
            "line 1: command: there is a control character (byte 13) in the value");
    refused("command = a\n%%%\n",
            "line 2: '%%%' is no line 'key = value' (a script follows a line '%%')");
}

Test(job_spec, twice)
{
    refused("name = a\ncommand = b\nname = a",
            "line 3: name: given already in line 1: leave one out");
    refused("env = A=1\nenv = AB=1\nenv = A=2", "line 3: env: 'A=2': that variable is set already");
}

Test(job_spec, a_nul_is_refused_wherever_it_is)
{
    static const char in_key[] = "command = a\nna\0me = b\n", in_script[] = "%%\na\nb\0";
    char why[JOB_SPEC_WHY];
    struct job_spec s;

    cr_assert_eq(job_spec_parse(in_key, sizeof(in_key) - 1, &s, why), -EINVAL);
    cr_assert_str_eq(why, "line 2: there is a NUL byte: a spec is plain text");
    cr_assert_eq(job_spec_parse(in_script, sizeof(in_script) - 1, &s, why), -EINVAL);
    cr_assert_str_eq(why, "line 3: there is a NUL byte: a spec is plain text");
}

Test(job_spec, too_long)
{
    char *text = malloc(JOB_SPEC_MAX + 1), why[JOB_SPEC_WHY];
    struct job_spec s;

    memset(text, 'x', JOB_SPEC_MAX + 1);
    memcpy(text, "%%\n", 3);
    cr_assert_eq(job_spec_parse(text, JOB_SPEC_MAX + 1, &s, why), -EFBIG);
    cr_assert_str_eq(why, "the spec is longer than 1 MiB: put the data into a file of the cloud");
    cr_assert_eq(job_spec_parse(text, JOB_SPEC_MAX, &s, why), 0);
    cr_assert_eq(s.script_len, JOB_SPEC_MAX - 3);
    job_spec_free(&s);
    memset(text, 'x', JOB_SPEC_MAX);
    cr_assert_eq(job_spec_parse(text, JOB_SPEC_MAX, &s, why), -EINVAL);
    cr_assert_str_eq(why, "line 1: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...' is no line 'key = "
                          "value' (a script follows a line '%%')");
    memcpy(text, "command = ", 10);
    cr_assert_eq(job_spec_parse(text, JOB_SPEC_MAX, &s, why), -EINVAL);
    cr_assert_str_eq(why, "line 1: command: longer than 130972 bytes: put it into a script after a "
                          "line '%%'");
    free(text);
}

Test(job_spec, names)
{
    char name[80];

    memset(name, 'n', sizeof(name));
    name[64] = '\0';
    struct job_spec s = value_taken("name", name);
    cr_assert_str_eq(s.name, name);
    job_spec_free(&s);
    name[64] = 'n';
    name[65] = '\0';
    value_refused("name", name, "longer than 64 characters");
    value_refused("name", "na\xc3\xafve", "only printable ASCII characters can be in it");
    value_refused("name", "", "there is no value: give one, or leave the line out");
}

Test(job_spec, cpus)
{
    static const struct {
        const char *text;
        uint32_t milli;
    } good[] = {{"1", 1000},           {"0.5", 500},   {"0.001", 1}, {"1024", 1024000},
                {"1024.000", 1024000}, {"2.25", 2250}, {"007", 7000}};
    static const char *const bad[] = {"x", "-1", ".5", "1.", "0.0005", "1e3", "1,5", "0x2", "1 2"};
    static const char *const out[] = {
        "0", "0.000", "1024.001", "1025", "18446744073709551616", "18446744073709551615.9"};
    char why[JOB_SPEC_WHY];

    for (size_t n = 0; n < sizeof(good) / sizeof(good[0]); n++) {
        struct job_spec s = value_taken("cpus", good[n].text);
        cr_assert_eq(s.milli_cpus, good[n].milli, "%s", good[n].text);
        job_spec_free(&s);
    }
    for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        snprintf(why, sizeof(why), "'%s' is no number of processors: write 2, 0.5 or 1.125",
                 bad[n]);
        value_refused("cpus", bad[n], why);
    }
    for (size_t n = 0; n < sizeof(out) / sizeof(out[0]); n++) {
        snprintf(why, sizeof(why), "%s is out of bounds: give 0.001 to 1024", out[n]);
        value_refused("cpus", out[n], why);
    }
}

Test(job_spec, memory)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"512M", 512ull << 20}, {"2g", 2ull << 30},   {"4MiB", 4ull << 20},
                {"1GB", 1ull << 30},    {"1T", 1ull << 40},   {"4194304", 4ull << 20},
                {"4096k", 4ull << 20},  {"1024T", 1ull << 50}};
    static const char *const bad[] = {"M", "1.5G", "1X", "1MM", "-1G", "1 G", "1GiBB"};
    static const char *const out[] = {
        "4194303", "4", "1025T", "99999999999999999999", "18446744073709551615T", "0"};
    char why[JOB_SPEC_WHY];

    for (size_t n = 0; n < sizeof(good) / sizeof(good[0]); n++) {
        struct job_spec s = value_taken("memory", good[n].text);
        cr_assert_eq(s.memory, good[n].bytes, "%s", good[n].text);
        job_spec_free(&s);
    }
    for (size_t n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        snprintf(why, sizeof(why), "'%s' is no size: write 512M or 2G, or bytes without a unit",
                 bad[n]);
        value_refused("memory", bad[n], why);
    }
    for (size_t n = 0; n < sizeof(out) / sizeof(out[0]); n++) {
        snprintf(why, sizeof(why), "%s is out of bounds: give 4M to 1024T", out[n]);
        value_refused("memory", out[n], why);
    }
}

Test(job_spec, time)
{
    static const struct {
        const char *text;
        uint32_t seconds;
    } good[] = {{"90", 90},   {"30s", 30},   {"10m", 600},
                {"2h", 7200}, {"1d", 86400}, {"30d", 2592000}};
    static const char *const out[] = {"0", "31d", "2592001", "18446744073709551615d"};
    char why[JOB_SPEC_WHY];

    for (size_t n = 0; n < sizeof(good) / sizeof(good[0]); n++) {
        struct job_spec s = value_taken("time", good[n].text);
        cr_assert_eq(s.time_s, good[n].seconds, "%s", good[n].text);
        job_spec_free(&s);
    }
    for (size_t n = 0; n < sizeof(out) / sizeof(out[0]); n++) {
        snprintf(why, sizeof(why), "%s is out of bounds: give 1s to 30d", out[n]);
        value_refused("time", out[n], why);
    }
    value_refused("time", "10:00", "'10:00' is no time: write 90 (seconds), 30s, 10m, 2h or 1d");
    value_refused("time", "1h30m", "'1h30m' is no time: write 90 (seconds), 30s, 10m, 2h or 1d");
}

Test(job_spec, small_numbers)
{
    struct job_spec s = value_taken("priority", "+1000");

    cr_assert_eq(s.priority, 1000);
    job_spec_free(&s);
    s = value_taken("priority", "-1000");
    cr_assert_eq(s.priority, -1000);
    job_spec_free(&s);
    value_refused("priority", "-1001",
                  "'-1001' is no priority: give a whole number from -1000 to 1000");
    value_refused("priority", "-", "'-' is no priority: give a whole number from -1000 to 1000");
    value_refused("retries", "101", "101 is out of bounds: give a number from 0 to 100");
    value_refused("retries", "-1", "'-1' is no whole number: give one from 0 to 100");
    value_refused("copies", "0", "0 is out of bounds: give a number from 1 to 7");
    value_refused("copies", "8", "8 is out of bounds: give a number from 1 to 7");
    value_refused("copies", "4294967297", "4294967297 is out of bounds: give a number from 1 to 7");
}

Test(job_spec, reliability_and_copies)
{
    struct job_spec s = value_taken("reliability", "high");

    cr_assert_eq(s.copies, 3);
    job_spec_free(&s);
    s = value_taken("reliability", "normal\ncopies = 1");
    cr_assert_eq(s.copies, 1);
    job_spec_free(&s);
    s = value_taken("copies", "2");
    cr_assert_eq(s.copies, 2);
    job_spec_free(&s);
    refused("command = a\ncopies = 2\nreliability = high",
            "reliability = high needs copies of 3 or more, or none given");
    refused("command = a\ncopies = 2\nreliability = normal",
            "reliability = normal is one copy: leave out copies, or this");
    refused("command = a\nnode = n\nreliability = high",
            "copies run on different nodes: leave out node, or copies");
    value_refused("reliability", "High", "'High' is neither normal nor high");
}

Test(job_spec, arrays)
{
    struct job_spec s = value_taken("array", "100");

    cr_assert_eq(s.array_first, 0);
    cr_assert_eq(s.array_last, 99);
    cr_assert_eq(job_spec_jobs(&s), 100);
    job_spec_free(&s);
    s = value_taken("array", "1");
    cr_assert(s.array, "an array of one is one");
    cr_assert_eq(job_spec_jobs(&s), 1);
    job_spec_free(&s);
    s = value_taken("array", "999999999-999999999");
    cr_assert_eq(job_spec_jobs(&s), 1);
    job_spec_free(&s);
    s = value_taken("array", "100000");
    cr_assert_eq(job_spec_jobs(&s), 100000);
    job_spec_free(&s);
    value_refused("array", "0", "an array of no jobs: give 1 or more");
    value_refused("array", "9-3", "9-3 is upside down: the first index comes first");
    value_refused("array", "1-", "'1-' is no array: write 100 (jobs, from 0 on) or 1-100");
    value_refused("array", "1-2-3", "'1-2-3' is no array: write 100 (jobs, from 0 on) or 1-100");
    value_refused("array", "100001",
                  "100001 is too much: at most 100000 jobs, and no index beyond 999999999");
    value_refused("array", "0-99999999999999999999",
                  "0-99999999999999999999 is too much: at most 100000 jobs, and no index beyond "
                  "999999999");
    value_refused("array", "1000000000-1000000000",
                  "1000000000-1000000000 is too much: at most 100000 jobs, and no index beyond "
                  "999999999");
}

Test(job_spec, after_is_put_in_order)
{
    struct job_spec s = taken("command = a\nafter = 9-12 1 5 3\nafter = 2, 13-20, 10-11 ,30");

    cr_assert_eq(s.after_n, 4);
    cr_assert_eq(s.after[0].first, 1);
    cr_assert_eq(s.after[0].last, 3);
    cr_assert_eq(s.after[1].first, 5);
    cr_assert_eq(s.after[1].last, 5);
    cr_assert_eq(s.after[2].first, 9);
    cr_assert_eq(s.after[2].last, 20);
    cr_assert_eq(s.after[2].line, 3, "the line that names its last");
    cr_assert_eq(s.after[3].first, 30);
    job_spec_free(&s);
}

/* Against a set of flags, which is surely right. */
Test(job_spec, after_whatever_the_order)
{
    unsigned seed = 1;

    for (int round = 0; round < 200; round++) {
        char text[1024] = "command = a\nafter =";
        bool set[70] = {false};
        size_t at = strlen(text);
        for (int n = 0; n < 12; n++) {
            unsigned first = 1 + (unsigned)rand_r(&seed) % 60,
                     last = first + (unsigned)rand_r(&seed) % 5;
            at += (size_t)snprintf(text + at, sizeof(text) - at, " %u-%u", first, last);
            for (unsigned k = first; k <= last; k++)
                set[k] = true;
        }
        struct job_spec s = taken(text);
        for (size_t n = 0; n < s.after_n; n++) {
            cr_assert(n == 0 || s.after[n].first > s.after[n - 1].last + 1);
            for (uint64_t k = s.after[n].first; k <= s.after[n].last; k++) {
                cr_assert(set[k]);
                set[k] = false;
            }
        }
        for (size_t k = 0; k < 70; k++)
            cr_assert_not(set[k]);
        job_spec_free(&s);
    }
}

Test(job_spec, after_refused)
{
    char many[8192] = "command = a\nafter =", why[JOB_SPEC_WHY];
    struct job_spec s;

    value_refused("after", "x", "'x' is no number of a job: write 42 or 42 57-99");
    value_refused("after", "1 2x", "'2x' is no number of a job: write 42 or 42 57-99");
    value_refused("after", "1--2", "'1--2' is no number of a job: write 42 or 42 57-99");
    value_refused("after", "0",
                  "'0': numbers of jobs begin with 1, the lower comes first, and there "
                  "are at most 100000 in all");
    value_refused(
        "after", "1 18446744073709551615",
        "'18446744073709551615': numbers of jobs begin with 1, the lower comes first, and "
        "there are at most 100000 in all");
    value_refused("after", "9-8",
                  "'9-8': numbers of jobs begin with 1, the lower comes first, and "
                  "there are at most 100000 in all");
    value_refused("after", "1-100000 200000", "more than 100000 jobs in all");
    for (int n = 0; n < 1001; n++)
        strcat(many, " 7");
    cr_assert_eq(parse(many, &s, why), -EINVAL);
    cr_assert_str_eq(why, "line 2: after: more than 1000: write neighbours as one, 57-99");
}

Test(job_spec, after_names_jobs_that_exist)
{
    struct job_spec s = taken("command = a\nafter = 4\n\nafter = 2 41");
    char why[JOB_SPEC_WHY] = "";

    cr_assert_eq(job_spec_check_after(&s, 42, why), 0);
    cr_assert_eq(job_spec_check_after(&s, 41, why), -EINVAL, "not itself");
    cr_assert_str_eq(why, "line 4: after: there is no job 41 yet: name jobs that were submitted "
                          "before this one");
    job_spec_free(&s);
    s = taken("command = a");
    cr_assert_eq(job_spec_check_after(&s, 1, why), 0);
    job_spec_free(&s);
}

Test(job_spec, env_refused)
{
    char *text = malloc(65536), why[JOB_SPEC_WHY];
    size_t at = 0;
    struct job_spec s;

    value_refused("env", "A", "'A' is no NAME=VALUE (letters, digits and '_' in NAME)");
    value_refused("env", "=A", "'=A' is no NAME=VALUE (letters, digits and '_' in NAME)");
    value_refused("env", "1A=2", "'1A=2' is no NAME=VALUE (letters, digits and '_' in NAME)");
    value_refused("env", "A B=2", "'A B=2' is no NAME=VALUE (letters, digits and '_' in NAME)");
    value_refused("env", "UMBEL_JOB=2",
                  "'UMBEL_JOB=2': names that begin with UMBEL_ are Umbel's own");
    for (int n = 0; n < 1001; n++)
        at += (size_t)sprintf(text + at, "env = V%d=%d\n", n, n);
    cr_assert_eq(parse(text, &s, why), -EINVAL);
    cr_assert_str_eq(why, "line 1001: env: more than 1000 variables: set them in a script");
    free(text);
}

Test(job_spec, paths)
{
    char text[6000] = "command = a\noutput = ", why[JOB_SPEC_WHY];
    struct job_spec s;

    value_refused("workdir", "data",
                  "'data' does not begin with '/': give the path from the cloud's root");
    value_refused("workdir", "/a/..", "'..' cannot be in it: give the path from the cloud's root");
    value_refused("input", "../x", "'..' cannot be in it: give the path from the cloud's root");
    value_refused("output", "/a/../b", "'..' cannot be in it: give the path from the cloud's root");
    value_refused("error", "a/",
                  "a file is wanted, and that is a directory: leave out the last '/'");
    s = value_taken("workdir", "//a/..b/c../.../");
    cr_assert_str_eq(s.workdir, "//a/..b/c../.../");
    job_spec_free(&s);
    size_t at = strlen(text);
    memset(text + at, 'p', 4096);
    cr_assert_eq(parse(text, &s, why), -EINVAL);
    cr_assert_str_eq(why, "line 2: output: the path is longer than 4095 bytes");
    text[at + 4095] = '\0';
    s = taken(text);
    job_spec_free(&s);
}

static void name_is(const char *path, const char *wanted)
{
    const struct job_spec_member m = {.job = 107, .first = 100, .index = 7, .copy = 2};
    char name[JOB_SPEC_PATH_MAX + 1];

    job_spec_file(path, &m, name);
    cr_expect_str_eq(name, wanted);
}

Test(job_spec, numbers_in_the_names_of_files)
{
    char text[200] = "", name[JOB_SPEC_PATH_MAX + 1];

    name_is("out", "out");
    name_is("d/%a.txt", "d/7.txt");
    name_is("%A_%3a.%j.%c", "100_007.107.2");
    name_is("%2j%%a%%", "107%a%");
    for (size_t n = 0; n < 30; n++)
        strcat(text, "%9a/");
    job_spec_file(text, &(struct job_spec_member){.index = 1}, name);
    cr_expect_eq(strlen(name), 300);
    value_refused("output", "x%q.txt\narray = 2",
                  "'%q.' is not known: %a is the array's index, %j the job's number, %A the "
                  "array's first, %c the copy's; %% is a percent sign");
    value_refused("input", "50%",
                  "'%' is not known: %a is the array's index, %j the job's number, %A the "
                  "array's first, %c the copy's; %% is a percent sign");
    value_refused("error", "%0a",
                  "'%0a' is not known: %a is the array's index, %j the job's number, %A the "
                  "array's first, %c the copy's; %% is a percent sign");
}

static void good(const char *text)
{
    struct job_spec s = taken(text);

    job_spec_free(&s);
}

Test(job_spec, no_two_jobs_write_one_file)
{
    static const char apart[] = "error: one job's error and another's output could be the same "
                                "file: let the names begin or end differently";

    refused("command = a\narray = 100\noutput = out\n",
            "output: all 100 jobs of the array would write the same file: put %a (the index) or %j "
            "(the job's number) into its name");
    refused("command = a\narray = 1-2\nerror = %A%%a\n",
            "error: all 2 jobs of the array would write the same file: put %a (the index) or %j "
            "(the job's number) into its name");
    refused("command = a\ncopies = 3\noutput = out%j\n",
            "output: all 3 copies would write the same file: put %c (the copy's number) into its "
            "name, or leave it out (stdout is the winner's)");
    refused("command = a\noutput = %a\n", "output: %a is an array's index, and there is no array");
    good("command = a\noutput = out%j\nerror = out%j\n");
    good("command = a\narray = 5-5\noutput = out\n");
    good("command = a\narray = 9\noutput = o%a\nerror = o%a\n");
    good("command = a\narray = 9\noutput = out.%a\nerror = err.%a\n");
    good("command = a\narray = 9\noutput = x%a\nerror = x%a.err\n");
    good("command = a\narray = 9\noutput = x%j.out\nerror = x%a.err\n");
    good("command = a\narray = 9\noutput = x%a-%j\nerror = x%a.%j\n");
    good("command = a\narray = 9\nworkdir = /w\noutput = x%a\nerror = /v/x1%a\n");
    refused("command = a\narray = 99\noutput = x%a\nerror = x1%a\n", apart);
    refused("command = a\narray = 99\noutput = x%a\nerror = x%j\n", apart);
    refused("command = a\narray = 99\noutput = x%a1\nerror = x%a\n", apart);
    refused("command = a\narray = 99\noutput = x%a\nerror = x%3a\n", apart);
    refused("command = a\narray = 99\nworkdir = /w//.\noutput = x%a\nerror = /w/./x1%a\n", apart);
}

Test(job_spec, several_inputs)
{
    char text[600] = "command = a\n";
    struct job_spec s = taken("command = a\ninput = a\narray = 9\ninput = /b/%a\n");

    cr_assert_eq(s.inputs_n, 2);
    cr_assert_str_eq(s.input, "a");
    cr_assert_str_eq(s.inputs[0], "a");
    cr_assert_str_eq(s.inputs[1], "/b/%a");
    job_spec_free(&s);
    for (size_t n = 0; n < JOB_SPEC_INPUTS_MAX; n++)
        strcat(text, "input = a\n");
    good(text);
    strcat(text, "input = a\n");
    refused(text, "line 18: input: more than 16: name the largest");
}

Test(job_spec, paths_from_the_root)
{
    char path[JOB_SPEC_PATH_MAX + 1], is_long[JOB_SPEC_PATH_MAX + 1];

    cr_assert_eq(job_spec_path("/", "a", path), 0);
    cr_expect_str_eq(path, "/a");
    cr_assert_eq(job_spec_path("/w//./x/", "./a/.b//c", path), 0);
    cr_expect_str_eq(path, "/w/x/a/.b/c");
    cr_assert_eq(job_spec_path("/w", "/a", path), 0);
    cr_expect_str_eq(path, "/a");
    cr_assert_eq(job_spec_path("/", "/", path), 0);
    cr_expect_str_eq(path, "/");
    memset(is_long, 'x', JOB_SPEC_PATH_MAX);
    is_long[JOB_SPEC_PATH_MAX] = '\0';
    cr_expect_eq(job_spec_path("/", is_long, path), -ENAMETOOLONG);
}

Test(job_spec, node_and_image)
{
    char why[JOB_SPEC_WHY];
    struct job_spec s = value_taken("node", "node-2");

    cr_assert_str_eq(s.node, "node-2");
    job_spec_free(&s);
    value_refused("node", "a/b", "'a/b' can be no node's name: see .umbel/nodes");
    cr_assert_eq(parse("command = a\nimage = debian\n", &s, why), -EOPNOTSUPP);
    cr_assert_str_eq(why, "line 2: image: not available yet: leave the line out");
    cr_assert_null(s.own);
}
