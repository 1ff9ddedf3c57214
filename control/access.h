/*
 * Who may do what with an inode, and whom a mount's users are taken for. Pure.
 *
 * The kernel of a trusted mount checks this itself (default_permissions). For a mount whose users
 * are mapped the centre does, with the ids that they are mapped to (rights.c).
 */
#ifndef UMBEL_CONTROL_ACCESS_H
#define UMBEL_CONTROL_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/wire/identity.h"
#include "star.pb-c.h"

#define ACCESS_READ  4u
#define ACCESS_WRITE 2u
#define ACCESS_EXEC  1u /* of a directory: to look names up in it */

struct access_who {
    uint32_t uid, gid;
    const uint32_t *groups; /* besides gid */
    size_t groups_n;
};
/* What counts of an inode. acl: its system.posix_acl_access, or NULL. */
struct access_what {
    uint32_t mode, uid, gid;
    const void *acl;
    size_t acl_len;
};

bool access_in_group(const struct access_who *who, uint32_t gid);
/* As Linux decides: uid 0 may all but execute what nobody may; the owner by the owner's bits; then
 * by the ACL, if there is one (POSIX.1e: the user's entry, else any group's that gives all that is
 * wanted, both within the mask; else others'); else by the group's or others' bits. An ACL that
 * makes no sense allows nothing. */
bool access_allowed(const struct access_what *what, const struct access_who *who, unsigned want);
/* In a directory with the sticky bit names are taken away by the owner of the directory or of what
 * the name leads to. */
bool access_sticky_allows(uint32_t dir_mode, uint32_t dir_uid, uint32_t uid_of_it,
                          const struct access_who *who);

/* Maps who asks, in place, to whom the certificate says. Group 0 is root's, too. */
void access_squash(const struct identity_name *by, Star__Cred *cred);

#endif
