#include "control/wire/words.h"

#include <string.h>

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

unsigned words_distance(const char *a, const char *b)
{
    unsigned d[WORDS_MAX + 1][WORDS_MAX + 1];
    size_t m = strnlen(a, WORDS_MAX), n = strnlen(b, WORDS_MAX);

    for (size_t i = 0; i <= m; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= n; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= m; i++) {
        for (size_t j = 1; j <= n; j++) {
            unsigned change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

            d[i][j] = least(change, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    }
    return d[m][n];
}

void words_nearer(const char *word, const char *candidate, const char **best)
{
    if (*best == NULL || words_distance(word, candidate) < words_distance(word, *best))
        *best = candidate;
}

bool words_near_enough(const char *word, const char *best)
{
    size_t longer = strlen(word) > strlen(best) ? strlen(word) : strlen(best);

    return words_distance(word, best) < longer;
}
