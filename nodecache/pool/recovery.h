/*
 * The recovery key: what people keep on paper, so that a sealed pool can be read when the machines
 * that had its keys are lost. The cloud's keys lie in the pool wrapped for it (pool_keys_put).
 *
 * It is 160 random bits, more than the strength of what it unlocks by (X25519), written as 36
 * digits: few enough to be typed, and the last four tell a typo as a typo. Nobody but its owner has
 * it. From it come two things (HKDF-SHA256): a key pair, and a key that proves who wrapped. The
 * centre keeps what wrapping needs, the *lock*: the public half and the proof. So it can wrap new
 * keys without the recovery key; whoever steals the lock cannot unwrap anything; and whoever can
 * write to the pool, but has no lock, cannot make up keys that would be taken for the cloud's.
 *
 * Wrapped keys (integers little-endian):
 *   0    8  "UMBELKEY"
 *   8    4  format: 1. Readers refuse newer ones
 *   12   4  n, the number of keys, 1 to RECOVERY_KEYS_MAX: of the generations 1 to n
 *   16  128 cloud id, zeros behind
 *   144 32  public half of the recovery key
 *   176 32  public half of a key pair that was made for this one wrapping and thrown away
 *   208 32n the keys, and behind them 16 bytes tag: AES-256-GCM, all before it is associated data
 * Its key is HKDF-SHA256(X25519 of the two, salt = the proof, info = label | both public halves). A
 * wrapping has a key pair of its own, hence a key of its own, so its nonce may be zeros.
 *
 * No locks, no I/O. 0 or -errno. Who has a key or a lock wipes it after use.
 */
#ifndef UMBEL_POOL_RECOVERY_H
#define UMBEL_POOL_RECOVERY_H

#include <stddef.h>
#include <stdint.h>

#include "nodecache/pool/pool.h"

#define RECOVERY_BYTES     20
#define RECOVERY_HALF      32
#define RECOVERY_TEXT      42 /* six groups of six digits, with what is between, and the end */
#define RECOVERY_LOCK_TEXT (4 * RECOVERY_HALF + 1)
#define RECOVERY_KEYS_MAX  64

#define RECOVERY_HEAD     208
#define RECOVERY_WRAP_MAX (RECOVERY_HEAD + RECOVERY_KEYS_MAX * POOL_KEY + 16)

struct recovery_key {
    uint8_t bytes[RECOVERY_BYTES];
};
struct recovery_lock {
    uint8_t public_half[RECOVERY_HALF]; /* no secret */
    uint8_t proof[RECOVERY_HALF];
};

int recovery_new(struct recovery_key *k); /* -EIO: the system gives no random numbers */
int recovery_text(const struct recovery_key *k, char text[RECOVERY_TEXT]);
/* Small letters, any groups, and I, L, O for 1, 1, 0 will do. -EINVAL: it has not 36 digits, or
 * other characters; -EBADMSG: mistyped. */
int recovery_parse(const char *text, struct recovery_key *k);
void recovery_wipe(struct recovery_key *k);

int recovery_lock_of(const struct recovery_key *k, struct recovery_lock *lock);
/* The lock in hex: the public half, then the proof. parse: -EINVAL. */
void recovery_lock_text(const struct recovery_lock *lock, char text[RECOVERY_LOCK_TEXT]);
int recovery_lock_parse(const char *text, struct recovery_lock *lock);
void recovery_lock_wipe(struct recovery_lock *lock);

/* keys: of the generations 1 to n. */
int recovery_wrap(const struct recovery_lock *lock, const char *cloud, const struct pool_key *keys,
                  uint32_t n, uint8_t out[RECOVERY_WRAP_MAX], size_t *len);
/* keys[RECOVERY_KEYS_MAX]. -EBADMSG: damaged, or not by who has the lock; -EKEYREJECTED: it was
 * wrapped for another recovery key; -EXDEV: of another cloud; -EPROTONOSUPPORT: of a newer format.
 * After an error there is no key in keys. */
int recovery_unwrap(const struct recovery_key *k, const char *cloud, const uint8_t *data,
                    size_t len, struct pool_key *keys, uint32_t *n);

#endif
