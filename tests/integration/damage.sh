#!/bin/bash
# Bits flip on the disks, in nodes' copies and in packs: each is found, by reading and by scrub, none is ever read as data,
# and what the pool or a node still has whole is mended. --full: scrub finds 1,000 bits, else 200.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_work
[ -x "$TOOLS/flip" ] || skip "no flip in $TOOLS (UMBEL_TEST_TOOLS)"
packs=20 rounds=5 seed=1
if full; then rounds=25; fi

drop_caches() { echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"; }
# scrub STATUS [OPTION...]: to $WORK/scrub.log
scrub() {
    local want=$1 status=0
    shift
    umbel scrub "$@" >"$WORK/scrub.log" 2>&1 || status=$?
    [ $status = "$want" ] || { tail -n 30 "$WORK/scrub.log" >&2; fail "scrub $* ended with $status, not $want"; }
}
scrub_says() { sed -n "s/^$1 //p" "$WORK/scrub.log"; }
names_file() { grep -qE "^$1 /d/(large|small)-[0-9]+: bytes [0-9]+ to [0-9]+ " "$WORK/scrub.log"; }
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

step "bits of the node's copy, met by reading"
blocks=0
for ((round = 0; round < 5; round++)); do
    "$TOOLS/flip" "$ROOT/node-1/files" 20 $((seed++)) >"$WORK/flips"
    blocks=$((blocks + $(awk '{ print $1, int($2 / 32768) }' "$WORK/flips" | sort -u | wc -l)))
    drop_caches
    (cd "$MNT/d" && sha256sum --quiet -c "$WORK/sums") || fail "something else than was written"
    found=$(said "this node's copy was damaged")
    [ "$found" = $blocks ] || fail "$blocks blocks were damaged, $found found"
done
within 10 says "copy was damaged" cat "$MNT/.umbel/events" || fail "events do not tell of it" # with the next report
fsck_clean --data

step "bits of the node's copy, found by scrub"
scrub 0
[ "$(scrub_says node_damaged)" = 0 ] && [ "$(scrub_says pool_damaged)" = 0 ] || fail "scrub finds what is not there"
[ "$(scrub_says pool_packs)" = "$(find "$ROOT/pool/packs" -type f | wc -l)" ] || fail "scrub has not looked at all packs"
node_blocks=0 before=$(said "this node's copy was damaged")
for ((round = 0; round < rounds; round++)); do
    "$TOOLS/flip" "$ROOT/node-1/files" 20 $((seed++)) >"$WORK/flips"
    hit=$(awk '{ print $1, int($2 / 32768) }' "$WORK/flips" | sort -u | wc -l)
    drop_caches
    scrub 0 --nodes
    [ "$(scrub_says node_damaged)" = "$hit" ] || fail "$hit blocks were damaged, scrub found $(scrub_says node_damaged)"
    [ "$(scrub_says node_healed)" = "$hit" ] || fail "of $hit damaged blocks $(scrub_says node_healed) were mended"
    names_file healed || fail "scrub names no file"
    [ "$(scrub_says pool_packs)" = 0 ] || fail "--nodes looks at the pool"
    drop_caches
    (cd "$MNT/d" && sha256sum --quiet -c "$WORK/sums") || fail "something else than was written"
    node_blocks=$((node_blocks + hit))
done
[ "$(said "this node's copy was damaged")" = $((before + node_blocks)) ] || fail "reading has met what scrub had not found"
scrub 0 --nodes --json
python3 -c 'import json,sys; r = json.load(sys.stdin); sys.exit(r["problems"] != 0 or r["damaged"] != [] or r["phase"] != "done")' \
    <"$WORK/scrub.log" || fail "--json: $(cat "$WORK/scrub.log")"
fsck_clean --data

step "bits of the packs: no node has a copy"
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
    scrub 1 --pool
    while read -r pack _; do
        grep -qE "^problem /d/.*pack ${pack##*/}, record [0-9]+" "$WORK/scrub.log" || { cat "$WORK/scrub.log" >&2; fail "scrub names no file of $pack"; }
    done <"$WORK/flips"
    [ "$(scrub_says pool_healed)" = 0 ] || fail "scrub says that it has mended what nobody has"
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
scrub 0

step "bits of the packs: the node has the bytes"
mended=0
for ((round = 0; round < 5; round++)); do
    umbel warm "$MNT/d"
    while read -r pack; do
        "$TOOLS/flip" "$pack" 1 $((seed++))
    done < <(find "$ROOT/pool/packs" -type f) >"$WORK/flips"
    scrub 0
    [ "$(scrub_says pool_damaged)" -gt 0 ] || fail "scrub finds nothing"
    [ "$(scrub_says pool_healed)" = "$(scrub_says pool_damaged)" ] || fail "not all records were mended"
    names_file healed || fail "scrub names no file"
    mended=$((mended + $(scrub_says pool_healed)))
    scrub 0 --pool
    [ "$(scrub_says pool_damaged)" = 0 ] || fail "scrub finds again what it had mended"
    umbel evict "$MNT"
    drop_caches
    (cd "$MNT/d" && sha256sum --quiet -c "$WORK/sums") || fail "what was mended is not what was written"
done
# What is damaged and dead lies there until gc takes it.
umbel set gc_live_ratio 95
umbel gc >/dev/null 2>&1
fsck_clean --data
says "^[^ ]* scrub |scrub.*problems" cat "$MNT/.umbel/events" || fail "events do not tell of it"
refused 1 "scrub \\[nodes" bash -c "echo scrub everything >'$MNT/.umbel/ctl' || { cat '$MNT/.umbel/errors' >&2; false; }"
say "ok: by reading $blocks blocks of the node's copy; by scrub $((rounds * 20)) bits of it in $node_blocks blocks, $((rounds * packs)) bits of packs; $damaged reads refused, $mended records mended"
