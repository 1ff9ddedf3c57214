/*
 * POSIX ACLs, with the meanings of Linux' fs/posix_acl.c, which an inode on a local filesystem
 * would see.
 */
#include "control/acl_xattr.h"
#include "control/state_private.h"

#include <errno.h>
#include <sys/stat.h>

#define NO_ID UINT32_MAX

static void set(void *acl, size_t n, const struct ace *e)
{
    memcpy((uint8_t *)acl + ACL_HEADER + n * sizeof(*e), e, sizeof(*e));
}

/* One entry in the only order that is allowed. */
static int check_entry(const struct ace *e, enum acl_tag *state, bool *needs_mask)
{
    if (e->perm & ~7u)
        return -EINVAL;
    switch (e->tag) {
    case TAG_USER_OBJ:
        if (*state != TAG_USER_OBJ)
            return -EINVAL;
        *state = TAG_USER;
        return 0;
    case TAG_USER:
        *needs_mask = true;
        return *state == TAG_USER && e->id != NO_ID ? 0 : -EINVAL;
    case TAG_GROUP_OBJ:
        if (*state != TAG_USER)
            return -EINVAL;
        *state = TAG_GROUP;
        return 0;
    case TAG_GROUP:
        *needs_mask = true;
        return *state == TAG_GROUP && e->id != NO_ID ? 0 : -EINVAL;
    case TAG_MASK:
        if (*state != TAG_GROUP)
            return -EINVAL;
        *state = TAG_OTHER;
        return 0;
    case TAG_OTHER:
        if (*state != TAG_OTHER && (*state != TAG_GROUP || *needs_mask))
            return -EINVAL;
        *state = 0;
        return 0;
    default:
        return -EINVAL;
    }
}

int st_acl_check(const void *acl, size_t len)
{
    enum acl_tag state = TAG_USER_OBJ;
    bool needs_mask = false;
    uint32_t version;

    if (len < sizeof(version) || (len - sizeof(version)) % sizeof(struct ace) != 0)
        return -EINVAL;
    memcpy(&version, acl, sizeof(version));
    if (version != ACL_VERSION)
        return -EOPNOTSUPP;
    for (size_t n = 0; n < acl_count(len); n++) {
        struct ace e = acl_get(acl, n);
        int rc = check_entry(&e, &state, &needs_mask);
        if (rc < 0)
            return rc;
    }
    return state == 0 ? 0 : -EINVAL;
}

int st_acl_to_mode(const void *acl, size_t len, uint32_t *mode)
{
    uint32_t bits = 0, mask = 7;
    int whole = 1;

    for (size_t n = 0; n < acl_count(len); n++) {
        struct ace e = acl_get(acl, n);
        if (e.tag == TAG_USER_OBJ)
            bits |= (uint32_t)e.perm << 6;
        else if (e.tag == TAG_GROUP_OBJ)
            bits |= (uint32_t)e.perm << 3;
        else if (e.tag == TAG_OTHER)
            bits |= e.perm;
        else
            whole = 0;
        if (e.tag == TAG_MASK)
            mask = e.perm;
    }
    /* With a mask, the group bits of the mode are the mask. */
    if (!whole)
        bits = (bits & ~0070u) | mask << 3;
    *mode = (*mode & ~0777u) | bits;
    return whole;
}

static bool has_mask(const void *acl, size_t len)
{
    for (size_t n = 0; n < acl_count(len); n++)
        if (acl_get(acl, n).tag == TAG_MASK)
            return true;
    return false;
}

void st_acl_chmod(void *acl, size_t len, uint32_t mode)
{
    uint16_t group_tag = has_mask(acl, len) ? TAG_MASK : TAG_GROUP_OBJ;

    for (size_t n = 0; n < acl_count(len); n++) {
        struct ace e = acl_get(acl, n);
        if (e.tag == TAG_USER_OBJ)
            e.perm = mode >> 6 & 7;
        else if (e.tag == TAG_OTHER)
            e.perm = mode & 7;
        else if (e.tag == group_tag)
            e.perm = mode >> 3 & 7;
        set(acl, n, &e);
    }
}

int st_acl_create(void *acl, size_t len, uint32_t *mode)
{
    uint16_t group_tag = has_mask(acl, len) ? TAG_MASK : TAG_GROUP_OBJ;
    uint32_t bits = 0;
    int whole = 1;

    for (size_t n = 0; n < acl_count(len); n++) {
        struct ace e = acl_get(acl, n);
        unsigned shift = e.tag == TAG_USER_OBJ ? 6 : e.tag == group_tag ? 3 : 0;
        if (e.tag == TAG_USER || e.tag == TAG_GROUP || e.tag == TAG_MASK)
            whole = 0;
        if (e.tag != TAG_USER_OBJ && e.tag != TAG_OTHER && e.tag != group_tag)
            continue;
        e.perm &= (uint16_t)(*mode >> shift & 7);
        bits |= (uint32_t)e.perm << shift;
        set(acl, n, &e);
    }
    *mode = (*mode & ~0777u) | bits;
    return whole;
}
