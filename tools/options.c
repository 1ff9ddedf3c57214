#include "tools/options.h"

#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "control/wire/words.h"
#include "tools/text.h"

void options_unknown(const char *what, const char *word, const char *best)
{
    if (best != NULL && words_near_enough(word, best))
        warnx("unknown %s '%s'; the nearest is '%s' (see --help)", what, word, best);
    else
        warnx("unknown %s '%s' (see --help)", what, word);
}

/* What one word of the command line is. */
struct match {
    const char *word; /* without dashes */
    size_t len;       /* up to '=' */
    unsigned hits;
    bool exact, takes_value;
    const char *best;
};

static void match_name(struct match *m, const char *name, bool takes_value)
{
    words_nearer(m->word, name, &m->best);
    if (m->exact || strncmp(name, m->word, m->len) != 0)
        return;
    m->hits++;
    m->takes_value = takes_value;
    m->exact = strlen(name) == m->len;
}

static void match_long(const struct argp *argp, struct match *m)
{
    bool takes_value = false;

    for (const struct argp_option *o = argp->options; o != NULL; o++) {
        if (o->name == NULL && o->key == 0 && o->doc == NULL)
            break;
        if (!(o->flags & OPTION_ALIAS))
            takes_value = o->arg != NULL && !(o->flags & OPTION_ARG_OPTIONAL);
        if (o->name != NULL && !(o->flags & OPTION_DOC))
            match_name(m, o->name, takes_value);
    }
    for (const struct argp_child *c = argp->children; c != NULL && c->argp != NULL; c++)
        match_long(c->argp, m);
}

static bool has_short(const struct argp *argp, int letter, bool *takes_value)
{
    bool value = false;

    for (const struct argp_option *o = argp->options; o != NULL; o++) {
        if (o->name == NULL && o->key == 0 && o->doc == NULL)
            break;
        if (!(o->flags & OPTION_ALIAS))
            value = o->arg != NULL && !(o->flags & OPTION_ARG_OPTIONAL);
        if (o->key == letter && !(o->flags & OPTION_DOC)) {
            *takes_value = value;
            return true;
        }
    }
    for (const struct argp_child *c = argp->children; c != NULL && c->argp != NULL; c++)
        if (has_short(c->argp, letter, takes_value))
            return true;
    *takes_value = false;
    return letter == '?';
}

static int check_long(const struct argp *argp, const char *arg, bool *skip)
{
    char word[64];
    struct match m = {.word = word, .len = strcspn(arg + 2, "=")};

    snprintf(word, sizeof(word), "%.*s", (int)m.len, arg + 2);
    m.len = strlen(word);
    match_long(argp, &m);
    match_name(&m, "help", false);
    match_name(&m, "usage", false);
    *skip = m.takes_value && arg[2 + strcspn(arg + 2, "=")] == '\0';
    if (m.hits > 0)
        return 0; /* an ambiguous beginning is told by argp */
    char best[80], given[80];
    snprintf(best, sizeof(best), "--%s", m.best);
    snprintf(given, sizeof(given), "--%s", word);
    options_unknown("option", given, best);
    return EXIT_USAGE;
}

static int check_short(const struct argp *argp, const char *arg, bool *skip)
{
    for (const char *c = arg + 1; *c != '\0'; c++) {
        bool value = false;

        if (!has_short(argp, (unsigned char)*c, &value)) {
            char given[3] = {'-', *c, '\0'};
            options_unknown("option", given, NULL);
            return EXIT_USAGE;
        }
        if (value) {
            *skip = c[1] == '\0';
            return 0;
        }
    }
    return 0;
}

/* getopt would say "unrecognized option" and no more. */
static int check_known(const struct argp *argp, int argc, char **argv, bool in_order)
{
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        bool skip = false;
        int rc = 0;

        if (strcmp(arg, "--") == 0 || (in_order && (arg[0] != '-' || arg[1] == '\0')))
            break;
        if (strncmp(arg, "--", 2) == 0)
            rc = check_long(argp, arg, &skip);
        else if (arg[0] == '-' && arg[1] != '\0')
            rc = check_short(argp, arg, &skip);
        if (rc != 0)
            return rc;
        i += skip;
    }
    return 0;
}

static int parse_line(const struct argp *argp, int argc, char **argv, bool in_order, void *input)
{
    argp_err_exit_status = EXIT_USAGE;
    if (check_known(argp, argc, argv, in_order) != 0)
        return EXIT_USAGE;
    error_t rc = argp_parse(argp, argc, argv, in_order ? ARGP_IN_ORDER : 0, NULL, input);
    if (rc != 0) {
        errno = rc;
        warn("cannot read the command line");
        return EXIT_USAGE;
    }
    return 0;
}

int options_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    return parse_line(argp, argc, argv, false, input);
}

int options_parse_in_order(const struct argp *argp, int argc, char **argv, void *input)
{
    return parse_line(argp, argc, argv, true, input);
}
