/* From a job's command to the arguments of a process: with a shell only where one is needed. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nodecache/run_private.h"

/* The shell's own words, which no program is for, or another one. */
static bool shell_word(const char *word, size_t n)
{
    static const char *const words[] = {
        ".",        "alias",  "bg",     "break",   "case",    "cd",     "command", "continue",
        "do",       "done",   "echo",   "elif",    "else",    "esac",   "eval",    "exec",
        "exit",     "export", "fc",     "fg",      "fi",      "for",    "getopts", "hash",
        "if",       "in",     "jobs",   "kill",    "local",   "printf", "pwd",     "read",
        "readonly", "return", "set",    "shift",   "test",    "then",   "times",   "trap",
        "type",     "ulimit", "umask",  "unalias", "unset",   "until",  "wait",    "while",
        "function", "select", "source", "time",    "declare", "let"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strlen(words[i]) == n && memcmp(words[i], word, n) == 0)
            return true;
    return false;
}

/* What it means is the same with and without a shell. */
static bool plain(const char *command)
{
    const char *at = command + strspn(command, " \t");
    size_t first = strcspn(at, " \t");

    for (const char *p = at; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("_@%+=:,./- \t", *p))
            return false;
    return first > 0 && !memchr(at, '=', first) && !shell_word(at, first);
}

static unsigned count_words(const char *s)
{
    unsigned n = 0;

    for (s += strspn(s, " \t"); *s; s += strspn(s, " \t")) {
        s += strcspn(s, " \t");
        n++;
    }
    return n;
}

static void split(struct run_argv *a)
{
    char *save, *word;

    for (word = strtok_r(a->text, " \t", &save); word; word = strtok_r(NULL, " \t", &save))
        a->argv[a->n++] = word;
}

int run_command_words(const char *command, bool script, const uint8_t *script_text,
                      size_t script_size, struct run_argv *out)
{
    static char sh[] = "/bin/sh", c[] = "-c", path[] = RUN_SCRIPT;
    bool given = command[strspn(command, " \t\n")] != 0, words = given && plain(command);
    size_t size = strlen(command) + sizeof(" " RUN_SCRIPT);

    memset(out, 0, sizeof(*out));
    if (!given && !script)
        return -EINVAL;
    out->text = malloc(size);
    /* sh, -c, text; or the words and the script. */
    out->argv = calloc((words ? count_words(command) : 0) + 4, sizeof(*out->argv));
    if (!out->text || !out->argv) {
        run_argv_free(out);
        return -ENOMEM;
    }
    strcpy(out->text, command);
    if (words) {
        split(out);
    } else if (given) {
        if (script)
            strcat(out->text, " " RUN_SCRIPT);
        out->argv[out->n++] = sh;
        out->argv[out->n++] = c;
        out->argv[out->n++] = out->text;
        return 0;
    } else if (script_size < 2 || memcmp(script_text, "#!", 2) != 0) {
        out->argv[out->n++] = sh;
    }
    if (script)
        out->argv[out->n++] = path;
    return 0;
}

void run_argv_free(struct run_argv *a)
{
    free(a->argv);
    free(a->text);
    memset(a, 0, sizeof(*a));
}
