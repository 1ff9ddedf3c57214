#!/bin/bash
# Bits flip on the disks, in nodes' copies and in packs: each is found, none is ever read as data, and what the pool still
# has whole is mended. --full: 1,000 bits, else 200.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_work
[ -x "$TOOLS/flip" ] || skip "no flip in $TOOLS (UMBEL_TEST_TOOLS)"
packs=20 rounds=5 seed=1
if full; then rounds=25; fi

drop_caches() { echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"; }
# Lines of a log that say so.
said() { grep -cF -- "$1" "$ROOT/log/node-1.log" || true; }

up --capacity 1G
umbel set meta_interval 0 # no copies of the state come and go among the packs
mkdir "$MNT/d"
for ((i = 0; i < packs; i++)); do
    head -c $((700000 + i * 1777)) /dev/urandom >"$MNT/d/large-$i"
    head -c $((100 + i)) /dev/urandom >"$MNT/d/small-$i"
    umbel flush "$MNT/d" >/dev/null # a pack for each
done
(cd "$MNT/d" && sha256sum -- *) >"$WORK/sums"
[ "$(find "$ROOT/pool/packs" -type f | wc -l)" -ge $packs ] || fail "fewer packs than flushes"

step "bits of the node's copy"
blocks=0
for ((round = 0; round < rounds; round++)); do
    "$TOOLS/flip" "$ROOT/node-1/files" 20 $((seed++)) >"$WORK/flips"
    blocks=$((blocks + $(awk '{ print $1, int($2 / 32768) }' "$WORK/flips" | sort -u | wc -l)))
    drop_caches
    (cd "$MNT/d" && sha256sum --quiet -c "$WORK/sums") || fail "something else than was written"
    found=$(said "this node's copy was damaged")
    [ "$found" = $blocks ] || fail "$blocks blocks were damaged, $found found"
done
says "copy was damaged" cat "$MNT/.umbel/events" || fail "events do not tell of it"
fsck_clean --data

step "bits of the packs"
umbel evict "$MNT"
cp -a "$ROOT/pool/packs" "$WORK/whole"
damaged=0
for ((round = 0; round < rounds; round++)); do
    while read -r pack; do
        "$TOOLS/flip" "$pack" 1 $((seed++))
    done < <(find "$ROOT/pool/packs" -type f) >"$WORK/flips"
    status=0
    umbel fsck --data >"$WORK/fsck.log" 2>&1 || status=$?
    [ $status = 1 ] || fail "fsck ended with $status over damaged packs"
    while read -r pack _; do
        grep -qE "pack $((16#${pack##*/}))\b" "$WORK/fsck.log" || { cat "$WORK/fsck.log" >&2; fail "fsck says nothing of $pack"; }
    done <"$WORK/flips"
    umbel evict "$MNT"
    drop_caches
    while read -r sum name; do
        if cat "$MNT/d/$name" >"$WORK/read" 2>"$WORK/read.log"; then
            [ "$(sha256sum <"$WORK/read")" = "$sum  -" ] || fail "$name: something else than was written"
        else
            grep -q 'Input/output error' "$WORK/read.log" || fail "$name: $(cat "$WORK/read.log")"
            damaged=$((damaged + 1))
        fi
    done <"$WORK/sums"
    cp -a "$WORK/whole/." "$ROOT/pool/packs/"
done
[ $damaged -gt 0 ] || fail "no file could tell"
umbel evict "$MNT"
drop_caches
(cd "$MNT/d" && sha256sum --quiet -c "$WORK/sums") || fail "with whole packs again, not all is there"
fsck_clean --data
say "ok: $((rounds * 20)) bits of the node's copy in $blocks blocks; $((rounds * packs)) bits of packs, $damaged reads refused"
