#include "control/access.h"

#include <string.h>
#include <sys/stat.h>

#include "control/acl_xattr.h"

bool access_in_group(const struct access_who *who, uint32_t gid)
{
    if (who->gid == gid)
        return true;
    for (size_t n = 0; n < who->groups_n; n++)
        if (who->groups[n] == gid)
            return true;
    return false;
}

static size_t entries(const struct access_what *what)
{
    uint32_t version;

    if (what->acl_len < ACL_HEADER + sizeof(struct ace) ||
        (what->acl_len - ACL_HEADER) % sizeof(struct ace) != 0)
        return 0;
    memcpy(&version, what->acl, sizeof(version));
    return version == ACL_VERSION ? acl_count(what->acl_len) : 0;
}

/* The owner has been dealt with. */
static bool acl_allows(const struct access_what *what, const struct access_who *who, unsigned want)
{
    size_t count = entries(what);
    unsigned mask = 7, other = 0;
    bool in_any = false, granted = false;

    for (size_t n = 0; n < count; n++) {
        struct ace e = acl_get(what->acl, n);
        if (e.tag == TAG_MASK)
            mask = e.perm;
        else if (e.tag == TAG_OTHER)
            other = e.perm;
    }
    for (size_t n = 0; n < count; n++) {
        struct ace e = acl_get(what->acl, n);
        if (e.tag == TAG_USER && e.id == who->uid)
            return (e.perm & mask & want) == want;
        bool in = (e.tag == TAG_GROUP_OBJ && access_in_group(who, what->gid)) ||
                  (e.tag == TAG_GROUP && access_in_group(who, e.id));
        in_any |= in;
        granted |= in && (e.perm & mask & want) == want;
    }
    return in_any ? granted : (other & want) == want;
}

bool access_allowed(const struct access_what *what, const struct access_who *who, unsigned want)
{
    if (who->uid == 0)
        return !(want & ACCESS_EXEC) || S_ISDIR(what->mode) || (what->mode & 0111);
    if (who->uid == what->uid)
        return (what->mode >> 6 & want) == want;
    /* As Linux: without any bit for the group, which is the mask, the ACL gives nothing. */
    if (what->acl && (what->mode & 0070))
        return acl_allows(what, who, want);
    return (what->mode >> (access_in_group(who, what->gid) ? 3 : 0) & want) == want;
}

bool access_sticky_allows(uint32_t dir_mode, uint32_t dir_uid, uint32_t uid_of_it,
                          const struct access_who *who)
{
    return !(dir_mode & S_ISVTX) || who->uid == 0 || who->uid == dir_uid || who->uid == uid_of_it;
}

void access_squash(const struct identity_name *by, Star__Cred *cred)
{
    if (by->squash == SQUASH_NONE)
        return;
    if (by->squash == SQUASH_ALL || cred->uid == 0) {
        cred->uid = by->uid;
        cred->gid = by->gid;
        cred->n_groups = 0;
        return;
    }
    if (cred->gid == 0)
        cred->gid = by->gid;
    for (size_t n = 0; n < cred->n_groups; n++)
        if (cred->groups[n] == 0)
            cred->groups[n] = by->gid;
}
