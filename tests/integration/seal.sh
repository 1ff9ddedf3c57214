#!/usr/bin/env bash
# Sealed clouds: nothing lies in the pool in plain, damage is found and never returned, keys are for root alone, and a
# cloud that is not sealed goes on without.
. "$(dirname "$0")/lib.sh"

PHRASE='the quick brown umbel hides in the pool 4711'
KEYS='identity/cloud.keys'

pool_holds() { grep -rqaF -- "$1" "$ROOT/pool"; }

# Many times the same, 9,000,000 bytes of it.
large() { (set +Eeo pipefail; trap - ERR; yes "$PHRASE" 2>/dev/null | head -c 9000000; true); }

plain_files() {
    mkdir -p "$MNT/folder-with-a-name-to-be-found"
    for i in 1 2 3 4 5; do printf '%s\n' "$PHRASE $i" >"$MNT/folder-with-a-name-to-be-found/secret-file-name-$i"; done
    # Large and regular, over many pages.
    large >"$MNT/large"
    sha256sum "$MNT/large" | cut -d' ' -f1 >"$WORK/large.sum"
}

read_back() {
    evict_cold
    [ "$(sha256sum "$MNT/large" | cut -d' ' -f1)" = "$(cat "$WORK/large.sum")" ] || fail "large differs after $1"
    grep -qF "$PHRASE 3" "$MNT/folder-with-a-name-to-be-found/secret-file-name-3" || fail "a small file differs after $1"
}

make_work

step "a cloud is sealed unless it is said otherwise"
up --seal on
says '^seal on$' cat "$MNT/.umbel/status" || fail "status does not say that the cloud is sealed"
says '^key_generation 1$' cat "$MNT/.umbel/status" || fail "status does not say the key's generation"
[ "$(stat -c %a "$ROOT/$KEYS")" = 600 ] || fail "$KEYS is not for its owner alone"

step "nothing lies in the pool in plain"
plain_files
umbel flush
[ "$(find "$ROOT/pool/packs" -type f | wc -l)" -gt 0 ] || fail "no pack was written"
for text in "$PHRASE" 'quick brown umbel' 'folder-with-a-name' 'secret-file-name'; do
    pool_holds "$text" && fail "'$text' can be read in the pool"
done
pool_holds UMBELPAK || fail "the search would find nothing at all"
key=$(sed -n 's/^key 1 //p' "$ROOT/$KEYS")
[ ${#key} = 64 ] || fail "$KEYS has no key of generation 1"
grep -rqaF -- "$key" "$ROOT/pool" "$ROOT/log" "$ROOT/control-1/log" "$ROOT"/node-* && fail "the cloud's key lies elsewhere, too"
read_back "the first flush"
fsck_clean --data

step "flipped bits are found and never returned"
pack=$(find "$ROOT/pool/packs" -type f -printf '%s %p\n' | sort -n | tail -n1 | cut -d' ' -f2)
cp -p "$pack" "$WORK/pack"
for n in 1 2 3 4 5; do
    at=$((RANDOM * 32768 + RANDOM))
    at=$((at % $(stat -c %s "$pack")))
    byte=$(od -An -tu1 -j $at -N1 "$WORK/pack" | tr -d ' ')
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\x$(printf %02x $((byte ^ (1 << (n % 8)))))" | dd of="$pack" bs=1 seek=$at conv=notrunc status=none
    refused 1 'problem pack' umbel fsck --data
    evict_cold
    status=0
    cat "$MNT/large" >"$WORK/read" 2>/dev/null || status=$?
    head -c "$(stat -c %s "$WORK/read")" < <(large) | cmp -s - "$WORK/read" ||
        fail "a flipped bit at byte $at was returned as data"
    [ $status != 0 ] || [ "$(stat -c %s "$WORK/read")" = 9000000 ] || fail "a short read without an error"
    cp -p "$WORK/pack" "$pack"
done
fsck_clean --data
read_back "the damage was mended"

step "a pack that is not sealed is not taken for one that is"
status=0
dd if=/dev/zero of="$pack" bs=1 seek=12 count=1 conv=notrunc status=none # the header: sealing
refused 1 'problem pack' umbel fsck --data
cp -p "$WORK/pack" "$pack"

step "keys are for root alone"
down
chmod 644 "$ROOT/$KEYS"
refused 1 'cloud.keys: mode 644' "$UMBEL" up --root "$ROOT" --mount "$MNT"
chmod 600 "$ROOT/$KEYS"
mv "$ROOT/$KEYS" "$WORK/keys"
refused 1 'cloud.keys: No such file' "$UMBEL" up --root "$ROOT" --mount "$MNT"
mv "$WORK/keys" "$ROOT/$KEYS"
refused 1 'sealed; that cannot change' "$UMBEL" up --root "$ROOT" --mount "$MNT" --seal off
up
read_back "down and up"
down

step "a cloud with --seal off"
mkdir "$WORK/other"
ROOT_SEALED=$ROOT ROOT=$WORK/other/root
up --seal off
says '^seal off$' cat "$MNT/.umbel/status" || fail "status does not say that the cloud is not sealed"
[ ! -e "$ROOT/$KEYS" ] || fail "a cloud that is not sealed has keys"
plain_files
umbel flush
pool_holds "$PHRASE" || fail "an unsealed pool does not hold plain text"
read_back "a flush without sealing"
fsck_clean --data
refused 1 'not sealed; that cannot change' "$UMBEL" up --root "$ROOT" --mount "$MNT" --seal on
down
ROOT=$ROOT_SEALED
say ok
