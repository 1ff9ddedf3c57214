/* Whom the mount's hard or soft lets wait, and for what. */
#include <criterion/criterion.h>
#include <errno.h>

#include "fs/waits.h"

Test(fs_waits, hard_has_no_end)
{
    cr_assert(!waits_is_over(1000, INT64_MAX, 0));
    /* Each attempt has a deadline of its own. */
    cr_assert_eq(waits_deadline(1000, 1000, 0), 1000 + DATA_DEADLINE_MS);
    cr_assert_eq(waits_deadline(1000, 900000, 0), 900000 + DATA_DEADLINE_MS);
}

Test(fs_waits, soft_ends_when_it_was_said)
{
    cr_assert_eq(waits_deadline(1000, 1000, 30000), 31000);
    cr_assert_eq(waits_deadline(1000, 30000, 30000), 31000, "no attempt goes beyond");
    cr_assert(!waits_is_over(1000, 30999, 30000));
    cr_assert(waits_is_over(1000, 31000, 30000));
}

Test(fs_waits, what_is_refused_is_not_waited_for)
{
    static const int away[] = {-ENOTCONN, -ECONNRESET, -ETIMEDOUT, -EHOSTDOWN, -EHOSTUNREACH};
    static const int final[] = {-EIO, -EACCES, -ENOENT, -ESTALE, -EBADMSG, -ENOSPC, 0};

    for (size_t n = 0; n < sizeof(away) / sizeof(away[0]); n++)
        cr_assert(waits_is_away(away[n]), "%d", away[n]);
    for (size_t n = 0; n < sizeof(final) / sizeof(final[0]); n++)
        cr_assert(!waits_is_away(final[n]), "%d", final[n]);
}
