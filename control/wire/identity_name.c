/* Names in certificates: plain text, no I/O. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/identity.h"

#define SCHEME "umbel://"
/* nobody and nogroup, as NFS has it, if root_squash names nobody else. */
#define NOBODY 65534u

static const char *const roles[] = {"none", "control", "node", "mount"};

const char *identity_role_text(enum identity_role role)
{
    return roles[role];
}

enum identity_role identity_role_parse(const char *text)
{
    for (int i = IDENTITY_CONTROL; i <= IDENTITY_MOUNT; i++)
        if (strcmp(text, roles[i]) == 0)
            return (enum identity_role)i;
    return IDENTITY_NONE;
}

static bool is_word(const char *text, size_t n)
{
    if (n == 0 || text[0] == '.' || text[0] == '-')
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
        if (!ok)
            return false;
    }
    return true;
}

bool identity_name_ok(const char *name)
{
    size_t n = strlen(name);
    return n < sizeof(((struct identity_name *)0)->name) && is_word(name, n);
}

/* ---- squash */

/* A number without signs, spaces and leading zeros. */
static const char *parse_id(const char *p, char end, uint32_t *out)
{
    uint64_t v = 0;
    const char *first = p;
    for (; *p >= '0' && *p <= '9' && v <= UINT32_MAX; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    /* (uid_t)-1 means "no change" to the kernel */
    if (p == first || (*first == '0' && p != first + 1) || v >= UINT32_MAX || *p != end)
        return NULL;
    *out = (uint32_t)v;
    return end ? p + 1 : p;
}

int identity_squash_parse(const char *text, struct identity_name *who)
{
    who->squash = SQUASH_NONE;
    who->uid = who->gid = 0;
    if (strcmp(text, "none") == 0)
        return 0;
    bool all = strncmp(text, "all_squash", 10) == 0;
    if (!all && strncmp(text, "root_squash", 11) != 0)
        return -EINVAL;
    const char *p = text + (all ? 10 : 11);
    who->squash = all ? SQUASH_ALL : SQUASH_ROOT;
    if (!*p && !all) {
        who->uid = who->gid = NOBODY;
        return 0;
    }
    if (*p != '=' || !(p = parse_id(p + 1, ':', &who->uid)) || !parse_id(p, '\0', &who->gid))
        return -EINVAL;
    return 0;
}

void identity_squash_format(const struct identity_name *who, char out[48])
{
    if (who->squash == SQUASH_NONE)
        snprintf(out, 48, "none");
    else
        snprintf(out, 48, "%s_squash=%u:%u", who->squash == SQUASH_ALL ? "all" : "root", who->uid,
                 who->gid);
}

/* ---- URIs */

/* Copies what stands before the letter `end` (or the text's end, if that may come) to out. */
static const char *part(const char *p, const char *ends, char *out, size_t size)
{
    size_t n = strcspn(p, ends);
    if (n >= size || !is_word(p, n))
        return NULL;
    memcpy(out, p, n);
    out[n] = '\0';
    return p + n;
}

int identity_parse(const char *uri, struct identity_name *out)
{
    char role[16], squash[48];
    const char *p = uri + strlen(SCHEME);
    *out = (struct identity_name){0};
    if (strncmp(uri, SCHEME, strlen(SCHEME)) != 0 ||
        !(p = part(p, "/", out->cloud, sizeof(out->cloud))) || *p++ != '/' ||
        !(p = part(p, "/", role, sizeof(role))) || *p++ != '/' ||
        !(p = part(p, "?", out->name, sizeof(out->name))))
        return -EINVAL;
    out->role = identity_role_parse(role);
    if (out->role == IDENTITY_NONE)
        return -EINVAL;
    if (!*p)
        return 0;
    if (out->role != IDENTITY_MOUNT || strlen(p + 1) >= sizeof(squash) ||
        identity_squash_parse(p + 1, out) < 0 || out->squash == SQUASH_NONE)
        return -EINVAL;
    identity_squash_format(out, squash); /* one way to say a thing */
    return strcmp(squash, p + 1) == 0 ? 0 : -EINVAL;
}

int identity_format(const struct identity_name *who, char out[IDENTITY_TEXT])
{
    char squash[48] = "";
    struct identity_name back;
    if (who->squash != SQUASH_NONE)
        identity_squash_format(who, squash);
    int n = snprintf(out, IDENTITY_TEXT, SCHEME "%s/%s/%s%s%s", who->cloud,
                     identity_role_text(who->role), who->name, squash[0] ? "?" : "", squash);
    return n >= IDENTITY_TEXT ? -ENAMETOOLONG : identity_parse(out, &back);
}
