#!/bin/bash
# Two mounts of one cloud: a random sequence of operations through both has the results that a local filesystem gives.
# --full: 20 seeds of 5000 operations, else 4 of 1000.
. "$(dirname "$0")/lib.sh"
make_work

seeds=4 ops=1000
if full; then seeds=20 ops=5000; fi
OTHER=$WORK/other
mkdir "$OTHER" "$WORK/reference"

up
"$UMBEL" mount --root "$ROOT" "$OTHER" >/dev/null
EXTRA_MOUNTS+=("$OTHER")
says 'was mounted' "$UMBEL" mount --root "$ROOT" "$OTHER" || fail "a second mount at the same place"

step "what one writes the other reads at once"
for i in $(seq 200); do
    echo "$i" >"$MNT/turn"
    [ "$(cat "$OTHER/turn")" = "$i" ] || fail "turn $i: the other mount reads $(cat "$OTHER/turn")"
    echo "back $i" >>"$OTHER/turn"
    [ "$(tail -n 1 "$MNT/turn")" = "back $i" ] || fail "turn $i: this mount reads $(tail -n 1 "$MNT/turn")"
    mv "$MNT/turn" "$MNT/turned"
    [ ! -e "$OTHER/turn" ] && [ -e "$OTHER/turned" ] || fail "turn $i: a rename is not seen"
    rm "$OTHER/turned"
    [ ! -e "$MNT/turned" ] || fail "turn $i: an unlink is not seen"
done

step "both change one directory at the same time"
mkdir "$MNT/shared"
changer() {
    local dir=$1/shared me=$2 i
    for i in $(seq 150); do
        echo "$me" >"$dir/$me.$i" && mv "$dir/$me.$i" "$dir/$me" && mkdir "$dir/$me.d" && echo "$me" >"$dir/$me.d/x" &&
            rm "$dir/$me.d/x" && rmdir "$dir/$me.d" && ls "$dir" >/dev/null || return 1
    done
}
changer "$MNT" a & first=$!
changer "$OTHER" b & second=$!
changer "$MNT" c & third=$!
wait $first && wait $second && wait $third || fail "a change in a directory that both change failed"
for dir in "$MNT" "$OTHER"; do
    [ "$(ls "$dir/shared" | tr '\n' ' ')" = "a b c " ] || fail "in $dir/shared: $(ls "$dir/shared")"
    [ "$(cat "$dir"/shared/? | tr '\n' ' ')" = "a b c " ] || fail "the files of $dir/shared: $(cat "$dir"/shared/?)"
done
# Each makes in, and takes away, a folder that the other changes.
nester() {
    local dir=$1/shared/nest me=$2 i
    for i in $(seq 150); do
        mkdir -p "$dir" 2>/dev/null || true
        if { echo "$me" >"$dir/$me"; } 2>/dev/null; then
            [ "$(cat "$dir/$me")" = "$me" ] || return 1
        fi
        rm -f "$dir/$me"
        rmdir "$dir" 2>/dev/null || true
    done
}
nester "$MNT" a & first=$!
nester "$OTHER" b & second=$!
wait $first && wait $second || fail "a file in a folder that both make and remove was not read back"
rm -r "$MNT/shared"
! grep -h 'does not answer a recall' "$ROOT"/log/* || fail "a recall was not answered"

step "names that one takes away and the other brings back, and the directory's own attributes"
mkdir "$MNT/names"
refused 1 'name too long' stat "$MNT/names/$(printf 'n%.0s' {1..256})"
same_dir() {
    local one other
    one=$(stat -c '%h %a %y %z' "$MNT/names") other=$(stat -c '%h %a %y %z' "$OTHER/names")
    [ "$one" = "$other" ] || fail "$1 $i: the directory is '$one' in one mount and '$other' in the other"
}
for i in $(seq 100); do
    echo "$i" >"$MNT/names/x"
    rm "$MNT/names/x"
    [ ! -e "$MNT/names/x" ] || fail "turn $i: an unlink is not seen by who did it"
    echo "other $i" >"$OTHER/names/x"
    [ "$(cat "$MNT/names/x")" = "other $i" ] || fail "turn $i: what the other made in its place is not seen"
    same_dir "after a create"
    mv "$MNT/names/x" "$MNT/names/y"
    [ ! -e "$MNT/names/x" ] || fail "turn $i: a rename is not seen by who did it"
    mkdir "$OTHER/names/x"
    [ -d "$MNT/names/x" ] || fail "turn $i: a directory in a renamed file's place is not seen"
    same_dir "after a mkdir"
    rmdir "$MNT/names/x"
    chmod $((700 + i % 8)) "$OTHER/names"
    same_dir "after a chmod"
    mv "$OTHER/names/y" "$MNT/names/x" 2>/dev/null || cp "$OTHER/names/y" "$MNT/names/x"
    rm -f "$OTHER/names/x" "$OTHER/names/y"
    [ -z "$(ls "$MNT/names")" ] || fail "turn $i: left: $(ls "$MNT/names")"
    same_dir "after an unlink"
done
rmdir "$MNT/names"

step "a lock on one holds on the other"
touch "$MNT/lock"
flock "$MNT/lock" sleep 1.5 &
sleep 0.4
! flock -n "$OTHER/lock" true || fail "a flock held through one mount was granted through the other"
flock -w 20 "$OTHER/lock" true || fail "a flock was never granted"
wait
rm "$MNT/lock"

# appends HOW: one mount's append waits for the node while another, which was mounted just now, appends.
appends() {
    local mine writer other want
    mkdir -p "$WORK/third"
    "$UMBEL" mount --root "$ROOT" "$WORK/third" >/dev/null
    exec {mine}>>"$MNT/appended"
    echo "$1 begun" >&$mine # the end of the file is known under a lease from here on
    kill "-$1" "$(pid_of node-1)"
    sleep 0.5 # what was sent to a node that dies may have been done: that append would be EIO
    echo "$1 from one" >&$mine & writer=$!
    sleep "$2"
    [ "$1" != KILL ] || "$UMBEL" up --root "$ROOT" >/dev/null &
    echo "$1 from the other" >>"$WORK/third/appended" & other=$!
    [ "$1" != STOP ] || { sleep 0.5; kill -CONT "$(pid_of node-1)"; }
    wait $writer && wait $other || fail "an append failed ($1)"
    wait
    exec {mine}>&-
    for want in "$1 begun" "$1 from one" "$1 from the other"; do
        [ "$(grep -cx "$want" "$MNT/appended")" = 1 ] || fail "of '$want' there is not one: $(cat "$MNT/appended")"
    done
    cmp "$MNT/appended" "$WORK/third/appended"
    rm "$MNT/appended"
    umount "$WORK/third"
}
step "an append that waits for its node overwrites nothing, and comes once"
EXTRA_MOUNTS+=("$WORK/third")
for wait in 0.5 2 4; do
    appends STOP $wait
    appends KILL $wait
done

step "a read that waits for its node costs nobody the session"
head -c 4M /dev/urandom >"$MNT/waited"
exec {held}<"$MNT/waited" {reading}<"$MNT/waited"
dd if="$MNT/waited" iflag=nocache count=0 status=none
kill -STOP "$(pid_of node-1)"
cat <&$reading >/dev/null 2>&1 & reader=$!
sleep 0.5
{ printf x >>"$OTHER/waited"; } & writer=$!
sleep 12
kill -CONT "$(pid_of node-1)"
wait $writer || fail "the other mount could not append"
wait $reader || true # EIO, or all of it: read-ahead that fails is read again
! grep -h 'does not answer a recall' "$ROOT"/log/* || fail "a recall waited for a read"
[ "$(dd bs=1 count=1 status=none <&$held | wc -c)" = 1 ] || fail "what was open is lost"
exec {held}<&- {reading}<&-
cmp "$MNT/waited" "$OTHER/waited"
rm "$MNT/waited"

step "open makes or opens a name that comes and goes"
(while [ ! -e "$WORK/enough" ]; do : >"$OTHER/fleeting" && rm "$OTHER/fleeting"; done) & fleeting=$!
for i in $(seq 1000); do
    { : >>"$MNT/fleeting"; } 2>>"$WORK/opens.log" || true
done
touch "$WORK/enough"
wait $fleeting || fail "who takes it away all the time met an error"
[ ! -s "$WORK/opens.log" ] || fail "$(sed 's/.*fleeting: //' "$WORK/opens.log" | sort | uniq -c)"
rm -f "$MNT/fleeting"

if full; then
    step "a write that was given up is not done later"
    printf 'old' >"$MNT/late"
    kill -STOP "$(pid_of node-1)"
    refused 1 'error writing' dd if=<(printf 'one') of="$MNT/late" conv=notrunc status=none
    kill -CONT "$(pid_of node-1)"
    sleep 1
    [ "$(cat "$MNT/late")" = old ] || fail "a write that failed was done later: $(cat "$MNT/late")"
fi

for seed in $(seq $seeds); do
    step "seed $seed: $ops operations"
    mkdir "$MNT/work"
    # FUSE computes the place of an O_APPEND handle after a write from a size that the other mount may have changed.
    "$TOOLS/fsdiff" --seed "$seed" --ops $ops --loose-append "$WORK/reference" "$MNT/work" "$OTHER/work" >"$WORK/fsdiff.log" 2>&1 ||
        { tail -n 60 "$WORK/fsdiff.log" >&2; fail "seed $seed: the mounts are not like a local filesystem"; }
    rmdir "$OTHER/work"
    fsck_clean
done

step "the test itself finds a difference"
mkdir "$MNT/work"
refused 1 'differ' "$TOOLS/fsdiff" --seed 1 --ops 500 --check 250 --sabotage 250 --loose-append "$WORK/reference" "$MNT/work" "$OTHER/work"
say "ok"
