#!/usr/bin/env bash
# Sealed clouds: nothing lies in the pool in plain, damage is found and never returned, keys are for root alone, the
# recovery key is shown once and kept nowhere, keys can be changed, and a cloud that is not sealed goes on without.
. "$(dirname "$0")/lib.sh"

PHRASE='the quick brown umbel hides in the pool 4711'
KEYS='identity/cloud.keys'

pool_holds() { grep -rqaF -- "$1" "$ROOT/pool"; }

# Many times the same, 9,000,000 bytes of it.
large() { (set +Eeo pipefail; trap - ERR; yes "$PHRASE" 2>/dev/null | head -c 9000000; true); }

plain_files() {
    mkdir -p "$MNT/folder-with-a-name-to-be-found"
    for i in 1 2 3 4 5; do printf '%s\n' "$PHRASE $i" >"$MNT/folder-with-a-name-to-be-found/secret-file-name-$i"; done
    # Large and regular, over many pages.
    large >"$MNT/large"
    sha256sum "$MNT/large" | cut -d' ' -f1 >"$WORK/large.sum"
}

read_back() {
    evict_cold
    [ "$(sha256sum "$MNT/large" | cut -d' ' -f1)" = "$(cat "$WORK/large.sum")" ] || fail "large differs after $1"
    grep -qF "$PHRASE 3" "$MNT/folder-with-a-name-to-be-found/secret-file-name-3" || fail "a small file differs after $1"
}

# The recovery keys that a text shows, one a line.
recovery_keys() { grep -xE ' *[0-9A-Z]{6}(-[0-9A-Z]{6}){5}' "$1" | tr -d ' '; }
# nowhere KEY: not in the cloud's folder, in any form in which it was shown. (The state's file is sparse and huge; its
# log is searched.)
nowhere() {
    ! grep -rqaF --exclude-dir=state -e "${1//-/}" -e "${1:0:13}" "$ROOT" || fail "the recovery key lies in the cloud's folder"
}
generation() { status_of key_generation; }
# Packs, by the generation of the key under which they are sealed: the header says it in plain.
packs_of() { # GENERATION
    local pack n=0
    while read -r pack; do
        [ "$(od -An -tu4 -j24 -N4 "$pack" | tr -d ' ')" != "$1" ] || n=$((n + 1))
    done < <(find "$ROOT/pool/packs" -type f)
    echo $n
}

make_work

step "a cloud is sealed unless it is said otherwise"
up
says '^seal on$' cat "$MNT/.umbel/status" || fail "status does not say that the cloud is sealed"
says '^key_generation 1$' cat "$MNT/.umbel/status" || fail "status does not say the key's generation"
[ "$(stat -c %a "$ROOT/$KEYS")" = 600 ] || fail "$KEYS is not for its owner alone"

step "nothing lies in the pool in plain"
plain_files
umbel flush
[ "$(find "$ROOT/pool/packs" -type f | wc -l)" -gt 0 ] || fail "no pack was written"
for text in "$PHRASE" 'quick brown umbel' 'folder-with-a-name' 'secret-file-name'; do
    pool_holds "$text" && fail "'$text' can be read in the pool"
done
pool_holds UMBELPAK || fail "the search would find nothing at all"
key=$(sed -n 's/^key 1 //p' "$ROOT/$KEYS")
[ ${#key} = 64 ] || fail "$KEYS has no key of generation 1"
grep -rqaF -- "$key" "$ROOT/pool" "$ROOT/log" "$ROOT/control-1/log" "$ROOT"/node-* && fail "the cloud's key lies elsewhere, too"
read_back "the first flush"
fsck_clean --data

step "the recovery key is shown once and kept nowhere"
recovery=$(recovery_keys "$WORK/up.log")
[ "$(wc -l <<<"$recovery")" = 1 ] && [ -n "$recovery" ] || fail "umbel up did not show one recovery key: $recovery"
nowhere "$recovery"
says 'was running' "$UMBEL" up --root "$ROOT" --mount "$MNT" || fail "up again"
"$UMBEL" up --root "$ROOT" --mount "$MNT" >"$WORK/again.log" 2>&1
! recovery_keys "$WORK/again.log" || fail "it is shown again"
[ "$(find "$ROOT/pool/keys" -type f | wc -l)" = 2 ] || fail "the wrapped keys are not in the pool"
[ "$(status_of recovery_key_stored)" = yes ] || fail "status does not know that the pool has them"
full_up() { "$UMBEL" up --root "$WORK/nobody-sees" >/dev/full; }
refused 1 'recovery key cannot be shown' full_up
[ ! -e "$WORK/nobody-sees/umbel.conf" ] || fail "a cloud was made whose recovery key nobody has seen"
"$UMBEL" up --root "$WORK/nobody-sees" >"$WORK/seen.log" 2>&1 || fail "the creation does not go on"
"$UMBEL" down --root "$WORK/nobody-sees" >/dev/null
recovery_keys "$WORK/seen.log" >/dev/null || fail "and shows no recovery key then"

step "umbel key check"
check() { umbel key check <<<"$1"; } # KEY
says 'generations 1 to 1' check "$recovery" || fail "the right key"
says 'generations 1 to 1' check "$(tr 'A-Z01-' 'a-zol ' <<<"$recovery")" || fail "the right key, otherwise typed"
printf '%s' "$recovery" >"$WORK/recovery"
says '"right"' umbel key check --json --file "$WORK/recovery" || fail "the right key in a file"
last=${recovery: -1}
refused 1 'mistyped' check "${recovery%?}$([ "$last" = 7 ] && echo 8 || echo 7)"
refused 1 'no recovery key: it has 36' check "${recovery%?}"
refused 1 'no recovery key' check 'hello'
refused 1 'no recovery key' check ''
refused 1 'another one' check "$(recovery_keys "$WORK/seen.log" | tail -n 1)"
refused 2 'never given here' umbel key check "$recovery"
refused 2 "nearest is 'rotate'" umbel key rotat
refused 2 'say check' umbel key

step "umbel key rotate: what is new is sealed under a new key, what is old stays readable"
[ "$(packs_of 2)" = 0 ] || fail "there are packs of generation 2 already"
says 'key_generation 2' umbel key rotate || fail "rotate"
[ "$(generation)" = 2 ] || fail "the generation is $(generation)"
echo "$PHRASE after" >"$MNT/after"
umbel flush
[ "$(packs_of 2)" -gt 0 ] && [ "$(packs_of 1)" -gt 0 ] || fail "packs: $(packs_of 1) of key 1, $(packs_of 2) of key 2"
read_back "rotate"
fsck_clean --data
says 'generations 1 to 2' check "$recovery" || fail "the recovery key does not open the new generation"
[ "$(find "$ROOT/pool/keys" -type f | wc -l)" = 2 ] || fail "older wrapped keys stay in the pool"

step "no new key is used that the recovery key would not open"
mv "$ROOT/pool" "$ROOT/pool.away"
refused 1 'counts only when the pool has' umbel key rotate
[ "$(generation)" = 2 ] || fail "a key is used that is not in the pool"
[ "$(status_of recovery_key_stored)" = no ] || fail "status says that the pool has it"
says 'problem the pool has not got the wrapped keys' cat "$MNT/.umbel/health" || fail "health does not say it"
refused 1 'change before' umbel key rotate
down
up
[ "$(generation)" = 2 ] || fail "after a restart a key is used that is not in the pool"
mv "$ROOT/pool.away" "$ROOT/pool"
is_generation() { [ "$(generation)" = "$1" ]; }
within 60 is_generation 3 || fail "it is not made up for: $(cat "$MNT/.umbel/health")"
says 'generations 1 to 3' check "$recovery" || fail "the recovery key does not open generation 3"

step "umbel gc --reseal: nothing is sealed under an older key any more, while others read and write"
large >"$WORK/large"
(for _ in 1 2 3 4; do
    echo "evict /large" >"$MNT/.umbel/ctl"
    cmp "$WORK/large" "$MNT/large" || exit 1
done) >"$WORK/reader.log" 2>&1 &
reader=$!
(for n in 1 2 3 4 5; do
    large >"$MNT/busy$n"
    echo "flush /busy$n" >"$MNT/.umbel/ctl"
done) >"$WORK/writer.log" 2>&1 &
writer=$!
umbel gc --reseal >"$WORK/reseal.log" 2>&1 || { cat "$WORK/reseal.log" >&2; fail "gc --reseal"; }
wait $reader || { cat "$WORK/reader.log" >&2; fail "a reader met wrong data while packs were sealed anew"; }
wait $writer || { cat "$WORK/writer.log" >&2; fail "a writer failed while packs were sealed anew"; }
grep -q '^packs_of_older_keys 0$' "$WORK/reseal.log" || fail "not all: $(cat "$WORK/reseal.log")"
[ "$(sed -n 's/^packs_rewritten //p' "$WORK/reseal.log")" -gt 0 ] || fail "nothing was rewritten: $(cat "$WORK/reseal.log")"
! awk '($2 == "live" || $2 == "meta") && $6 < 3' "$MNT/.umbel/packs" | grep . || fail "these are of older keys"
[ "$(packs_of 1)$(packs_of 2)" = 00 ] && [ "$(packs_of 3)" -gt 0 ] || fail "packs: $(packs_of 1), $(packs_of 2), $(packs_of 3)"
for n in 1 2 3 4 5; do cmp "$WORK/large" "$MNT/busy$n" || fail "busy$n differs"; done
read_back "gc --reseal"
fsck_clean --data
umbel gc --reseal >"$WORK/reseal.log" || fail "once more"
grep -q '^packs_rewritten 0$' "$WORK/reseal.log" || fail "the same was sealed anew once more: $(cat "$WORK/reseal.log")"

step "killed in the middle of it"
says 'key_generation 4' umbel key rotate || fail "rotate"
for victims in node-1 control-1 "node-1 control-1"; do
    umbel gc --reseal >"$WORK/reseal.log" 2>&1 &
    collector=$!
    sleep 0.$((RANDOM % 10))
    pids=()
    for name in $victims; do pids+=("$(pid_of "$name")"); done
    kill -KILL "${pids[@]}"
    up
    wait $collector || true # it may say so, or not have noticed
    read_back "$victims was killed while packs were sealed anew"
    fsck_clean
done
umbel gc --reseal >"$WORK/reseal.log" 2>&1 || { cat "$WORK/reseal.log" >&2; fail "gc --reseal after all that"; }
umbel gc >"$WORK/gc.log" 2>&1 || { cat "$WORK/gc.log" >&2; fail "gc after all that"; } # what the dead had allocated
[ "$(packs_of 1)$(packs_of 2)$(packs_of 3)" = 000 ] || fail "packs of older keys: $(packs_of 1), $(packs_of 2), $(packs_of 3)"
for n in 1 2 3 4 5; do cmp "$WORK/large" "$MNT/busy$n" || fail "busy$n differs"; done
fsck_clean --data

step "umbel key replace: another recovery key"
cp -r "$ROOT/pool/keys" "$WORK/keys-before"
umbel key replace >"$WORK/replaced" 2>"$WORK/replaced.said" || { cat "$WORK/replaced.said" >&2; fail "replace"; }
new=$(recovery_keys "$WORK/replaced")
[ -n "$new" ] && [ "$new" != "$recovery" ] || fail "replace shows '$new'"
nowhere "$new"
refused 1 'another one' check "$recovery"
says 'generations 1 to 4' check "$new" || fail "the new recovery key"
diff -r "$ROOT/pool/keys" "$WORK/keys-before" >/dev/null && fail "the pool has what it had before"
refused 1 'not the recovery key' "$UMBEL" rebuild --root "$WORK/rebuilt" --pool "dir:$ROOT/pool" --recovery "$WORK/recovery"
[ ! -e "$WORK/rebuilt" ] || fail "a refused rebuild left something behind"
full_replace() { umbel key replace >/dev/full; }
refused 1 'old one stays' full_replace
says 'generations 1 to 4' check "$new" || fail "the key that was shown last is not the right one"
down
up
says 'generations 1 to 4' check "$new" || fail "after down and up"

step "rotations at the same time take turns"
rotations=()
for n in 1 2 3; do umbel key rotate >"$WORK/rotate$n" 2>&1 & rotations+=($!); done
for pid in "${rotations[@]}"; do wait "$pid" || { cat "$WORK"/rotate? >&2; fail "one of three rotations"; }; done
says 'generations 1 to 7' check "$new" || fail "three rotations"

step "wrapped keys that are damaged: the copy does; none: it is told"
damage() { printf '\377\377' | dd of="$1" bs=1 seek=$2 conv=notrunc status=none; }
mapfile -t wrapped < <(find "$ROOT/pool/keys" -type f | sort)
cp "${wrapped[1]}" "$WORK/wrapped"
damage "${wrapped[1]}" 220
says 'generations 1 to 7' check "$new" || fail "one damaged copy hides the other"
damage "${wrapped[0]}" 220
refused 1 'cannot be opened with it now.*damaged' check "$new"
rm "${wrapped[@]}"
refused 1 'holds no wrapped keys' check "$new"
cp "$WORK/wrapped" "${wrapped[1]}"
says 'generations 1 to 7' check "$new" || fail "put back"

step "flipped bits are found and never returned"
pack=$(find "$ROOT/pool/packs" -type f -printf '%s %p\n' | sort -n | tail -n1 | cut -d' ' -f2)
cp -p "$pack" "$WORK/pack"
for n in 1 2 3 4 5; do
    at=$((RANDOM * 32768 + RANDOM))
    at=$((at % $(stat -c %s "$pack")))
    byte=$(od -An -tu1 -j $at -N1 "$WORK/pack" | tr -d ' ')
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\x$(printf %02x $((byte ^ (1 << (n % 8)))))" | dd of="$pack" bs=1 seek=$at conv=notrunc status=none
    refused 1 'problem pack' umbel fsck --data
    evict_cold
    status=0
    cat "$MNT/large" >"$WORK/read" 2>/dev/null || status=$?
    head -c "$(stat -c %s "$WORK/read")" < <(large) | cmp -s - "$WORK/read" ||
        fail "a flipped bit at byte $at was returned as data"
    [ $status != 0 ] || [ "$(stat -c %s "$WORK/read")" = 9000000 ] || fail "a short read without an error"
    cp -p "$WORK/pack" "$pack"
done
fsck_clean --data
read_back "the damage was mended"

step "a pack that is not sealed is not taken for one that is"
status=0
dd if=/dev/zero of="$pack" bs=1 seek=12 count=1 conv=notrunc status=none # the header: sealing
refused 1 'problem pack' umbel fsck --data
cp -p "$WORK/pack" "$pack"

step "keys are for root alone"
down
chmod 644 "$ROOT/$KEYS"
refused 1 'cloud.keys: mode 644' "$UMBEL" up --root "$ROOT" --mount "$MNT"
chmod 600 "$ROOT/$KEYS"
mv "$ROOT/$KEYS" "$WORK/keys"
refused 1 'cloud.keys: No such file' "$UMBEL" up --root "$ROOT" --mount "$MNT"
mv "$WORK/keys" "$ROOT/$KEYS"
refused 1 'sealed; that cannot change' "$UMBEL" up --root "$ROOT" --mount "$MNT" --seal off
up
read_back "down and up"
down

step "a cloud with --seal off"
mkdir "$WORK/other"
ROOT_SEALED=$ROOT ROOT=$WORK/other/root
up --seal off
says '^seal off$' cat "$MNT/.umbel/status" || fail "status does not say that the cloud is not sealed"
[ ! -e "$ROOT/$KEYS" ] && [ ! -e "$ROOT/pool/keys" ] || fail "a cloud that is not sealed has keys"
refused 1 'not sealed' umbel key rotate
refused 1 'not sealed' umbel key replace
refused 1 'not sealed' check "$new"
refused 1 'not sealed' umbel gc --reseal
plain_files
umbel flush
pool_holds "$PHRASE" || fail "an unsealed pool does not hold plain text"
read_back "a flush without sealing"
fsck_clean --data
refused 1 'not sealed; that cannot change' "$UMBEL" up --root "$ROOT" --mount "$MNT" --seal on
down
ROOT=$ROOT_SEALED
say ok
