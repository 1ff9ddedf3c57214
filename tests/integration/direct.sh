#!/bin/bash
# A mount that has no node on its machine reads and writes the pool itself: which road the bytes took, and what others see
# meanwhile. --full: 1 GiB where else a few MiB do.
. "$(dirname "$0")/lib.sh"
need setfattr sha256sum
make_work

OTHER=$WORK/other
mkdir "$OTHER" "$WORK/plain"
size=96
if full; then size=1024; fi

# elsewhere COMMAND...: as if on another machine
elsewhere() { UMBEL_MACHINE=elsewhere "$@"; }
node_of() { sed -n "s/^$2 //p" "$MNT/.umbel/nodes/$1/status"; }
sum_of() { sha256sum <"$1" | cut -d' ' -f1; }
cold() { echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"; }
# node_bytes: what passed the node, as it reports every second
node_bytes() { sleep 2.2; echo $(($(node_of node-1 read_bytes) + $(node_of node-1 write_bytes) + $(node_of node-1 fetched_bytes))); }

up
elsewhere "$UMBEL" mount --root "$ROOT" "$OTHER" >/dev/null
EXTRA_MOUNTS+=("$OTHER")

step "a file that nobody has but the pool is read there"
head -c 20M /dev/urandom >"$WORK/plain/a"
cp "$WORK/plain/a" "$MNT/a"
umbel flush "$MNT"
cmp "$WORK/plain/a" "$OTHER/a" # at the node, which caches it
evict_cold
before=$(node_bytes) read_before=$(status_of mounts_pool_read)
cmp "$WORK/plain/a" "$OTHER/a" || fail "what was read from the pool differs"
[ "$(node_bytes)" = "$before" ] || fail "the node had a part in it: $before, then $(node_bytes)"
within 10 eval '[ $(status_of mounts_pool_read) -ge $((read_before + 20 * 1048576)) ]' ||
    fail "the bytes read from the pool are not counted: $read_before, then $(status_of mounts_pool_read)"

step "in any order, holes and ends too"
truncate -s 5M "$WORK/plain/holes" "$MNT/holes"
for at in 0 700 2100 4999; do
    head -c 3000 /dev/urandom | tee >(dd of="$MNT/holes" bs=1k seek=$at conv=notrunc status=none) |
        dd of="$WORK/plain/holes" bs=1k seek=$at conv=notrunc status=none
done
within 5 cmp "$WORK/plain/holes" "$MNT/holes" || fail "the test's own writes differ"
umbel flush "$MNT"
evict_cold
before=$(node_bytes)
cmp "$WORK/plain/holes" "$OTHER/holes"
for n in $(seq 60); do
    at=$((RANDOM * 640 % (20 * 1048576))) length=$((RANDOM % 9000 + 1))
    cmp <(dd if="$WORK/plain/a" bs=64k iflag=skip_bytes,count_bytes skip=$at count=$length status=none) \
        <(dd if="$OTHER/a" bs=64k iflag=skip_bytes,count_bytes,direct skip=$((at / 4096 * 4096)) count=$((length + 4096)) status=none |
            tail -c +$((at % 4096 + 1)) | head -c $length) || fail "bytes $at to $((at + length)) differ"
done
cp --sparse=always "$OTHER/holes" "$WORK/copied"
cmp "$WORK/copied" "$WORK/plain/holes"
[ "$(node_bytes)" = "$before" ] || fail "the node had a part in it"

step "what is written elsewhere is seen at once"
exec {held}<"$OTHER/a"
head -c 100 <&$held >/dev/null
for n in $(seq 20); do
    printf 'turn %02d' "$n" | dd of="$MNT/a" conv=notrunc status=none
    [ "$(head -c 7 "$OTHER/a")" = "turn $(printf %02d "$n")" ] || fail "turn $n: $(head -c 7 "$OTHER/a") is read"
    [ $((n % 4)) != 0 ] || { umbel flush "$MNT/a"; umbel evict "$MNT/a"; }
done
exec {held}<&-
cmp "$MNT/a" "$OTHER/a"

step "packs that went meanwhile are looked up anew; the pool that is away is read through a node"
umbel flush "$MNT"
evict_cold
cmp "$MNT/a" "$OTHER/a"
step "a damaged page is an error with file and pack in events, and never data"
head -c 3M /dev/urandom >"$MNT/damaged"
umbel flush "$MNT"
evict_cold
pack=$(ls -t "$ROOT"/pool/packs/*/* | head -n 1)
printf 'XXXX' | dd of="$pack" bs=1 seek=1500000 conv=notrunc status=none
refused 1 'input/output error' cat "$OTHER/damaged"
within 5 grep -q "damage.*inode.*pack" "$MNT/.umbel/events" || fail "events say nothing: $(cat "$MNT/.umbel/events")"
rm "$MNT/damaged"

fsck_clean
say "ok"
