/*
 * Command lines: argp, with exit status 2 and the nearest name for what it does not know.
 */
#ifndef UMBEL_TOOLS_OPTIONS_H
#define UMBEL_TOOLS_OPTIONS_H

#include <argp.h>

/* Exit statuses of every subcommand. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* argp_parse; `--help` and wrong values end the process there. 0, or EXIT_USAGE after a line on
 * standard error. argv[0] is what messages begin with: "umbel up". */
int options_parse(const struct argp *argp, int argc, char **argv, void *input);
/* The same for a line that ends in somebody else's words: options end at the first word that is
 * none. */
int options_parse_in_order(const struct argp *argp, int argc, char **argv, void *input);

/* "umbel X: unknown WHAT 'WORD'; the nearest is 'BEST'" on standard error; best may be NULL. */
void options_unknown(const char *what, const char *word, const char *best);

#endif
