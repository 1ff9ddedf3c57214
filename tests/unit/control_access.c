/* Rights of users that were mapped: who may do what, and who is who. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>

#include "control/access.h"

#define R ACCESS_READ
#define W ACCESS_WRITE
#define X ACCESS_EXEC

static bool may(uint32_t mode, uint32_t uid, uint32_t gid, unsigned want)
{
    const struct access_what what = {.mode = mode, .uid = 1000, .gid = 100};
    const uint32_t groups[] = {7, 200};
    const struct access_who who = {.uid = uid, .gid = gid, .groups = groups, .groups_n = 2};

    return access_allowed(&what, &who, want);
}

Test(control_access, the_first_class_that_fits_decides)
{
    cr_assert(may(S_IFREG | 0600, 1000, 5, R | W));
    cr_assert(!may(S_IFREG | 0077, 1000, 100, R), "the owner has the owner's bits, and no others");
    cr_assert(may(S_IFREG | 0060, 1, 100, R | W));
    cr_assert(!may(S_IFREG | 0006, 1, 100, R), "so has the group");
    cr_assert(may(S_IFREG | 0004, 1, 5, R));
    cr_assert(!may(S_IFREG | 0004, 1, 5, R | W));
    cr_assert(!may(S_IFREG | 0770, 1, 5, R));
    const struct access_what what = {.mode = S_IFREG | 0060, .uid = 1000, .gid = 200};
    const uint32_t groups[] = {7, 200};
    const struct access_who who = {.uid = 1, .gid = 5, .groups = groups, .groups_n = 2};
    cr_assert(access_allowed(&what, &who, R | W), "by another of his groups");
}

Test(control_access, root)
{
    cr_assert(may(S_IFREG | 0000, 0, 0, R | W));
    cr_assert(!may(S_IFREG | 0666, 0, 0, X));
    cr_assert(may(S_IFREG | 0001, 0, 0, X));
    cr_assert(may(S_IFDIR | 0000, 0, 0, R | W | X));
}

/* ---- ACLs */

struct acl {
    uint32_t version;
    struct {
        uint16_t tag, perm;
        uint32_t id;
    } e[7];
};
#define NONE UINT32_MAX

/* The owner 1000, group 100; user 5 rw-, group 200 r--, group 201 -w-. */
static struct acl example(unsigned group, unsigned mask, unsigned other)
{
    return (struct acl){.version = 2,
                        .e = {{1, 7, NONE},
                              {2, 6, 5},
                              {4, (uint16_t)group, NONE},
                              {8, 4, 200},
                              {8, 2, 201},
                              {0x10, (uint16_t)mask, NONE},
                              {0x20, (uint16_t)other, NONE}}};
}

static bool acl_may(const struct acl *acl, size_t len, uint32_t uid, uint32_t gid,
                    const uint32_t *groups, size_t n, unsigned want)
{
    const struct access_what what = {
        .mode = S_IFREG | 0770, .uid = 1000, .gid = 100, .acl = acl, .acl_len = len};
    const struct access_who who = {.uid = uid, .gid = gid, .groups = groups, .groups_n = n};

    return access_allowed(&what, &who, want);
}

Test(control_access, acl)
{
    struct acl a = example(5, 7, 1);
    const uint32_t both[] = {200, 201};
    size_t len = sizeof(a);

    cr_assert(acl_may(&a, len, 1000, 9, NULL, 0, R | W | X), "the owner: by the mode");
    cr_assert(acl_may(&a, len, 5, 100, NULL, 0, R | W));
    cr_assert(!acl_may(&a, len, 5, 100, NULL, 0, X), "his own entry, not the group's");
    cr_assert(acl_may(&a, len, 6, 100, NULL, 0, R | X));
    cr_assert(acl_may(&a, len, 6, 200, NULL, 0, R));
    cr_assert(acl_may(&a, len, 6, 9, both, 2, R));
    cr_assert(acl_may(&a, len, 6, 9, both, 2, W));
    cr_assert(!acl_may(&a, len, 6, 9, both, 2, R | W), "no single group gives both");
    cr_assert(!acl_may(&a, len, 6, 200, NULL, 0, X), "who is in a group is not among the others");
    cr_assert(acl_may(&a, len, 6, 9, NULL, 0, X));
    cr_assert(!acl_may(&a, len, 6, 9, NULL, 0, R));
}

Test(control_access, the_mask_bounds_all_but_owner_and_others)
{
    struct acl a = example(7, 4, 7);
    size_t len = sizeof(a);

    cr_assert(acl_may(&a, len, 5, 9, NULL, 0, R));
    cr_assert(!acl_may(&a, len, 5, 9, NULL, 0, W));
    cr_assert(!acl_may(&a, len, 6, 100, NULL, 0, W));
    cr_assert(acl_may(&a, len, 1000, 9, NULL, 0, W));
    cr_assert(acl_may(&a, len, 6, 9, NULL, 0, W));
}

Test(control_access, nonsense_allows_nothing)
{
    struct acl a = example(7, 7, 7);

    for (size_t len = 0; len < sizeof(a); len++)
        if (len < 4 || (len - 4) % 8 != 0 || len == 4)
            cr_assert(!acl_may(&a, len, 6, 9, NULL, 0, R), "%zu bytes", len);
    a.version = 3;
    cr_assert(!acl_may(&a, sizeof(a), 6, 9, NULL, 0, R));
}

Test(control_access, sticky)
{
    const struct access_who who = {.uid = 5};

    cr_assert(access_sticky_allows(S_IFDIR | 0777, 1, 2, &who));
    cr_assert(!access_sticky_allows(S_IFDIR | S_ISVTX | 0777, 1, 2, &who));
    cr_assert(access_sticky_allows(S_IFDIR | S_ISVTX | 0777, 5, 2, &who));
    cr_assert(access_sticky_allows(S_IFDIR | S_ISVTX | 0777, 1, 5, &who));
}

/* ---- who is who */

static void squash(const char *how, uint32_t uid, uint32_t gid, uint32_t group, Star__Cred *out)
{
    static uint32_t groups[2];
    struct identity_name by = {.squash = SQUASH_NONE};

    cr_assert_eq(identity_squash_parse(how, &by), 0);
    groups[0] = group;
    groups[1] = 0;
    star__cred__init(out);
    out->uid = uid;
    out->gid = gid;
    out->groups = groups;
    out->n_groups = 2;
    access_squash(&by, out);
}

Test(control_access, squash)
{
    Star__Cred c;

    squash("none", 0, 0, 10, &c);
    cr_assert(c.uid == 0 && c.gid == 0 && c.n_groups == 2 && c.groups[1] == 0);
    squash("root_squash", 0, 0, 10, &c);
    cr_assert(c.uid == 65534 && c.gid == 65534 && c.n_groups == 0);
    squash("root_squash", 1000, 100, 10, &c);
    cr_assert(c.uid == 1000 && c.gid == 100 && c.n_groups == 2);
    cr_assert(c.groups[0] == 10 && c.groups[1] == 65534, "group 0 is root's");
    squash("root_squash", 1000, 0, 10, &c);
    cr_assert(c.uid == 1000 && c.gid == 65534);
    squash("all_squash=7:8", 1000, 100, 10, &c);
    cr_assert(c.uid == 7 && c.gid == 8 && c.n_groups == 0);
    squash("all_squash=7:8", 0, 0, 10, &c);
    cr_assert(c.uid == 7 && c.gid == 8 && c.n_groups == 0);
}
