#!/bin/bash
# A cloud from nothing: the common use of files through the mount, the commands around it, and the same
# content after down and up.
. "$(dirname "$0")/lib.sh"
need flock setfacl getfattr setfattr
make_work

step "up"
up
[ "$(findmnt -no FSTYPE "$MNT" | cut -c1-4)" = fuse ] || fail "nothing is mounted at $MNT"
[ "$(stat -c %a "$ROOT")" = 700 ] || fail "the root is open to others"
! find "$ROOT" ! -type l -perm /077 -print -quit | grep . || fail "open to others"
node=$(pid_of node-1)
says 'was running' "$UMBEL" up --root "$ROOT" --mount "$MNT" || fail "up does not find what runs"
"$UMBEL" up --root "$ROOT" >/dev/null || fail "up without options"
[ "$(pid_of node-1)" = "$node" ] || fail "up starts a node anew that runs"

step "what applications ask of a filesystem"
mkdir "$MNT/probe" "$WORK/probe"
"$TOOLS/probe" "$WORK/probe" || fail "the probe fails on the local filesystem too"
"$TOOLS/probe" "$MNT/probe" || fail "probe"
rm -r "$MNT/probe/sparse" # gigabytes of nothing, which every checksum below would read

step "files, folders, links"
mkdir -p "$MNT/a/b/c" "$WORK/plain"
for size in 0 1 4095 4096 4097 131072 1048576 1048577 5000000; do
    head -c $size /dev/urandom >"$WORK/plain/size-$size"
    cp "$WORK/plain/size-$size" "$MNT/a/size-$size"
done
for size in 0 1 4095 4096 4097 131072 1048576 1048577 5000000; do
    cmp "$WORK/plain/size-$size" "$MNT/a/size-$size"
done
ln "$MNT/a/size-4096" "$MNT/a/b/hard"
ln -s ../size-4097 "$MNT/a/b/soft"
ln -s /nowhere/at/all "$MNT/a/b/dangling"
mkfifo "$MNT/a/b/fifo"
mknod "$MNT/a/b/null" c 1 3
cmp "$MNT/a/b/hard" "$WORK/plain/size-4096"
cmp "$MNT/a/b/soft" "$WORK/plain/size-4097"
[ "$(stat -c %h "$MNT/a/b/hard")" = 2 ] || fail "two links, but $(stat -c %h "$MNT/a/b/hard") counted"
[ "$(stat -c %F:%t:%T "$MNT/a/b/null")" = "character special file:1:3" ] || fail "a device became $(stat -c %F:%t:%T "$MNT/a/b/null")"
mkdir "$MNT/many"
(cd "$MNT/many" && seq -f 'entry-%05g' 3000 | xargs touch)
[ "$(ls "$MNT/many" | sort | sha256sum)" = "$(seq -f 'entry-%05g' 3000 | sha256sum)" ] || fail "a listing of 3000 differs"
(cd "$MNT/many" && seq -f 'entry-%05g' 1 2 3000 | xargs rm)
[ "$(ls "$MNT/many" | wc -l)" = 1500 ] || fail "half of 3000 were removed, $(ls "$MNT/many" | wc -l) are left"
for i in 1 2 3 4 5 6 7 8; do echo "line $i" >>"$MNT/a/appended"; done
[ "$(wc -l <"$MNT/a/appended")" = 8 ] || fail "appending"
dd if=/dev/zero of="$MNT/a/sparse" bs=1 count=1 seek=10G status=none
[ "$(stat -c %s "$MNT/a/sparse")" = $((10 * 1024 * 1024 * 1024 + 1)) ] || fail "size of a sparse file"
truncate -s 20M "$MNT/a/sparse" # enough to read over and over
truncate -s 100000 "$MNT/a/size-5000000" "$WORK/plain/size-5000000"
cmp "$MNT/a/size-5000000" "$WORK/plain/size-5000000"
mv "$MNT/a/size-1" "$MNT/a/b/c/moved" && cmp "$MNT/a/b/c/moved" "$WORK/plain/size-1"

step "extended attributes and access lists"
setfattr -n user.colour -v green "$MNT/a/size-0"
[ "$(getfattr --absolute-names --only-values -n user.colour "$MNT/a/size-0")" = green ] || fail "xattr"
mkdir "$MNT/acl" && chmod 755 "$MNT" "$MNT/acl"
setfacl -m u:12345:rwx,d:u:12345:rwx "$MNT/acl"
touch "$MNT/acl/inherits"
says '^user:12345:rw' getfacl -c "$MNT/acl/inherits" || fail "a default access list is not inherited"
chmod 700 "$MNT/acl/inherits" && setfacl -m u:12345:rw "$MNT/acl/inherits"
says '^mask::rw' getfacl -c "$MNT/acl/inherits" || fail "setfacl did not set the mask"
setpriv --reuid 12345 --regid 12345 --clear-groups cat "$MNT/acl/inherits" || fail "an access list that grants is not obeyed"
refused 1 'denied' setpriv --reuid 54321 --regid 54321 --clear-groups cat "$MNT/acl/inherits"

step "locks"
touch "$MNT/lock"
flock "$MNT/lock" sleep 1.5 &
sleep 0.4
! flock -n "$MNT/lock" true || fail "a held flock was granted again"
flock -w 20 "$MNT/lock" true || fail "a flock was never granted"
wait

step "control files and their commands"
! says umbel ls -A "$MNT" || fail ".umbel is listed"
says '^cloud' umbel status || fail "status"
! command -v python3 >/dev/null || umbel status --json | python3 -c 'import json, sys; s = json.load(sys.stdin); assert s["nodes_here"] == 1 and len(s["nodes"]) == 1, s'
within 15 umbel health || fail "health: $(umbel health)"
says . umbel events || fail "no events"
says node-1 umbel where "$MNT/a/size-131072" || fail "where: $(umbel where "$MNT/a/size-131072")"
umbel set >/dev/null
setting=$(umbel set | awk '$1 == "flush_age" { print $2 }')
umbel set flush_age $((setting + 7))
[ "$(umbel set flush_age | awk '{ print $2 }')" = $((setting + 7)) ] || fail "a setting did not change"
umbel set flush_age "$setting"
(cd "$MNT/a/b" && "$UMBEL" status >/dev/null) || fail "the cloud of the working directory is not found"
"$UMBEL" status --root "$ROOT" >/dev/null || fail "the cloud of --root is not found"

step "flush, evict, warm: where data lies changes, the data does not"
before=$(tree_sum "$MNT/a")
umbel flush "$MNT/a/size-131072"
umbel flush
nothing_staged() { [ "$(status_of staged)" = 0 ]; }
within 30 nothing_staged || fail "after flush, $(status_of staged) bytes are staged"
fsck_clean --data
evict_cold
within 30 sh -c "[ \$(sed -n 's/^cached //p' '$MNT/.umbel/status') -lt 1000000 ]" || fail "after evict, $(status_of cached) bytes are cached"
[ "$before" = "$(tree_sum "$MNT/a")" ] || fail "data differs after evict"
umbel evict "$MNT/a"
for _ in $(seq 50); do
    echo "warm /a/size-131072" >"$MNT/.umbel/ctl"
    echo "evict /a/size-131072" >"$MNT/.umbel/ctl"
    table=$(<"$MNT/.umbel/cache")
    [[ $table != */a/size-131072\ *\ cached* ]] || fail "evict was answered before the cache table knew it"
done
umbel warm "$MNT/a"
[ "$before" = "$(tree_sum "$MNT/a")" ] || fail "data differs after warm"

step "down, up: the same"
before=$(tree_sum "$MNT") inode=$(stat -c %i "$MNT/a/b/hard")
down
! grep -qF " $MNT " /proc/self/mounts || fail "still mounted after down"
for name in control-1 node-1 keeper-mnt mount-mnt; do
    [ ! -e "$ROOT/run/$name.pid" ] || fail "$name.pid is left after down"
done
[ -z "$(ls -A "$MNT")" ] || fail "something was written under the mountpoint"
says 'was not running' "$UMBEL" down --root "$ROOT" || fail "down of what is down"
up
[ "$before" = "$(tree_sum "$MNT")" ] || fail "the tree differs after down and up"
[ "$inode" = "$(stat -c %i "$MNT/a/b/hard")" ] || fail "an inode number changed"
[ "$(getfattr --absolute-names --only-values -n user.colour "$MNT/a/size-0")" = green ] || fail "xattr after down and up"
says '^default:user:12345:rwx' getfacl -c "$MNT/acl" || fail "access list after down and up"
fsck_clean --data

step "remove all"
rm -rf "${MNT:?}"/*
[ -z "$(ls -A "$MNT")" ] || fail "something is left: $(ls -A "$MNT")"
only_the_root() { [ "$(status_of inodes)" = 1 ]; }
within 30 only_the_root || fail "$(status_of inodes) inodes are left"
fsck_clean
umount "$MNT" || fail "umount"
within 20 test ! -e "$ROOT/run/keeper-mnt.pid" || fail "the mount's process outlives umount"
say "ok"
