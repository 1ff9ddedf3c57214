/* The looking commands: what control files say, for people or as JSON. */
#include <err.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/ctl.h"
#include "tools/options.h"
#include "tools/text.h"

#define FOLLOW_MS   500
#define XATTR_LIMIT (64 << 10)

struct show {
    struct ctl_options ctl;
    bool json, follow, raw;
    const char *path;
    bool wants_path;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct show *s = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &s->ctl;
        return 0;
    case 'j':
        s->json = true;
        return 0;
    case 'f':
        s->follow = true;
        return 0;
    case 'b':
        s->raw = true;
        return 0;
    case ARGP_KEY_ARG:
        if (!s->wants_path || s->path != NULL)
            argp_error(state, "'%s' is one argument too many", arg);
        s->path = arg;
        return 0;
    case ARGP_KEY_END:
        if (s->wants_path && s->path == NULL)
            argp_error(state, "say which file");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&ctl_argp, 0, NULL, 90}, {0}};

static int parse_show(struct show *s, const struct argp_option *options, const char *args_doc,
                      const char *doc, int argc, char **argv)
{
    const struct argp argp = {options, parse, args_doc, doc, children, NULL, NULL};

    return options_parse(&argp, argc, argv, s);
}

static int read_or_tell(const struct ctl *c, const char *file, char **text)
{
    int rc = ctl_read(c, file, text);

    if (rc != 0)
        ctl_tell(c, file, rc);
    return rc;
}

/* ---- status */

/* Cuts "key value" in two; false: an empty line. */
static bool key_value(char *line, char **value)
{
    size_t n = strcspn(line, " \t");

    if (n == 0)
        return false;
    *value = line + n + strspn(line + n, " \t");
    line[n] = '\0';
    return true;
}

static void print_pairs(char *text, const char *indent)
{
    char *line, *value;

    while ((line = text_line(&text)) != NULL)
        if (key_value(line, &value))
            printf("%s%-18s %s\n", indent, line, value);
}

static void print_pairs_json(char *text, bool first)
{
    char *line, *value;

    while ((line = text_line(&text)) != NULL) {
        if (!key_value(line, &value))
            continue;
        fputs(first ? "" : ", ", stdout);
        first = false;
        text_json(line);
        fputs(": ", stdout);
        text_json_value(value);
    }
}

static int print_node(const struct ctl *c, const char *name, void *arg)
{
    char file[PATH_MAX], *text = NULL;

    (void)arg;
    snprintf(file, sizeof(file), "nodes/%s/status", name);
    int rc = read_or_tell(c, file, &text);
    if (rc != 0)
        return rc;
    printf("\n%s\n", name);
    print_pairs(text, "  ");
    free(text);
    return 0;
}

static int print_node_json(const struct ctl *c, const char *name, void *arg)
{
    char file[PATH_MAX], *text = NULL;
    bool *first = arg;

    snprintf(file, sizeof(file), "nodes/%s/status", name);
    int rc = read_or_tell(c, file, &text);
    if (rc != 0)
        return rc;
    printf("%s{\"name\": ", *first ? "" : ", ");
    *first = false;
    text_json(name);
    print_pairs_json(text, false);
    fputs("}", stdout);
    free(text);
    return 0;
}

int cmd_status(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"json", 'j', NULL, 0, "as one JSON object, with a list of nodes", 0},
        {0},
    };
    struct show s = {0};
    char *text = NULL;
    struct ctl c;

    if (parse_show(&s, options, NULL, "Shows what there is, and how it fares.", argc, argv) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &s.ctl, NULL) != 0 || read_or_tell(&c, "status", &text) != 0)
        return EXIT_FAILED;
    int rc;
    if (s.json) {
        bool first = true;
        fputs("{\"mount\": ", stdout);
        text_json(c.mount);
        print_pairs_json(text, false);
        fputs(", \"nodes\": [", stdout);
        rc = ctl_each(&c, "nodes", print_node_json, &first);
        fputs("]}\n", stdout);
    } else {
        printf("%-18s %s\n", "mount", c.mount);
        print_pairs(text, "");
        rc = ctl_each(&c, "nodes", print_node, NULL);
    }
    free(text);
    return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* ---- health */

int cmd_health(int argc, char **argv)
{
    struct show s = {0};
    char *text = NULL, health[16] = "";
    struct ctl c;

    if (parse_show(&s, NULL, NULL, "Shows what is wrong; exit status 0 only if nothing is.", argc,
                   argv) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &s.ctl, NULL) != 0 || read_or_tell(&c, "health", &text) != 0)
        return EXIT_FAILED;
    fputs(text, stdout);
    bool ok = text_value(text, "health", health, sizeof(health)) && strcmp(health, "ok") == 0;
    free(text);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

/* ---- events */

/* What of text is newer than the line `last` (all of it, if that line has dropped out of the ring).
 */
static const char *after_line(const char *text, const char *last)
{
    const char *newer = text, *at = text;
    size_t n = strlen(last);

    while (n > 0 && (at = strstr(at, last)) != NULL) {
        if ((at == text || at[-1] == '\n') && at[n] == '\n')
            newer = at + n + 1;
        at++;
    }
    return newer;
}

static void keep_last_line(const char *text, char *last, size_t size)
{
    size_t n = strlen(text);

    if (n == 0)
        return;
    if (text[n - 1] == '\n')
        n--;
    const char *start = n > 0 ? memrchr(text, '\n', n) : NULL;
    start = start != NULL ? start + 1 : text;
    snprintf(last, size, "%.*s", (int)(text + n - start), start);
}

/* A cloud that restarts is away for a while: following goes on as long as the mount is there. */
static int follow(const struct ctl *c, char *last, size_t size)
{
    const struct timespec pause = {.tv_nsec = FOLLOW_MS * 1000000L};

    for (;;) {
        char *text = NULL;

        nanosleep(&pause, NULL);
        int rc = ctl_read(c, "events", &text);
        if (rc == -ETIMEDOUT || rc == -EIO)
            continue;
        if (rc != 0) {
            ctl_tell(c, "events", rc);
            return rc;
        }
        fputs(after_line(text, last), stdout);
        keep_last_line(text, last, size);
        free(text);
        if (fflush(stdout) != 0)
            return -EPIPE;
    }
}

int cmd_events(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"follow", 'f', NULL, 0, "go on and show new ones as they happen", 0},
        {0},
    };
    struct show s = {0};
    char *text = NULL, last[1024] = "";
    struct ctl c;

    if (parse_show(&s, options, NULL, "Shows what happened: TIME KIND TEXT.", argc, argv) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &s.ctl, NULL) != 0 || read_or_tell(&c, "events", &text) != 0)
        return EXIT_FAILED;
    fputs(text, stdout);
    fflush(stdout);
    keep_last_line(text, last, sizeof(last));
    free(text);
    if (!s.follow)
        return EXIT_DONE;
    return follow(&c, last, sizeof(last)) == 0 ? EXIT_DONE : EXIT_FAILED;
}

/* ---- cache, where */

/* "PATH NODE STATE BYTES": a path may hold spaces, so it is cut from the end. */
static void print_copy(char *line, bool raw)
{
    char *fields[3], size[24];
    uint64_t bytes;

    for (int i = 2; i >= 0; i--) {
        fields[i] = strrchr(line, ' ');
        if (fields[i] == NULL)
            return;
        *fields[i]++ = '\0';
    }
    if (!raw && text_parse_number(fields[2], 0, UINT64_MAX, &bytes) == 0)
        fields[2] = (char *)text_size(bytes, size);
    printf("%-12s %-7s %12s  %s\n", fields[0], fields[1], fields[2], line);
}

int cmd_cache(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"bytes", 'b', NULL, 0, "sizes in bytes", 0},
        {0},
    };
    struct show s = {0};
    char *text = NULL, *rest, *line, file[40] = "cache";
    uint64_t next = 1;
    struct ctl c;

    if (parse_show(&s, options, NULL,
                   "Shows which node holds how much of which file, staged or cached.", argc,
                   argv) != 0)
        return EXIT_USAGE;
    if (ctl_find(&c, &s.ctl, NULL) != 0)
        return EXIT_FAILED;
    while (next > 0) { /* page by page */
        if (read_or_tell(&c, file, &text) != 0)
            return EXIT_FAILED;
        next = 0;
        for (rest = text; (line = text_line(&rest)) != NULL;)
            if (strncmp(line, "# next ", 7) != 0 ||
                text_parse_number(line + 7, 1, UINT64_MAX, &next) != 0)
                print_copy(line, s.raw);
        free(text);
        snprintf(file, sizeof(file), "cache.%ju", (uintmax_t)next);
    }
    return EXIT_DONE;
}

int cmd_where(int argc, char **argv)
{
    struct show s = {.wants_path = true};
    int status = EXIT_FAILED;
    struct ctl c;

    if (parse_show(&s, NULL, "PATH",
                   "Shows where a file's data lies: its home, other nodes, the pool.", argc,
                   argv) != 0)
        return EXIT_USAGE;
    if (ctl_is_top(s.path)) {
        if (ctl_find(&c, &s.ctl, NULL) != 0)
            return EXIT_FAILED;
        s.path = c.mount;
    }
    char *value = malloc(XATTR_LIMIT);
    ssize_t n = value != NULL ? getxattr(s.path, "umbel.where", value, XATTR_LIMIT) : -1;
    if (n < 0 && (errno == ENODATA || errno == EOPNOTSUPP)) {
        warnx("%s is not a file in a mounted cloud", s.path);
    } else if (n < 0) {
        warn("%s", s.path);
    } else {
        printf("%.*s%s", (int)n, value, n > 0 && value[n - 1] == '\n' ? "" : "\n");
        status = EXIT_DONE;
    }
    free(value);
    return status;
}
