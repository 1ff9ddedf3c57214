#!/bin/bash
# Machines whose clocks are wrong: a node that is most of an hour ahead and a mount that is as much behind work as others do,
# and times are the centre's. A machine that is days behind or years ahead is refused, by a line that says why.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_spaces.sh"
[ -z "$SANITIZE" ] || skip "a sanitizer wants to be the first library"
PORT=17000
make_spaces centre ahead behind
make_work
B=$WORK/b
mkdir "$B" "$WORK/none"
EXTRA_MOUNTS+=("$B")

at() {
    local s=$1
    shift
    UMBEL_MACHINE=$s in_space "$s" "$@"
}
off() { # SECONDS COMMAND...: where the clock is so much off
    local seconds=$1
    shift
    UMBEL_SKEW_S=$seconds LD_PRELOAD=$TOOLS/skew.so "$@"
}
umbel() { UMBEL_MOUNT=$MNT at centre "$UMBEL" "$@"; }
node_here() { grep -q '^here yes' "$MNT/.umbel/nodes/ahead/status"; }
join() { # SPACE SECONDS ROLE NAME
    off "$2" at "$1" "$UMBEL" join --centre "$(address_of centre):$PORT" \
        --token "$(umbel token $([ "$3" != mount ] || echo --squash none) "$3" "$4")" --dir "$WORK/$4.joined"
}

step "a centre, a node that is 55 minutes ahead, a mount that is 55 minutes behind"
[ $(($(off 3300 date +%s) - $(date +%s))) -gt 3000 ] || fail "the clock cannot be set off"
at centre "$UMBEL" up --root "$ROOT" --mount "$MNT" --listen "$(address_of centre):$PORT" --capacity 64M --seal on \
    >>"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "umbel up"; }
mapfile -t DAEMONS < <(cat "$ROOT"/run/*.pid)
join ahead 3300 node ahead >/dev/null || fail "the node cannot join"
UMBEL_MACHINE=ahead UMBEL_SKEW_S=3300 LD_PRELOAD=$TOOLS/skew.so become_in_space ahead "$UMBEL" node --identity "$WORK/ahead.joined" \
    --listen "$(address_of ahead):17100" --capacity 400M >"$WORK/node.log" 2>&1 &
PIDS+=($!)
within "$(slow 30)" node_here || { cat "$WORK/node.log" >&2; fail "the node is not here"; }
umbel release node-1
join behind -3300 mount behind >/dev/null || fail "the mount cannot join"
off -3300 at behind "$UMBEL" mount --identity "$WORK/behind.joined" "$B" >/dev/null || fail "the mount"

step "they read and write, and the times are the centre's"
head -c 20M /dev/urandom >"$WORK/source"
before=$(($(date +%s) - 2))
mkdir "$B/made"
cp "$WORK/source" "$B/made/file"
sync "$B/made/file"
echo more >"$MNT/other"
cmp "$WORK/source" "$MNT/made/file" || fail "the centre's mount reads other bytes"
umbel flush
umbel evict "$MNT"
echo 3 >/proc/sys/vm/drop_caches || true
cmp "$WORK/source" "$B/made/file" || fail "other bytes from the pool"
cmp "$WORK/source" "$MNT/made/file" || fail "other bytes from the pool, at the centre's mount"
[ "$(cat "$B/other")" = more ] || fail "the mount reads '$(cat "$B/other")'"
for f in made made/file other; do
    for m in "$B" "$MNT"; do
        t=$(stat -c %Y "$m/$f")
        [ "$t" -ge $before ] && [ "$t" -le $(($(date +%s) + 2)) ] || fail "$m/$f is of $(date -d "@$t"), and now is $(date)"
    done
done

step "it goes on for longer than leases and reports take"
for i in 1 2 3 4; do
    echo "$i" >>"$B/log"
    [ "$(tail -n 1 "$MNT/log")" = "$i" ] || fail "line $i is not there"
    sleep 3
done
node_here || fail "the node was lost: $(cat "$MNT/.umbel/nodes/ahead/status")"

step "a machine that is days behind, or years ahead, is told so"
for skew in -172800 400000000; do
    out=$(join behind $skew mount "off$skew" 2>&1) && out=$(off $skew at behind timeout 60 "$UMBEL" mount --identity "$WORK/off$skew.joined" "$WORK/none" 2>&1) &&
        fail "a machine $skew seconds off is taken"
    echo "$out" >&2
    grep -q 'clock' <<<"$out" || fail "the refusal does not name the clock: $out"
done
fsck_clean --data
say ok
