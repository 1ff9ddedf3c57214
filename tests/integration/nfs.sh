#!/bin/bash
# A pool on a real NFS server, and what that server can do to a cloud: hang, die in the middle of a flush, be full, be
# read-only, be somewhere else.
. "$(dirname "$0")/lib.sh"
POOL=nfs
GANESHA_SMALL=64
need timeout
make_work
deaths=3 megabytes=256
full && { deaths=20 megabytes=4096; }

nothing_staged() { [ "$(status_of staged)" = 0 ]; }
# Longest time that a thing that needs no pool may take while the pool is away; far more than it takes, far less than a hang.
soon() { timeout "$(slow 10)" "$@" || fail "'$*' waits for the pool"; }

step "exports that are not what a pool needs"
refused 1 'export' "$UMBEL" up --root "$WORK/r1" --pool "$(ganesha_url "$WORK/nfs/nowhere")"
refused 1 'read-only' "$UMBEL" up --root "$WORK/r1" --pool "$(ganesha_url "$WORK/nfs/readonly")"
refused 1 'version 3' "$UMBEL" up --root "$WORK/r1" --pool "$(ganesha_url "$WORK/nfs/export")&version=4"
refused 1 'unknown key' "$UMBEL" up --root "$WORK/r1" --pool "$(ganesha_url "$WORK/nfs/export")&colour=red"
refused 1 'refused|port 1:' "$UMBEL" up --root "$WORK/r1" --pool "nfs://127.0.0.1$WORK/nfs/export?nfsport=1&mountport=1"

step "a tree by way of the server: copy, flush, evict, read"
up
cp -r "$SOURCE/nodecache" "$SOURCE/fs" "$WORK/"
mkdir "$WORK/plain" && mv "$WORK/nodecache" "$WORK/fs" "$WORK/plain/"
cp -r "$WORK/plain" "$MNT/tree"
diff -r "$WORK/plain" "$MNT/tree"
umbel flush
within 60 nothing_staged || fail "$(status_of staged) bytes are staged after flush"
find "$WORK/nfs/export/pool/packs" -type f | grep -q . || fail "no pack lies on the server"
evict_cold
diff -r "$WORK/plain" "$MNT/tree"
fsck_clean --data

step "the server hangs: what needs no pool goes on"
head -c 20000000 /dev/urandom >"$WORK/a"
cp "$WORK/a" "$MNT/before"
umbel flush
ganesha_freeze
soon stat -f "$MNT" >/dev/null
soon ls "$MNT" >/dev/null
soon cmp "$WORK/a" "$MNT/before"
soon cp "$WORK/a" "$MNT/during"
soon cmp "$WORK/a" "$MNT/during"
health_says_it() { ! timeout 10 "$UMBEL" health --mount "$MNT" >"$WORK/health" 2>&1 && grep -qi 'pool' "$WORK/health"; }
within 60 health_says_it || fail "health does not say that the pool is away: $(cat "$WORK/health")"
soon cp "$WORK/a" "$MNT/later"
soon stat -f "$MNT" >/dev/null
ganesha_thaw
within 90 umbel flush || fail "no flush after the server went on"
within 60 nothing_staged || fail "$(status_of staged) bytes are staged after the server went on"
evict_cold
cmp "$WORK/a" "$MNT/during"
cmp "$WORK/a" "$MNT/later"
within 60 umbel health || fail "health: $(umbel health)"

step "the server is killed and restarted $deaths times while $megabytes MiB are copied and flushed"
mkdir "$WORK/big"
for i in $(seq 16); do head -c $((megabytes * 65536)) /dev/urandom >"$WORK/big/$i"; done
umbel set flush_age 1 >/dev/null
copy() { cp -r "$WORK/big" "$MNT/big" && umbel flush; }
copy &
copying=$!
for n in $(seq "$deaths"); do
    sleep 0.$((RANDOM % 10))
    [ $((n % 2)) = 0 ] || sleep 1
    ganesha_kill
    sleep 0.$((RANDOM % 10))
    ganesha_start || fail "NFS-Ganesha does not start again"
done
wait $copying || within 90 umbel flush || fail "the copy or its flush failed"
within 120 nothing_staged || fail "$(status_of staged) bytes are staged"
diff -r "$WORK/big" "$MNT/big"
evict_cold
diff -r "$WORK/big" "$MNT/big"
fsck_clean --data

step "down and up with the server dead: it starts, and finds the pool later"
ganesha_kill
down
up
soon ls "$MNT" >/dev/null
ganesha_start
within 60 umbel health || fail "health: $(umbel health)"
within 30 cmp "$WORK/a" "$MNT/before" || fail "cannot be read when the server is back"
down

step "a full export"
MNT2=$MNT
ROOT2=$ROOT
ROOT=$WORK/small
"$UMBEL" up --root "$ROOT" --mount "$MNT" --pool "$(ganesha_url "$WORK/nfs/small")" >>"$WORK/up.log" 2>&1 || fail "up on the small export"
head -c $((90 << 20)) /dev/urandom >"$WORK/toomuch"
cp "$WORK/toomuch" "$MNT/toomuch"
! umbel flush >"$WORK/full.log" 2>&1 || fail "90 MiB went into 64"
within 60 sh -c "'$UMBEL' health --mount '$MNT' 2>&1 | grep -qiE 'full|space'" || fail "health does not say that the pool is full: $(umbel health 2>&1)"
cmp "$WORK/toomuch" "$MNT/toomuch"
rm "$MNT/toomuch"
within 60 nothing_staged || fail "$(status_of staged) bytes are staged"
down
ROOT=$ROOT2 MNT=$MNT2
say "ok"
