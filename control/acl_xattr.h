/*
 * A POSIX ACL as Linux' xattrs hold it: a header {version 2}, then entries {tag, perm, id}, all
 * little-endian, in the order of their tags.
 */
#ifndef UMBEL_CONTROL_ACL_XATTR_H
#define UMBEL_CONTROL_ACL_XATTR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ACL_VERSION 2u
#define ACL_HEADER  4u

enum acl_tag {
    TAG_USER_OBJ = 0x01,
    TAG_USER = 0x02,
    TAG_GROUP_OBJ = 0x04,
    TAG_GROUP = 0x08,
    TAG_MASK = 0x10,
    TAG_OTHER = 0x20
};

struct ace {
    uint16_t tag, perm;
    uint32_t id;
};
_Static_assert(sizeof(struct ace) == 8, "as in the xattr");

/* Of an xattr with a whole header. */
static inline size_t acl_count(size_t len)
{
    return (len - ACL_HEADER) / sizeof(struct ace);
}

static inline struct ace acl_get(const void *acl, size_t n)
{
    struct ace e;

    memcpy(&e, (const uint8_t *)acl + ACL_HEADER + n * sizeof(e), sizeof(e));
    return e;
}

#endif
