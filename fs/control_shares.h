/*
 * Who may have how many control files open, and how much text in them: a user takes at most a
 * quarter of what there is, and all users together leave some to root, who may have to look why
 * nothing works. Pure; the caller's lock.
 */
#ifndef UMBEL_FS_CONTROL_SHARES_H
#define UMBEL_FS_CONTROL_SHARES_H

#include <stdint.h>

/* Open control files of a mount; their text is at most FRAME_PAYLOAD_MAX each. */
#define CONTROLS_MAX 1024
/* Bytes of all of them together, read and gathered: a mount is no place to keep texts. */
#define CONTROLS_BYTES_MAX (128ull << 20)
/* Of both, what one user may have (more than a script that hands in specs side by side needs), and
 * what is root's alone. */
#define CONTROLS_USER       (CONTROLS_MAX / 4)
#define CONTROLS_USER_BYTES (CONTROLS_BYTES_MAX / 4)
#define CONTROLS_ROOT       (CONTROLS_MAX / 16)
#define CONTROLS_ROOT_BYTES (CONTROLS_BYTES_MAX / 16)

struct control_owner;
struct control_shares { /* zeroed at the start */
    struct control_owner *owners;
    uint64_t files, bytes; /* of all */
};

/* -EMFILE: the user's own share is at its end; -ENFILE, -ENOMEM: files or bytes of all are. */
int control_shares_take(struct control_shares *s, uint32_t uid, uint64_t files, uint64_t bytes);
/* Bytes that can be refused no more, of who has a file open. */
void control_shares_put(struct control_shares *s, uint32_t uid, uint64_t bytes);
/* What was taken. */
void control_shares_give(struct control_shares *s, uint32_t uid, uint64_t files, uint64_t bytes);

#endif
