/* Shares of control files, and who was killed. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "fs/control_shares.h"
#include "fs/killed.h"

/* An answer has its place, whatever else there is. */
Test(control_shares, an_answer_is_put_in)
{
    struct control_shares s = {0};

    cr_assert_eq(control_shares_take(&s, 1000, 1, CONTROLS_USER_BYTES), 0);
    cr_assert_eq(control_shares_take(&s, 1000, 0, 1), -EMFILE);
    control_shares_put(&s, 1000, 10);
    cr_assert_eq(s.bytes, CONTROLS_USER_BYTES + 10);
    control_shares_give(&s, 1000, 1, CONTROLS_USER_BYTES + 10);
    cr_assert(s.bytes == 0 && s.files == 0 && s.owners == NULL);
}

Test(control_shares, a_user_has_a_share_and_root_what_is_left)
{
    struct control_shares s = {0};
    uint32_t uid = 1000;
    uint64_t users = 0;

    for (int rc = 0; rc == 0;) {
        uint64_t mine = 0;
        while ((rc = control_shares_take(&s, uid, 1, 0)) == 0)
            mine++;
        users += mine;
        cr_assert_leq(mine, CONTROLS_USER);
        if (rc == -EMFILE)
            rc = 0, uid++;
        else
            cr_assert_eq(rc, -ENFILE);
    }
    cr_expect_eq(users, CONTROLS_MAX - CONTROLS_ROOT);
    for (unsigned k = 0; k < CONTROLS_ROOT; k++)
        cr_assert_eq(control_shares_take(&s, 0, 1, 1), 0);
    cr_expect_eq(control_shares_take(&s, 0, 1, 0), -ENFILE);
    control_shares_give(&s, 1000, 1, 0);
    cr_expect_eq(control_shares_take(&s, 1000, 1, 0), -ENFILE);
    cr_expect_eq(control_shares_take(&s, 0, 1, 0), 0);
    for (uint32_t u = 1000; u <= uid; u++)
        control_shares_give(&s, u,
                            u == 1000  ? CONTROLS_USER - 1
                            : u == uid ? users % CONTROLS_USER
                                       : CONTROLS_USER,
                            0);
    control_shares_give(&s, 0, CONTROLS_ROOT + 1, CONTROLS_ROOT);
    cr_expect_eq(s.files, 0);
    cr_expect_eq(s.bytes, 0);
    cr_expect_null(s.owners);
}

Test(control_shares, the_same_for_their_bytes)
{
    struct control_shares s = {0};

    cr_expect_eq(control_shares_take(&s, 1000, 1, CONTROLS_USER_BYTES + 1), -EMFILE);
    cr_expect_null(s.owners, "nothing was taken");
    for (uint32_t uid = 1000; uid < 1003; uid++)
        cr_assert_eq(control_shares_take(&s, uid, 1, CONTROLS_USER_BYTES), 0);
    cr_expect_eq(control_shares_take(&s, 1000, 0, 1), -EMFILE);
    cr_expect_eq(control_shares_take(&s, 1003, 1, CONTROLS_USER_BYTES), -ENOMEM);
    cr_assert_eq(control_shares_take(&s, 1003, 1, CONTROLS_USER_BYTES - CONTROLS_ROOT_BYTES), 0);
    cr_expect_eq(control_shares_take(&s, 1004, 1, 1), -ENOMEM);
    cr_expect_eq(control_shares_take(&s, 0, 1, CONTROLS_ROOT_BYTES), 0);
    cr_expect_eq(control_shares_take(&s, 0, 0, 1), -ENOMEM);
    for (uint32_t uid = 1000; uid < 1003; uid++)
        control_shares_give(&s, uid, 1, CONTROLS_USER_BYTES);
    control_shares_give(&s, 1003, 1, CONTROLS_USER_BYTES - CONTROLS_ROOT_BYTES);
    control_shares_give(&s, 0, 1, CONTROLS_ROOT_BYTES);
    cr_expect_null(s.owners);
}

/* As /proc has it, with these flags and that exit code, of a program of that name. */
static bool says(const char *name, unsigned flags, unsigned code)
{
    char text[1024];
    int n = snprintf(text, sizeof(text), "4711 (%s) S 1 2 3 0 -1 %u", name, flags);

    for (int field = 10; field <= 51; field++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, " 9");
    snprintf(text + n, sizeof(text) - (size_t)n, " %u\n", code);
    return killed_says(text);
}

Test(killed, as_proc_says_it)
{
    cr_expect(says("cat", 0x404004, 9));
    cr_expect(says("cat", 0x4, 15));
    cr_expect(says("a ) b (c", 0x4, 137));
    cr_expect_not(says("cat", 0x400000, 9), "it lives");
    cr_expect_not(says("cat", 0x4, 0), "it ends by itself");
    cr_expect_not(says("cat", 0x4, 3 << 8), "the same, with a status");
    cr_expect_not(killed_says("4711 (cat) S 1 2 3 0 -1 4"), "an older kernel's is shorter");
    cr_expect_not(killed_says("4711 (cat"));
    cr_expect_not(killed_says(""));
    cr_expect_not(killed_is(0));
    cr_expect_not(killed_is(getpid()));
    cr_expect(killed_with(getpid(), getpid()));
    cr_expect_not(killed_with(getpid(), getppid()));
    cr_expect(killed_with(getpid(), 0x7ffffffe), "there is none");
}
