/*
 * Which known word was meant by an unknown one.
 */
#ifndef UMBEL_CONTROL_WIRE_WORDS_H
#define UMBEL_CONTROL_WIRE_WORDS_H

#include <stdbool.h>

/* Words longer than this are compared by their beginning. */
#define WORDS_MAX 48

/* Insertions, deletions, replacements and swaps of neighbours that make b of a. */
unsigned words_distance(const char *a, const char *b);

/* Keeps in *best whichever of *best (may be NULL) and candidate is nearer to word. */
void words_nearer(const char *word, const char *candidate, const char **best);

/* Whether best is near enough to word to be worth telling. */
bool words_near_enough(const char *word, const char *best);

#endif
