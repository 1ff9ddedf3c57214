#!/bin/bash
# The centre's folder is gone; the pool has it all: names from the newest copy of the state, contents from packs that
# are newer, lost+found for what only packs know. Then the cloud works on, without reusing a number.
. "$(dirname "$0")/lib.sh"
need setfacl setfattr getfattr
make_work

POOL=$WORK/pool
SRC=$WORK/src

# lose: no process, no centre, no node: only the pool is left
lose() {
    cp "$ROOT/identity/cloud.keys" "$WORK/keys" # what an administrator may have kept
    umount "$MNT" 2>/dev/null || true
    for name in keeper-mnt mount-mnt node-1 control-1; do
        [ ! -e "$ROOT/run/$name.pid" ] || kill -KILL "$(pid_of $name)" 2>/dev/null || true
    done
    sleep 1
    umount -l "$MNT" 2>/dev/null || true
    rm -rf "$ROOT"
}

rebuild() { # NEWROOT [OPTION...]: with the recovery key, if nothing else is said
    ROOT=$WORK/$1
    shift
    [ $# -gt 0 ] || set -- --recovery "$WORK/recovery"
    "$UMBEL" rebuild --root "$ROOT" --pool "dir:$POOL" "$@" >"$WORK/rebuild.log" 2>&1 || { cat "$WORK/rebuild.log" >&2; fail "rebuild"; }
    cat "$WORK/rebuild.log"
    up
}
value() { sed -n "s/^$1 //p" "$WORK/rebuild.log"; }

step "a cloud with everything in it"
up --pool "dir:$POOL"
grep -xE ' *[0-9A-Z]{6}(-[0-9A-Z]{6}){5}' "$WORK/up.log" >"$WORK/recovery" || fail "no recovery key was shown"
umbel set flush_age 3600
umbel set meta_interval 0 # only when it is asked for
cp -a "$SOURCE/control" "$SOURCE/tools" "$MNT/"
mkdir "$MNT/empty" "$MNT/acl" "$MNT/deleted"
ln -s control/README.md "$MNT/link"
ln "$MNT/control/README.md" "$MNT/hard"
mkfifo "$MNT/fifo"
setfacl -m u:12345:rwx,d:u:12345:rwx "$MNT/acl"
setfattr -n user.colour -v green "$MNT/link" 2>/dev/null || setfattr -n user.colour -v green "$MNT/hard"
head -c 150000000 /dev/urandom >"$MNT/large"
truncate -s 3G "$MNT/sparse"
echo end >>"$MNT/sparse"
cp "$MNT/control/README.md" "$MNT/deleted/x"
for n in $(seq 60); do head -c 100000 /dev/urandom >"$MNT/thin$n"; done
umbel flush
rm -r "$MNT/deleted" # before the copy: it must not come back
for n in $(seq 60); do [ $((n % 5)) = 0 ] || rm "$MNT/thin$n"; done
umbel flush
within 20 grep -q ' meta ' "$MNT/.umbel/packs" || fail "there is no meta pack"
find "$MNT" -name sparse -prune -o -type f -print0 | sort -z | xargs -0 sha256sum >"$WORK/before"
before=$(tree_sum "$MNT")
inode=$(stat -c %i "$MNT/hard")
fsck_clean --data

step "it is lost, and put together from the pool"
lose
rebuild second
[ "$(value damaged_files)" = 0 ] || fail "files are damaged"
[ "$(tree_sum "$MNT")" = "$before" ] || { sha256sum -c --quiet "$WORK/before" >&2 || true; fail "the tree differs"; }
[ "$(stat -c %i "$MNT/hard")" = "$inode" ] || fail "an inode number changed"
says '^default:user:12345:rwx' getfacl -c "$MNT/acl" || fail "access list"
getfattr --absolute-names -d -h -m user "$MNT/link" "$MNT/hard" | grep -q green || fail "extended attribute"
[ ! -e "$MNT/deleted" ] && [ ! -e "$MNT/lost+found" ] || fail "something came back from the dead"
fsck_clean --data
umbel key check <"$WORK/recovery" || fail "the recovery key is not that of the rebuilt cloud"
highest() { sed -n 's/^\([0-9]*\) .*/\1/p' "$MNT/.umbel/packs" | sort -n | tail -n 1; }
old=$(find "$POOL/packs" -type f -printf '%f\n' | sort | tail -n 1)

step "it works on; packs newer than the copy, and a gc"
umbel set flush_age 3600
umbel set meta_interval 0
echo new >"$MNT/new" && umbel flush "$MNT/new"
[ "$(find "$POOL/packs" -type f -printf '%f\n' | sort | tail -n 1)" \> "$old" ] || fail "a pack id was used again"
umbel flush # the copy of the state is made here
umbel key rotate # what is newer is sealed under another key, which only the pool's wrapped keys have
mkdir "$WORK/later"
head -c 5000000 /dev/urandom >"$WORK/later/changed"
cp "$WORK/later/changed" "$MNT/large.new"
dd if="$WORK/later/changed" of="$MNT/large" bs=1M seek=10 conv=notrunc status=none
head -c 300000 /dev/urandom >"$WORK/later/only"
cp "$WORK/later/only" "$MNT/only-packs-know"
only=$(stat -c %i "$MNT/only-packs-know")
changed=$(stat -c %i "$MNT/large.new")
umbel flush "$MNT/large.new"
umbel flush "$MNT/large"
umbel flush "$MNT/only-packs-know"
umbel gc # records of the copy move to packs that it does not know
echo staged >"$MNT/never-flushed"
large=$(sha256sum <"$MNT/large")
find "$MNT" \( -name sparse -o -name large.new -o -name only-packs-know -o -name never-flushed \) -prune -o -type f -print0 |
    sort -z | xargs -0 sha256sum >"$WORK/before"
lose
rebuild third
[ "$(value damaged_files)" = 0 ] || fail "files are damaged"
[ "$(value in_lost_found)" = 2 ] || fail "lost+found has $(ls "$MNT/lost+found")"
sha256sum -c --quiet "$WORK/before" || fail "contents differ"
[ "$(sha256sum <"$MNT/large")" = "$large" ] || fail "a change that only packs know is not there"
cmp "$MNT/lost+found/$only" "$WORK/later/only"
cmp "$MNT/lost+found/$changed" "$WORK/later/changed"
[ ! -e "$MNT/never-flushed" ] || fail "what only a node had came back"
fsck_clean --data
echo again >"$MNT/again"
cp "$WORK/later/only" "$MNT/large" # the same inode, a new home
umbel flush
evict_cold
cmp "$MNT/large" "$WORK/later/only"
fsck_clean --data
within 30 umbel gc || fail "gc after rebuild"

step "the newest copy is damaged: the one before is taken"
umbel flush
newest=$(sed -n 's/^\([0-9]*\) meta .*/\1/p' "$MNT/.umbel/packs" | sort -n | tail -n 1)
name=$(printf '%016x' "$newest")
printf '\377\377\377' | dd of="$POOL/packs/${name: -2}/$name" bs=1 seek=5000 conv=notrunc status=none
lose
rebuild fourth --keys "$WORK/keys"
grep -q '^key 2 ' "$ROOT/identity/cloud.keys" || fail "the copy of the keys is not taken over"
within 60 umbel key check --file "$WORK/recovery" || fail "the recovery key is not that of the rebuilt cloud"
grep -q 'not whole' "$WORK/rebuild.log" || fail "nobody said that a copy is damaged"
cmp "$MNT/large" "$WORK/later/only"
fsck_clean

step "what is refused"
down
refused 1 'there is a cloud already|empty' "$UMBEL" rebuild --root "$ROOT" --pool "dir:$POOL"
refused 1 'no pool' "$UMBEL" rebuild --root "$WORK/fifth" --pool "dir:$WORK"
printf 'AAAAAA-AAAAAA-AAAAAA-AAAAAA-AAAAAA-AAAAAA\n' >"$WORK/mistyped"
refused 1 'mistyped' "$UMBEL" rebuild --root "$WORK/fifth" --pool "dir:$POOL" --recovery "$WORK/mistyped"
refused 1 'No such file' "$UMBEL" rebuild --root "$WORK/fifth" --pool "dir:$POOL" --recovery "$WORK/nothing"
refused 2 'exclude' "$UMBEL" rebuild --root "$WORK/fifth" --pool "dir:$POOL" --recovery "$WORK/recovery" --keys "$WORK/keys"
no_key() { "$UMBEL" rebuild --root "$WORK/fifth" --pool "dir:$POOL" </dev/null; }
refused 1 'is sealed' no_key
[ ! -e "$WORK/fifth" ] || fail "a refused rebuild left something behind"
refused 2 'say --root' "$UMBEL" rebuild --root "$WORK/fifth"
up
say "ok"
