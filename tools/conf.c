#include "tools/conf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/wire/words.h"
#include "tools/text.h"

static const char *const keys[] = {"format",   "cloud",    "pool", "nodes",
                                   "controls", "capacity", "seal", "listen"};
enum {
    KEY_FORMAT,
    KEY_CLOUD,
    KEY_POOL,
    KEY_NODES,
    KEY_CONTROLS,
    KEY_CAPACITY,
    KEY_SEAL,
    KEY_LISTEN,
    KEYS
};
/* The last may be missing. */
#define KEYS_NEEDED KEY_LISTEN

static int set_text(char *out, size_t size, const char *value)
{
    size_t n = strlen(value);

    if (n == 0 || n >= size)
        return -EINVAL;
    memcpy(out, value, n + 1);
    return 0;
}

static int set_key(struct conf *c, int key, const char *value)
{
    switch (key) {
    case KEY_FORMAT:
        return text_parse_number(value, 1, UINT32_MAX, &c->format);
    case KEY_CLOUD:
        return set_text(c->cloud, sizeof(c->cloud), value);
    case KEY_POOL:
        return set_text(c->pool, sizeof(c->pool), value);
    case KEY_NODES:
        return text_parse_number(value, 1, CONF_NODES_MAX, &c->nodes);
    case KEY_CONTROLS:
        return text_parse_number(value, 1, 1, &c->controls);
    case KEY_LISTEN:
        return set_text(c->listen, sizeof(c->listen), value);
    case KEY_SEAL:
        c->seal = strcmp(value, "on") == 0;
        return c->seal || strcmp(value, "off") == 0 ? 0 : -EINVAL;
    default:
        return text_parse_number(value, CONF_CAPACITY_MIN, INT64_MAX, &c->capacity);
    }
}

/* Cuts "key = value" into its parts; false: there is no '='. */
static bool split(char *line, char **key, char **value)
{
    char *equals = strchr(line, '=');

    if (equals == NULL)
        return false;
    *equals = '\0';
    for (char *end = equals; end > line && isspace((unsigned char)end[-1]);)
        *--end = '\0';
    *key = line + strspn(line, " \t");
    *value = equals + 1 + strspn(equals + 1, " \t");
    for (char *end = *value + strlen(*value); end > *value && isspace((unsigned char)end[-1]);)
        *--end = '\0';
    return true;
}

static int unknown_key(const char *path, unsigned number, const char *key, char *detail)
{
    const char *best = NULL;

    for (int k = 0; k < KEYS; k++)
        words_nearer(key, keys[k], &best);
    snprintf(detail, CONF_DETAIL, "%.200s line %u: unknown key '%.60s'; the nearest is '%s'", path,
             number, key, best);
    return -EINVAL;
}

static int parse_line(const char *path, unsigned number, char *line, struct conf *c, unsigned *seen,
                      char *detail)
{
    char *key, *value;
    int k;

    line += strspn(line, " \t\r");
    if (*line == '\0' || *line == '#')
        return 0;
    if (!split(line, &key, &value)) {
        snprintf(detail, CONF_DETAIL, "%.200s line %u: not a 'key = value' line", path, number);
        return -EINVAL;
    }
    for (k = 0; k < KEYS && strcmp(key, keys[k]) != 0; k++)
        ;
    if (k == KEYS)
        return unknown_key(path, number, key, detail);
    if (set_key(c, k, value) != 0) {
        snprintf(detail, CONF_DETAIL, "%.200s line %u: '%.60s' cannot be the value of %s", path,
                 number, value, key);
        return -EINVAL;
    }
    *seen |= 1u << k;
    return 0;
}

/* What a newer format means by its keys is not ours to judge: look at the format first. */
static int check_format(const char *path, const char *text, char *detail)
{
    char value[32];
    uint64_t format;

    if (!text_value(text, keys[KEY_FORMAT], value, sizeof(value)) ||
        text_parse_number(value, 1, UINT32_MAX, &format) != 0) {
        snprintf(detail, CONF_DETAIL, "%.200s: it has no 'format = N' line, so it is damaged",
                 path);
        return -EINVAL;
    }
    if (format > CONF_FORMAT) {
        snprintf(detail, CONF_DETAIL,
                 "%.200s: made by a newer umbel (format %s, this one knows %d); use that one", path,
                 value, CONF_FORMAT);
        return -EPROTONOSUPPORT;
    }
    return 0;
}

int conf_read(const char *path, struct conf *c, char detail[CONF_DETAIL])
{
    char *text = NULL, *rest, *line;
    unsigned seen = 0, number = 0;

    memset(c, 0, sizeof(*c));
    int rc = text_read_file(path, &text, NULL);
    if (rc != 0) {
        snprintf(detail, CONF_DETAIL, "%.200s: %s", path, strerror(-rc));
        return rc;
    }
    rc = check_format(path, text, detail);
    rest = text;
    while (rc == 0 && (line = text_line(&rest)) != NULL)
        rc = parse_line(path, ++number, line, c, &seen, detail);
    for (int k = 0; rc == 0 && k < KEYS_NEEDED; k++) {
        if (!(seen & 1u << k)) {
            snprintf(detail, CONF_DETAIL, "%.200s: the line '%s = ...' is missing", path, keys[k]);
            rc = -EINVAL;
        }
    }
    free(text);
    return rc;
}

static int sync_folder(const char *path)
{
    char folder[PATH_MAX];
    int rc = 0;

    snprintf(folder, sizeof(folder), "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL)
        return -EINVAL;
    slash[slash == folder] = '\0';
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fsync(fd) != 0)
        rc = -errno;
    close(fd);
    return rc;
}

static int write_synced(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    int rc = text_write_all(fd, text, strlen(text));
    if (rc == 0 && fsync(fd) != 0)
        rc = -errno;
    if (close(fd) != 0 && rc == 0)
        rc = -errno;
    return rc;
}

int conf_replace_file(const char *path, const char *text)
{
    char temporary[PATH_MAX + 8];

    snprintf(temporary, sizeof(temporary), "%s~", path);
    int rc = write_synced(temporary, text);
    if (rc == 0 && rename(temporary, path) != 0)
        rc = -errno;
    if (rc == 0)
        rc = sync_folder(path);
    if (rc != 0)
        unlink(temporary);
    return rc;
}

int conf_write(const char *path, const struct conf *c, char detail[CONF_DETAIL])
{
    char text[PATH_MAX + 1024];

    snprintf(text, sizeof(text),
             "# What this cloud is. Written by `umbel up`; its options change it.\n"
             "format = %d\ncloud = %s\npool = %s\nnodes = %ju\ncontrols = %ju\n"
             "# bytes that each node may take on its disk\ncapacity = %ju\n"
             "# whether packs are encrypted; cannot change\nseal = %s\n",
             CONF_FORMAT, c->cloud, c->pool, (uintmax_t)c->nodes, (uintmax_t)c->controls,
             (uintmax_t)c->capacity, c->seal ? "on" : "off");
    if (c->listen[0] != '\0')
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 "# where other machines reach the centre; nodes have the ports that follow\n"
                 "listen = %s\n",
                 c->listen);
    int rc = conf_replace_file(path, text);
    if (rc != 0)
        snprintf(detail, CONF_DETAIL, "cannot write %.200s: %s", path, strerror(-rc));
    return rc;
}

int conf_new_cloud(char out[64])
{
    unsigned char b[16];

    if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
        return -EIO;
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    snprintf(out, 64, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
    return 0;
}
