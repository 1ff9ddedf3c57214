#!/bin/bash
# Bad input of every kind: each gives a clear error, and nothing else stops working.
. "$(dirname "$0")/lib.sh"
need setfattr
make_work
uphere() { "$UMBEL" up --root "$ROOT" "$@"; }
alive() { echo alive >"$MNT/alive" && [ "$(cat "$MNT/alive")" = alive ] && rm "$MNT/alive"; }

# The text of all events since the mark that `mark_events` made.
mark_events() { events_before=$(umbel events | wc -l); }
new_events() { umbel events | tail -n +$((events_before + 1)); }

step "roots and mountpoints"
mkdir "$WORK/not-a-cloud" "$WORK/newer" && echo something >"$WORK/not-a-cloud/file"
refused 1 'not the root of a cloud.*empty folder' "$UMBEL" up --root "$WORK/not-a-cloud"
[ "$(ls -A "$WORK/not-a-cloud")" = file ] || fail "a refused up left something behind"
refused 1 'not the root of a cloud' "$UMBEL" down --root "$WORK/not-a-cloud"
refused 1 'not a folder' "$UMBEL" up --root "$WORK/not-a-cloud/file"
refused 1 'pool' "$UMBEL" up --root "$WORK/other" --pool http://example.invalid/
[ ! -e "$WORK/other" ] || fail "a refused up left something behind"
refused 1 'No such file' "$UMBEL" up --root "$WORK/other" --pool "dir:$WORK/no/such/pool"
setpriv --reuid 65534 --regid 65534 --clear-groups test -x "$UMBEL" 2>/dev/null &&
    refused 1 'root' setpriv --reuid 65534 --regid 65534 --clear-groups "$UMBEL" up --root /tmp/x
up
printf 'format = 999\nwhatever = 1\n' >"$WORK/newer/umbel.conf"
refused 1 'newer' "$UMBEL" up --root "$WORK/newer"
refused 1 'in use' "$UMBEL" mount --root "$ROOT" /proc
mkdir "$WORK/taken" && mount -t tmpfs -o size=1m none "$WORK/taken" && EXTRA_MOUNTS+=("$WORK/taken")
refused 1 'in use' "$UMBEL" mount --root "$ROOT" "$WORK/taken"
refused 1 'in use' uphere --mount "$WORK/taken"
refused 1 'No such file' "$UMBEL" mount --root "$ROOT" "$WORK/nowhere"
refused 1 'not a folder' "$UMBEL" mount --root "$ROOT" "$WORK/not-a-cloud/file"
refused 1 'in one another' "$UMBEL" mount --root "$ROOT" "$ROOT/log"
refused 1 'pool' uphere --pool "dir:$WORK/not-a-cloud"
(flock 9 && refused 1 'another umbel command' uphere && refused 1 'another umbel command' "$UMBEL" down --root "$ROOT") 9<"$ROOT"
refused 1 'runs already' "$UMBEL" node --root "$ROOT" --name node-1
refused 2 'no .node-9' "$UMBEL" node --root "$ROOT" --name node-9
mkdir "$WORK/second"
refused 1 'another cloud|belongs' "$UMBEL" up --root "$WORK/second" --pool "dir:$ROOT/pool"
alive

step "nonsense in control files"
errors_before=$(wc -l <"$MNT/.umbel/errors")
for command in '' 'nonsense' 'flush /no/such/file' 'evict' 'warm' 'gc now' "$(head -c 5000 /dev/zero | tr '\0' x)" $'flush\n\n\nflush' '%s%n%s'; do
    ! printf '%s' "$command" >"$MNT/.umbel/ctl" 2>/dev/null || [ -z "$command" ] || [[ $command == flush$'\n'* ]] || fail "ctl took '${command:0:40}'"
done
! printf 'flush\0flush' >"$MNT/.umbel/ctl" 2>/dev/null || fail "ctl took a NUL"
! head -c 300000 /dev/urandom >"$MNT/.umbel/ctl" 2>/dev/null || fail "ctl took noise"
! echo nonsense >"$MNT/.umbel/nodes/node-1/ctl" 2>/dev/null || fail "a node's ctl took nonsense"
for value in '' x -1 101 99999999999999999999 '50 50'; do
    ! printf '%s\n' "$value" >"$MNT/.umbel/settings/high_water" 2>/dev/null || fail "high_water took '$value'"
done
[ "$(wc -l <"$MNT/.umbel/errors")" -gt "$errors_before" ] || fail "errors has no line for what was refused"
refused 1 "nearest is 'high_water'" umbel set high_watr 80
refused 1 'high_water' umbel set high_water 1000
refused 1 "nearest is 'node-1'" umbel drain node-2
refused 1 'not in the cloud' umbel flush /etc/hostname
refused 1 'No such file' umbel evict "$MNT/no-such-file"
! touch "$MNT/.umbel/new" 2>/dev/null || fail "a file was made in .umbel"
! mkdir "$MNT/.umbel" 2>/dev/null || fail ".umbel was made"
! rmdir "$MNT/.umbel" 2>/dev/null || fail ".umbel was removed"
! rm "$MNT/.umbel/status" 2>/dev/null || fail "status was removed"
! mv "$MNT/.umbel/status" "$MNT/x" 2>/dev/null || fail "status was renamed"
! truncate -s 5 "$MNT/.umbel/version" 2>/dev/null || fail "version was written"
! cat "$MNT/.umbel/ctl" 2>/dev/null || fail "ctl can be read"
! setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "echo gc >'$MNT/.umbel/ctl'" 2>/dev/null || fail "anybody may write ctl"
alive

step "garbage on every socket"
for socket in "$ROOT"/run/*.sock; do
    name=$(basename "$socket" .sock) pid=$(pid_of "$(basename "$socket" .sock)")
    "$TOOLS/garbage" "$socket" 300 || fail "garbage on $name"
    kill -0 "$pid" || fail "$name did not outlive garbage"
    [ "$(stat -c %a "$socket")" = 600 ] || fail "$socket is open to others"
done
alive

step "a damaged pack is EIO, with the pack named, and repaired by nobody's silence"
head -c 3000000 /dev/urandom >"$MNT/damaged"
cp "$MNT/damaged" "$WORK/damaged"
echo sound >"$MNT/sound"
umbel flush && evict_cold
cp -a "$ROOT/pool" "$WORK/pool.good"
largest=$(find "$ROOT/pool/packs" -type f -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
mark_events
chmod u+w "$largest"
printf '\377' | dd of="$largest" bs=1 seek=$(($(stat -c %s "$largest") / 2)) conv=notrunc status=none
printf '\000' | dd of="$largest" bs=1 seek=$(($(stat -c %s "$largest") / 2 + 1)) conv=notrunc status=none
refused 1 'Input/output error' cat "$MNT/damaged"
pack_in_events() { new_events | grep -i pack; }
within 10 pack_in_events || fail "no event names the pack: $(new_events)"
refused 1 'problem pack' umbel fsck --data
alive
for name in control-1 node-1; do kill -0 "$(pid_of $name)" || fail "$name did not outlive a damaged pack"; done
cat "$WORK/pool.good${largest#"$ROOT/pool"}" >"$largest"
cmp "$MNT/damaged" "$WORK/damaged" || fail "data is not read again after the pack was repaired"
fsck_clean --data

step "a pack that is gone"
evict_cold
down # a node that runs may still have it open
mv "$largest" "$WORK/pack"
up
refused 1 'Input/output error' cat "$MNT/damaged"
refused 1 'problem pack' umbel fsck
mv "$WORK/pack" "$largest"
cmp "$MNT/damaged" "$WORK/damaged"

step "a pool that takes nothing: staged data waits"
# Mounted over it, so that the whole of it comes back in one step: a flush never sees it half.
mount -t tmpfs -o ro tmpfs "$ROOT/pool/packs" || skip "cannot mount a tmpfs"
EXTRA_MOUNTS+=("$ROOT/pool/packs")
echo staged >"$MNT/staged"
refused 1 'umbel' umbel flush
[ "$(cat "$MNT/staged")" = staged ] || fail "staged data is gone with the pool"
unhealthy() { ! umbel health; }
within 15 unhealthy || fail "a pool that takes nothing is called healthy"
umount "$ROOT/pool/packs"
within 60 umbel flush || fail "no flush after the pool came back: $(umbel flush 2>&1)"
within 30 umbel health || fail "still not healthy: $(umbel health)"
fsck_clean --data
umbel evict "$MNT/damaged"
down

step "a pool that is away when the cloud starts: what the nodes hold is served"
mv "$ROOT/pool" "$WORK/pool.away"
mkdir "$ROOT/pool" # as a mountpoint on which nothing is mounted
up
within 15 unhealthy || fail "a pool that is away is called healthy"
refused 1 "no pool in $ROOT/pool .*mounted" umbel health
[ "$(cat "$MNT/staged")" = staged ] || fail "what a node holds is not read without the pool"
echo "written without a pool" >"$MNT/without"
refused 1 "no pool in $ROOT/pool" umbel flush
refused 1 "no pool in $ROOT/pool" umbel fsck
timeout 30 cat "$MNT/damaged" >/dev/null 2>&1 && fail "what only the pool has was read without it"
[ -z "$(ls -A "$ROOT/pool")" ] || fail "a pool was made where none is mounted"
rmdir "$ROOT/pool"
says_no_folder() { grep 'pool.*No such file' <<<"$(umbel health)"; }
within 15 says_no_folder || fail "health does not say that the pool's folder is missing: $(umbel health)"
mv "$WORK/pool.away" "$ROOT/pool"
within 30 umbel health || fail "the pool that is back is not found: $(umbel health)"
within 30 umbel flush || fail "no flush after the pool is back: $(umbel flush 2>&1)"
cmp "$MNT/damaged" "$WORK/damaged"

step "a pool that goes away, and another in its place"
mv "$ROOT/pool" "$WORK/pool.away"
cp -a "$WORK/pool.away" "$ROOT/pool" # as a copy that was restored
echo "after the copy" >"$MNT/copied"
within 30 umbel flush || fail "no flush into the restored pool: $(umbel flush 2>&1)"
rm -r "$WORK/pool.away"
within 30 umbel health || fail "still not healthy: $(umbel health)"
evict_cold
cmp "$MNT/damaged" "$WORK/damaged"
[ "$(cat "$MNT/copied" "$MNT/without")" = $'after the copy\nwritten without a pool' ] || fail "what was flushed is not read from the restored pool"
fsck_clean --data
down

step "damaged files of the node and of the control process"
# damage PATTERN FILE HOW: up must refuse clearly, and work again when the file is whole
damage() {
    local keep=$WORK/whole
    rm -rf "$keep" && cp -a "$2" "$keep"
    $3 "$2" # may be several words
    refused 1 "$1" uphere --mount "$MNT"
    say "${2#"$ROOT"/}: $(tail -n 1 "$WORK/refused.log")"
    "$UMBEL" down --root "$ROOT" >/dev/null
    rm -rf "$2" && cp -a "$keep" "$2"
}
cut_half() { truncate -s $(($(stat -c %s "$1") / 2)) "$1"; }
flip_middle() {
    local at=$(($(stat -c %s "$1") / 2)) old
    old=$(od -An -tu1 -j $at -N1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059 # an octal escape is meant
    printf "\\$(printf %03o $((old ^ 255)))" | dd of="$1" bs=1 seek=$at conv=notrunc status=none
}
up && dd if=/dev/urandom of="$MNT/many" bs=4096 count=200 oflag=dsync status=none && down
journal=$(find "$ROOT/node-1/index" -name 'journal.*' -size +0 -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
[ -n "$journal" ] || [ -s "$ROOT/node-1/index/checkpoint" ] || fail "the node keeps neither a journal nor a checkpoint"
if [ -n "$journal" ]; then
    damage 'node-1: .*(journal|damaged)' "$journal" cut_half
    damage 'node-1: .*(journal|damaged)' "$journal" flip_middle
fi
[ ! -s "$ROOT/node-1/index/checkpoint" ] || damage 'node-1: .*(checkpoint|damaged)' "$ROOT/node-1/index/checkpoint" flip_middle
segment=$(find "$ROOT/control-1/log" -name '*-*' -type f -size +8k -printf '%s %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
[ -n "$segment" ] || fail "the control process keeps no log"
damage 'control-1: the log .* cannot be used .*; put back' "$segment" cut_half
damage 'control-1: the log .* cannot be used .*; put back' "$segment" flip_middle
damage 'control-1: the log .* cannot be used .*; put back' "$segment" rm
remove_from_segment() { find "$1" -name '*-*' | sort | sed -n "/${segment##*/}/,\$p" | xargs rm; }
damage 'control-1: the state .* commands and the log .*; put' "$ROOT/control-1/log" remove_from_segment
for metadata in "$ROOT"/control-1/log/metadata*; do damage 'control-1: the log .* cannot be used .*; put back' "$metadata" cut_half; done
damage 'control-1: its log is missing .*; put the folder back' "$ROOT/control-1" "rm -r"
damage 'node-1: .*another store' "$ROOT/node-1" "rm -r"
damage 'node-1: .*damaged: staged data' "$ROOT/node-1/files" "rm -r"
sed -i 's/^capacity = .*/capacity = lots/' "$ROOT/umbel.conf"
refused 1 "'lots' cannot be the value of capacity" uphere
sed -i 's/^capacity = .*/capcity = 1073741824/' "$ROOT/umbel.conf"
refused 1 "nearest is 'capacity'" uphere
sed -i 's/^capcity/capacity/' "$ROOT/umbel.conf"
up
cmp "$MNT/damaged" "$WORK/damaged"
down

# What is written when a disk is full must be refused with ENOSPC, and all else must go on.
fill() {
    local i
    for i in $(seq 2000); do
        head -c $((1 << 20)) /dev/urandom >"$MNT/fill-$i" 2>>"$WORK/fill.log" || return 0
    done
    return 1
}

step "a full disk under the node"
ROOT=$WORK/root2
small_filesystem 300 "$WORK/small"
up --capacity 1G --nodes 1 && down
cp -a "$ROOT/node-1" "$WORK/small/"
mount --bind "$WORK/small/node-1" "$ROOT/node-1" && EXTRA_MOUNTS+=("$ROOT/node-1")
up
echo before >"$MNT/before"
head -c 600000000 /dev/urandom 2>/dev/null | split -b 4000000 - "$MNT/part-" 2>"$WORK/full.log" || grep -qi 'no space' "$WORK/full.log" || fail "a full disk gave: $(cat "$WORK/full.log")"
[ "$(cat "$MNT/before")" = before ] || fail "what was there is not read any more"
kill -0 "$(pid_of node-1)" || fail "the node did not outlive a full disk"
rm -f "$MNT"/part-*
within 60 alive || fail "nothing can be written after space was made"
fsck_clean --data
down

step "a full disk under the pool"
ROOT=$WORK/root3
small_filesystem 80 "$WORK/small-pool"
up --capacity 256M --pool "dir:$WORK/small-pool/pool"
echo before >"$MNT/before" && umbel flush
fill || fail "2 GB went into a node of 256 MiB and a pool of 80 MiB"
grep -qi 'no space' "$WORK/fill.log" || fail "a full pool gave: $(tail -n 3 "$WORK/fill.log")"
[ "$(cat "$MNT/before")" = before ] || fail "what was there is not read any more"
! umbel health >/dev/null || fail "a full pool is called healthy"
for i in 1 2 3; do cmp -n 1048576 "$MNT/fill-$i" "$MNT/fill-$i" || fail "fill-$i cannot be read"; done
rm "$MNT"/fill-*
space_again() { umbel gc; head -c 3000000 /dev/urandom >"$MNT/again" && umbel flush; }
within "$(slow 90)" space_again || fail "no space after everything was removed: $(umbel health)"
fsck_clean --data
down

step "a full disk under the log"
ROOT=$WORK/small-log/root
small_filesystem 600 "$WORK/small-log"
up --capacity 64M --pool "dir:$WORK/log-pool"
echo before >"$MNT/before"
free=$(df --output=avail -B1 "$WORK/small-log" | tail -n 1)
head -c $((free - 60000000)) /dev/zero >"$WORK/small-log/ballast"
refusals=0
for i in $(seq 300); do mkdir "$MNT/dir-$i" 2>>"$WORK/log.log" || refusals=$((refusals + 1)); [ $refusals -lt 3 ] || break; sleep 0.02; done
[ $refusals -ge 3 ] || fail "a disk full to its reserve took $i more changes"
grep -qi 'no space' "$WORK/log.log" || fail "a full log gave: $(tail -n 3 "$WORK/log.log")"
[ "$(cat "$MNT/before")" = before ] || fail "reading stopped with the log's disk full"
! umbel health >/dev/null || fail "a full log is called healthy"
rm "$WORK/small-log/ballast"
within 30 mkdir "$MNT/after" || fail "no changes after space was made"
fsck_clean
down

step "no space at all for a cloud"
small_filesystem 20 "$WORK/tiny"
refused 1 'no space' "$UMBEL" up --root "$WORK/tiny/root"
[ ! -e "$WORK/tiny/root" ] || fail "a refused up left something behind"
say "ok"
