#!/bin/bash
# fsstress (of xfstests or LTP): many processes, all kinds of operations; afterwards the state is sound and the same after
# down and up, and when all is deleted nothing is left of it. $FSSTRESS is the program.
. "$(dirname "$0")/../integration/lib.sh"
[ -n "${FSSTRESS:-}" ] || skip "FSSTRESS does not say where the program fsstress is"
[ -x "$FSSTRESS" ] || skip "there is no program $FSSTRESS"
make_work

ops=1000
! full || ops=20000
OTHER=$WORK/other
mkdir "$OTHER"
up --capacity 256M
"$UMBEL" mount --root "$ROOT" "$OTHER" >/dev/null
EXTRA_MOUNTS+=("$OTHER")
inodes=$(status_of inodes)
mkdir "$MNT/a" "$MNT/b"

step "8 processes, $ops operations each, through two mounts"
"$FSSTRESS" -d "$MNT/a" -p 4 -n $ops -s 1 >"$WORK/a.log" 2>&1 & first=$!
"$FSSTRESS" -d "$OTHER/b" -p 4 -n $ops -s 2 >"$WORK/b.log" 2>&1 & second=$!
wait $first || { tail "$WORK/a.log" >&2; fail "fsstress in the first mount"; }
wait $second || { tail "$WORK/b.log" >&2; fail "fsstress in the second mount"; }
same_tree "$MNT" "$OTHER" "two mounts of one cloud"
fsck_clean --data
before=$(tree_sum "$MNT")
down
up
[ "$before" = "$(tree_sum "$MNT")" ] || fail "the tree differs after down and up"

step "nothing is left of what is deleted"
umbel flush # so that there are packs to be left
[ -n "$(find "$ROOT/pool/packs" -type f)" ] || fail "flush wrote no pack"
rm -rf "$MNT/a" "$MNT/b"
# The copies of the centre's state lie in packs too.
packs() { echo $(($(find "$ROOT/pool/packs" -type f | wc -l) - $(grep -c ' meta ' "$MNT/.umbel/packs" || true))); }
left() {
    printf '%s inodes, %s orphans, %s packs in the pool, %s flat files' $(($(status_of inodes) - inodes)) "$(status_of orphans)" \
        "$(packs)" "$(find "$ROOT/node-1/files" -type f | wc -l)"
}
nothing_left() { umbel gc && [ "$(left)" = "0 inodes, 0 orphans, 0 packs in the pool, 0 flat files" ]; }
within "$(slow 60)" nothing_left || fail "left after everything was deleted: $(left)"
fsck_clean --data
say "ok"
