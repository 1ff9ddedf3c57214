/*
 * umbel: one binary for everything, with subcommands as git has them.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/words.h"
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/text.h"

struct command {
    const char *name; /* NULL: a heading */
    const char *summary;
    int (*run)(int argc, char **argv);
};

static const struct command commands[] = {
    {NULL, "A cloud on this machine", NULL},
    {"up", "start a cloud, and make it at first use", cmd_up},
    {"down", "stop it; nothing is lost", cmd_down},
    {"mount", "mount it in one more place", cmd_mount},
    {NULL, "Looking", NULL},
    {"status", "what there is, and how it fares", cmd_status},
    {"health", "what is wrong, if anything is", cmd_health},
    {"events", "what happened", cmd_events},
    {"cache", "which node holds what", cmd_cache},
    {"where", "where a file's data lies", cmd_where},
    {NULL, "Steering", NULL},
    {"set", "show or change settings", cmd_set},
    {"flush", "bring staged data into the pool", cmd_flush},
    {"evict", "take cached data off the nodes", cmd_evict},
    {"warm", "fetch a file's data onto a node", cmd_warm},
    {"drain", "empty a node", cmd_drain},
    {"release", "empty a node and let it go", cmd_release},
    {"forget", "give a lost node up", cmd_forget},
    {"token", "let one more machine join, once", cmd_token},
    {"join", "make this machine part of a cloud elsewhere", cmd_join},
    {"revoke", "refuse a machine that has joined, from now on", cmd_revoke},
    {"gc", "free what nothing needs any more in the pool", cmd_gc},
    {"key", "check or replace the recovery key, rotate the cloud's", cmd_key},
    {NULL, "Computing", NULL},
    {"run", "run a command as a job on a node", cmd_run},
    {"job", "show jobs, read what they print, end them, wait for them", cmd_job},
    {"sched", "steer or simulate the scheduler of virtual machines", cmd_sched},
    {NULL, "Checking", NULL},
    {"fsck", "check the state, and the pool against it", cmd_fsck},
    {"scrub", "verify all copies and the pool, and mend what can be", cmd_scrub},
    {"rebuild", "make the centre's folder anew from the pool", cmd_rebuild},
    {"bench", "measure it", cmd_bench},
    {NULL, "Daemons, for systemd units", NULL},
    {"control", "run a control process", cmd_control},
    {"node", "run a node", cmd_node},
    {"supervise", "start the runs of a node's jobs (a node does it)", cmd_supervise},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void usage(FILE *out)
{
    fputs("Usage: umbel COMMAND [OPTION...]\n", out);
    for (size_t i = 0; i < COMMANDS; i++) {
        if (commands[i].name == NULL)
            fprintf(out, "\n%s\n", commands[i].summary);
        else
            fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
    }
    fputs("\n`umbel COMMAND --help` says more. Exit status: 0 done, 1 failed, 2 wrong usage.\n",
          out);
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (commands[i].name != NULL && strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int unknown(const char *name)
{
    const char *best = NULL;

    for (size_t i = 0; i < COMMANDS; i++)
        if (commands[i].name != NULL)
            words_nearer(name, commands[i].name, &best);
    options_unknown(name[0] == '-' ? "option" : "command", name, name[0] == '-' ? "--help" : best);
    return EXIT_USAGE;
}

/* "umbel up" is what the command's messages begin with. */
static int run(const struct command *c, int argc, char **argv)
{
    static char title[32]; /* libc keeps pointers to it until the end */

    snprintf(title, sizeof(title), "umbel %s", c->name);
    argv[0] = title;
    program_invocation_name = program_invocation_short_name = title;
    return c->run(argc, argv);
}

static int help(int argc, char **argv)
{
    char option[] = "--help";
    char *args[] = {NULL, option, NULL};

    if (argc < 3) {
        usage(stdout);
        return EXIT_DONE;
    }
    const struct command *c = find(argv[2]);
    return c != NULL ? run(c, 2, args) : unknown(argv[2]);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 ||
        strcmp(argv[1], "-h") == 0)
        return help(argc, argv);
    if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
        puts("umbel " UMBEL_VERSION);
        return EXIT_DONE;
    }
    const struct command *c = find(argv[1]);
    return c != NULL ? run(c, argc - 1, argv + 1) : unknown(argv[1]);
}

int main(int argc, char **argv)
{
    static char title[] = "umbel";

    program_invocation_name = program_invocation_short_name = title;
    int status = dispatch(argc, argv);
    /* What did not reach its reader was not done. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_DONE) {
        warn("cannot write the output");
        status = EXIT_FAILED;
    }
    return status;
}
