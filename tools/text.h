/*
 * Small text things that every subcommand needs: sizes, whole files.
 */
#ifndef UMBEL_TOOLS_TEXT_H
#define UMBEL_TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Control files and configuration are small; more than this is refused (-EFBIG). */
#define TEXT_FILE_MAX (64u << 20)

/* "512", "64k", "128M", "10GiB", "2T": binary units. -EINVAL, -ERANGE. */
int text_parse_size(const char *text, uint64_t *bytes);

/* "1.5 GiB" in buf. */
const char *text_size(uint64_t bytes, char buf[24]);

/* A whole decimal number within [least, most]. -EINVAL, -ERANGE. */
int text_parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *out);

/* The file as a string, malloc'd; len may be NULL. -errno. */
int text_read_file(const char *path, char **text, size_t *len);

/* Writes all of it. -errno. */
int text_write_all(int fd, const void *data, size_t len);

/* The value of "key value" or "key = value" lines in a flat-keyed text; false: there is none. */
bool text_value(const char *text, const char *key, char *value, size_t size);

/* Cuts the next line out of *rest (which is changed); NULL at the end. */
char *text_line(char **rest);

/* Writes s as a JSON string, with its quotes, to standard output. */
void text_json(const char *s);

/* As text_json, but numbers stay numbers. */
void text_json_value(const char *s);

#endif
