#!/bin/bash
# No node is there: what is written from front to back goes straight to the pool, what a log can say is done, and the rest
# waits, or fails in time, as the mount was told.
. "$(dirname "$0")/lib.sh"
need setfattr timeout
make_work

SOFT=8 # seconds
OTHER=$WORK/other EASY=$WORK/soft PLAIN=$WORK/plain
mkdir "$OTHER" "$EASY" "$PLAIN"
soon() { timeout "$(slow 20)" "$@" || fail "'$*' fails, or waits for what it does not need"; }
elsewhere() { UMBEL_MACHINE=elsewhere "$@"; }
gone() { ! kill -0 "$1" 2>/dev/null; }

up
elsewhere "$UMBEL" mount --root "$ROOT" "$OTHER" >/dev/null
elsewhere "$UMBEL" mount --root "$ROOT" --soft ${SOFT}s "$EASY" >/dev/null
EXTRA_MOUNTS+=("$OTHER" "$EASY")
head -c 20M /dev/urandom >"$PLAIN/big"
head -c 3000001 /dev/urandom >"$PLAIN/odd"
echo small >"$PLAIN/small"
for name in big odd small; do cp "$PLAIN/$name" "$MNT/before-$name"; done
umbel flush
umbel evict /
# Written where no node is: all of it, by each mount.
write_all() {
    local dir tag name
    for dir in "$OTHER" "$MNT" "$EASY"; do
        tag=$1-$(basename "$dir")
        for name in big odd small; do soon cp "$PLAIN/$name" "$dir/$tag-$name"; done
        soon dd if="$PLAIN/odd" of="$dir/$tag-synced" bs=4096 oflag=dsync count=20 status=none
        soon truncate -s 3000001 "$dir/$tag-announced"
        soon dd if="$PLAIN/odd" of="$dir/$tag-announced" bs=64k conv=notrunc,fsync status=none
        soon cp "$PLAIN/odd" "$dir/before-big" # over what was longer
        soon truncate -s 1234567 "$dir/before-odd"
        cp "$PLAIN/odd" "$PLAIN/cut" && truncate -s 1234567 "$PLAIN/cut"
        soon mkdir "$dir/$tag-dir"
        soon mv "$dir/$tag-small" "$dir/$tag-dir/small"
        soon touch "$dir/$tag-empty"
        check_all "$tag"
    done
}
check_all() {
    local dir tag
    for tag; do
        for dir in "$OTHER" "$MNT" "$EASY"; do
            soon cmp "$PLAIN/big" "$dir/$tag-big"
            soon cmp "$PLAIN/odd" "$dir/$tag-odd"
            soon cmp "$PLAIN/small" "$dir/$tag-dir/small"
            soon cmp -n 81920 "$PLAIN/odd" "$dir/$tag-synced"
            [ "$(stat -c %s "$dir/$tag-synced")" = 81920 ] || fail "$tag-synced: $(stat -c %s "$dir/$tag-synced") bytes"
            soon cmp "$PLAIN/odd" "$dir/$tag-announced"
            soon cmp "$PLAIN/odd" "$dir/before-big"
            soon cmp "$PLAIN/cut" "$dir/before-odd"
        done
    done
}

step "the only node dies"
kill -KILL "$(pid_of node-1)"
# It may be back at once, so they wait; when it is lost they go on, as it has nothing that the pool has not.
soon cp "$PLAIN/odd" "$OTHER/before-big"
cmp "$PLAIN/odd" "$MNT/before-big"
within 40 grep -q node-lost "$MNT/.umbel/events" || fail "events do not say that the node is lost"
write_all dead

step "a file open for both is read back in between"
exec {both}<>"$OTHER/both"
for n in 1 2 3; do
    dd if="$PLAIN/odd" bs=100k skip=$((n - 1)) count=1 status=none >&$both
    soon cmp -n $((n * 102400)) "$PLAIN/odd" "$OTHER/both"
    soon cmp -n $((n * 102400)) "$PLAIN/odd" "$MNT/both"
done
exec {both}>&-
[ "$(stat -c %s "$MNT/both")" = 307200 ] || fail "both: $(stat -c %s "$MNT/both") bytes"

step "what needs a node waits for it, or fails in time"
refused 1 'not supported' fallocate -l 1M "$OTHER/room"
begun=$SECONDS status=0
timeout "$(slow 60)" dd if="$PLAIN/small" of="$EASY/before-small" conv=notrunc oflag=append status=none 2>"$WORK/append.log" || status=$?
[ $status = 1 ] && grep -q 'Input/output error' "$WORK/append.log" || fail "a soft mount: $status, $(cat "$WORK/append.log")"
[ $((SECONDS - begun)) -ge $((SOFT - 2)) ] || fail "the soft mount gave up after $((SECONDS - begun)) s"
dd if="$PLAIN/odd" of="$OTHER/before-small" bs=64k seek=1 conv=notrunc status=none &
writing=$!
sleep 3
gone $writing && fail "the hard mount does not wait for a node"
within 20 eval 'umbel health >"$WORK/health" 2>&1; grep -q "mount other.*wait" "$WORK/health"' ||
    fail "health does not say who waits: $(cat "$WORK/health")"

step "it is back"
up
wait $writing || fail "the writer that waited failed"
cmp <(cat "$PLAIN/small"; head -c $((65536 - 6)) /dev/zero; cat "$PLAIN/odd") "$MNT/before-small"
check_all dead-other dead-mnt dead-soft
within 60 umbel health >/dev/null || fail "health: $(umbel health)"
echo more | tee -a "$PLAIN/odd" >>"$OTHER/dead-other-odd"
cmp "$PLAIN/odd" "$MNT/dead-other-odd"
head -c 3000001 "$PLAIN/odd" >"$PLAIN/same" && mv "$PLAIN/same" "$PLAIN/odd"
truncate -s 3000001 "$MNT/dead-other-odd"
umbel flush
fsck_clean --data

step "the only node is drained"
umbel drain node-1
cp "$PLAIN/big" "$MNT/before-big" && cp "$PLAIN/odd" "$MNT/before-odd"
write_all drained
check_all dead-other dead-mnt dead-soft drained-other drained-mnt drained-soft
fsck_clean --data
say "ok"
