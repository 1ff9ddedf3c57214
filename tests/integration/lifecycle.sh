#!/bin/bash
# What begins and ends mounts, in every order that people and crashes come up with: down of a mount in use, keepers and
# workers that are killed, umount -l, options of a later up.
. "$(dirname "$0")/lib.sh"
make_work

mounted() { grep -q "^[^ ]* $1 fuse.umbel " /proc/self/mounts; }
dead() { ! kill -0 "$1" 2>/dev/null; }

step "down leaves a mount in use, and what is open there goes on"
up
exec {held}>"$MNT/held"
echo one >&$held
refused 1 'in use by process' "$UMBEL" down --root "$ROOT"
mounted "$MNT" || fail "unmounted while in use"
echo two >&$held || fail "the open file does not work any more"
says 'was running at' "$UMBEL" up --root "$ROOT" --mount "$MNT" || fail "up after a down that was refused"
(sleep 3; exec {held}>&-) & closer=$! # this shell's own copy is closed next
exec {held}>&-
down # waits for the one in the background
wait $closer
up
[ "$(cat "$MNT/held")" = $'one\ntwo' ] || fail "in the file: $(cat "$MNT/held")"

step "down --force takes it away"
exec {held}<"$MNT/held"
"$UMBEL" down --root "$ROOT" --force >"$WORK/force.log" 2>&1 || fail "down --force: $(cat "$WORK/force.log")"
! mounted "$MNT" || fail "still mounted after down --force"
exec {held}<&-

step "the keeper is killed"
up
worker=$(pid_of mount-mnt)
kill -KILL "$(pid_of keeper-mnt)"
within 20 dead "$worker" || fail "the worker outlives its keeper"
down
! mounted "$MNT" || fail "down says that the cloud is down, and it is still mounted"
up
worker=$(pid_of mount-mnt)
kill -KILL "$(pid_of keeper-mnt)"
up # at once
[ "$(cat "$MNT/held")" = $'one\ntwo' ] || fail "after up over a killed keeper"

step "the keeper is killed while the worker is frozen"
worker=$(pid_of mount-mnt)
kill -STOP "$worker"
kill -KILL "$(pid_of keeper-mnt)"
refused 1 'not down' "$UMBEL" down --root "$ROOT"
"$UMBEL" down --root "$ROOT" --force >/dev/null 2>&1 || fail "down --force does not end a frozen worker"
within 5 dead "$worker" || fail "a frozen worker is left"
! mounted "$MNT" || fail "a dead mount is left"

step "a mount that is detached while in use does not stand in the way"
up
exec {held}<"$MNT/held"
umount -l "$MNT"
up
mounted "$MNT" || fail "up says that it is mounted"
[ "$(cat <&$held)" = $'one\ntwo' ] || fail "the detached mount does not serve what is open"
umount -l "$MNT"
"$UMBEL" mount --root "$ROOT" "$MNT" >/dev/null
mounted "$MNT" || fail "mount says that it is mounted"
exec {held}<&-
umount "$MNT"
up
mounted "$MNT" || fail "up right after umount"

step "a new capacity takes effect at once"
up --capacity 300M
up --capacity 400M
within 10 says 'capacity 419430400' cat "$MNT/.umbel/nodes/node-1/status" || fail "the node's capacity: $(cat "$MNT/.umbel/nodes/node-1/status")"
[ "$(cat "$MNT/held")" = $'one\ntwo' ] || fail "after a node's restart"
fsck_clean
down
say "ok"
