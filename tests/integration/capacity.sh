#!/bin/bash
# Much more data than a node may hold: its store never exceeds its capacity, and nothing is lost. --full: 8 GiB
# through 1 GiB, else 1 GiB through 128 MiB.
. "$(dirname "$0")/lib.sh"
make_work

capacity=$((128 << 20)) data=$((1 << 30))
if full; then capacity=$((1 << 30)) data=$((8 << 30)); fi
[ -z "$SANITIZE" ] || data=$((data / 4))
files=16
[ "$(df --output=avail -B1 "$WORK" | tail -n 1)" -gt $((data * 2 + capacity)) ] || skip "not enough free space in $WORK"

# Looks at the store ten times a second, from outside.
sample() {
    local used most=0
    while :; do
        used=$(disk_bytes "$ROOT/node-1" 2>/dev/null) || used=0
        if [ "$used" -gt "$most" ]; then
            most=$used
            echo "$most" >"$WORK/most"
        fi
        sleep 0.1
    done
}

within_capacity() {
    local most
    most=$(cat "$WORK/most")
    [ "$most" -le $capacity ] || fail "$1: the store took $most bytes; its capacity is $capacity"
    say "the store took at most $((most >> 20)) of $((capacity >> 20)) MiB"
}

sums() { (cd "$MNT" && sha256sum file-* | sha256sum); }

up --capacity $capacity
sample 2>/dev/null &
PIDS+=($!)

step "$((data >> 20)) MiB through a capacity of $((capacity >> 20)) MiB"
for i in $(seq $files); do
    head -c $((data / files)) /dev/urandom | tee "$MNT/file-$i" | sha256sum >"$WORK/sum-$i"
done
within_capacity "while writing"
for i in $(seq $files); do
    [ "$(sha256sum <"$MNT/file-$i")" = "$(cat "$WORK/sum-$i")" ] || fail "file-$i differs"
done
within_capacity "while reading"
before=$(sums)

step "one file larger than the capacity, written over in places"
head -c $((capacity * 2)) /dev/urandom >"$WORK/large"
cp "$WORK/large" "$MNT/large"
for i in $(seq 50); do
    at=$((RANDOM * 32768 % (capacity * 2 / 65536)))
    head -c 65536 /dev/urandom >"$WORK/piece"
    for large in "$WORK/large" "$MNT/large"; do
        dd if="$WORK/piece" of="$large" bs=65536 seek=$at conv=notrunc status=none
    done
done
cmp "$WORK/large" "$MNT/large"
within_capacity "while writing over"

step "evict all: the same"
evict_cold
[ "$before" = "$(sums)" ] || fail "data differs after evict"
cmp "$WORK/large" "$MNT/large"
within_capacity "after evict"

step "down, up: the same"
down
up
[ "$before" = "$(sums)" ] || fail "data differs after down and up"
cmp "$WORK/large" "$MNT/large"
fsck_clean --data

step "remove all: the pool's space comes back"
full_pool=$(disk_bytes "$ROOT/pool")
[ "$full_pool" -ge $data ] || fail "the pool holds $full_pool bytes, less than was written"
rm "$MNT"/file-* "$MNT/large"
pool_is_small() {
    umbel gc || return 1
    [ "$(disk_bytes "$ROOT/pool")" -lt $((data / 50)) ]
}
within "$(slow 90)" pool_is_small || fail "the pool still holds $(disk_bytes "$ROOT/pool") of $full_pool bytes; $(umbel gc 2>&1)"
within_capacity "at the end"

step "/ is the cloud's whole tree, for whoever is not in the mount"
cached_is() { test "$(status_of cached)" "$@"; }
mkdir "$MNT/folder"
head -c 1000000 /dev/urandom >"$MNT/folder/a"
head -c 1000000 /dev/urandom >"$MNT/b"
"$UMBEL" flush --root "$ROOT" /
for file in folder/a b; do
    says '^pool 1000000$' umbel where "$MNT/$file" || fail "flush --root / left it staged: $(umbel where "$MNT/$file")"
done
umbel evict /
within 10 cached_is -eq 0 || fail "evict / left $(status_of cached) bytes"
umbel warm /
within 10 cached_is -ge 2000000 || fail "warm / fetched $(status_of cached) bytes"
"$UMBEL" evict --root "$ROOT" /
within 10 cached_is -eq 0 || fail "evict --root / left $(status_of cached) bytes"
[ "$(umbel where /)" = "$(umbel where "$MNT")" ] || fail "where / is not where $MNT"
refused 1 'not in the cloud' umbel evict /etc
fsck_clean --data
say "ok"
