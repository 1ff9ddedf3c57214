# shellcheck shell=bash
# Shared by the scripts here: a cloud of its own for each, in a temporary folder, and its end.
#
#   need sqlite3 rsync        skip (77) unless these programs are there
#   make_work                 $WORK, $ROOT (cloud), $MNT (mountpoint), taken away again at the end
#   up [OPTION...]            start (or go on with) the cloud in $ROOT, mounted at $MNT
#   down                      stop it
#   step TEXT                 say what comes now
#   says PATTERN COMMAND...   whether it succeeds and says that
#   refused STATUS PATTERN COMMAND...   it must fail with that status and say that
#   fail TEXT                 this test has failed
#
# Options of every script: --full runs it at full size, --keep leaves $WORK as it is.
set -Eeuo pipefail

SELF=$(basename "${BASH_SOURCE[1]:-$0}" .sh)
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SOURCE=${UMBEL_SOURCE_DIR:-$(cd "$HERE/../.." && pwd)}
UMBEL=${UMBEL_BINARY:-$SOURCE/build/release/tools/umbel}
TOOLS=${UMBEL_TEST_TOOLS:-$(dirname "$(dirname "$UMBEL")")/tests/tools}
SANITIZE=${UMBEL_SANITIZE:-}
FULL=${UMBEL_TEST_FULL:-0}
KEEP=0
STARTED=$SECONDS
# dir: in $ROOT/pool, unless it is nfs: then a server of its own holds the pool, in $WORK/nfs/export/pool.
POOL=${UMBEL_TEST_POOL:-dir}
WORK='' ROOT='' MNT=''
LOOPS=() EXTRA_MOUNTS=() EXTRA_ROOTS=() PIDS=() DAEMONS=() # what cleanup ends
AT_END=(:) # runs when all else has ended

say() { printf '%s: %s\n' "$SELF" "$*"; }
step() { printf '%s: [%3d s] %s\n' "$SELF" $((SECONDS - STARTED)) "$*"; }
skip() { say "skipped: $*"; exit 77; }
fail() { printf '%s: FAILED: %s\n' "$SELF" "$*" >&2; exit 1; }
full() { [ "$FULL" = 1 ]; }

. "$HERE/lib_ganesha.sh"

for argument in "$@"; do
    case $argument in
    --full) FULL=1 ;;
    --keep) KEEP=1 ;;
    *) printf '%s: unknown argument: %s (known: --full --keep)\n' "$SELF" "$argument" >&2; exit 2 ;;
    esac
done

need() {
    local program
    for program; do
        command -v "$program" >/dev/null || [ -x "$program" ] || skip "$program is not installed"
    done
}

# Sanitized daemons are several times slower.
slow() { [ -z "$SANITIZE" ] && echo "$1" || echo $(($1 * 4)); }

on_error() { printf '%s: FAILED in %s line %s: %s\n' "$SELF" "$(basename "$1")" "$2" "$3" >&2; }
trap 'on_error "${BASH_SOURCE[0]}" "$LINENO" "$BASH_COMMAND"' ERR

show_logs() {
    local log
    for log in "$ROOT"/log/*.log; do
        [ -s "$log" ] || continue
        printf -- '---- %s\n' "${log##*/}" >&2
        tail -n 30 "$log" >&2
    done
}

cleanup() {
    local status=$? pid at loop
    trap - ERR EXIT
    set +e
    for pid in "${PIDS[@]}"; do kill -KILL "$pid" && wait "$pid"; done 2>/dev/null
    [ -n "$WORK" ] || return $status
    [ $status = 0 ] || [ $status = 77 ] || show_logs
    cd / || return 1
    if [ $KEEP = 1 ]; then
        say "left as it is: $WORK"
        return $status
    fi
    if [ -f "$ROOT/umbel.conf" ]; then
        if ! "$UMBEL" down --root "$ROOT" --force >"$WORK/down.log" 2>&1; then
            cat "$WORK/down.log" >&2
            [ $status != 0 ] || status=1
        fi
    else # its disk has gone from under it
        for pid in "${DAEMONS[@]}"; do kill -KILL "$pid" 2>/dev/null; done
        umount -lf "$MNT" 2>/dev/null
    fi
    for at in "${EXTRA_ROOTS[@]}"; do [ ! -f "$at/umbel.conf" ] || "$UMBEL" down --root "$at" --force >/dev/null 2>&1; done
    ganesha_stop 2>/dev/null
    for at in "${EXTRA_MOUNTS[@]}"; do umount -l "$at" 2>/dev/null; done
    for loop in "${LOOPS[@]}"; do losetup -d "$loop" 2>/dev/null; done
    # Never reach through something that is still mounted.
    if grep -qF " $WORK/" /proc/self/mounts; then
        say "something is still mounted in $WORK; it is left there" >&2
        [ $status != 0 ] || status=1
    else
        rm -rf --one-file-system "$WORK"
    fi
    return $status
}
finish() {
    cleanup
    local status=$?
    "${AT_END[@]}"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

prepare_pool() { :; } # what the NFS server needs before it starts; scripts replace it
make_work() {
    [ "$(id -u)" = 0 ] || skip "this needs root (it mounts)"
    [ -e /dev/fuse ] || skip "this needs /dev/fuse"
    [ -x "$UMBEL" ] || fail "no umbel at $UMBEL (UMBEL_BINARY)"
    WORK=$(mktemp -d "${UMBEL_TEST_DIR:-/var/tmp}/umbel-$SELF.XXXXXX")
    chmod 711 "$WORK" # other users go through it to the mount
    ROOT=$WORK/root MNT=$WORK/mnt
    mkdir "$MNT"
    if [ "$POOL" = nfs ]; then
        ! why=$(ganesha_missing) || skip "$why"
        prepare_pool
        ganesha_set "$WORK/nfs" && ganesha_start || fail "NFS-Ganesha does not start"
    fi
}

up() {
    local pool=()
    [ "$POOL" != nfs ] || [ -f "$ROOT/umbel.conf" ] || pool=(--pool "$(ganesha_url "$WORK/nfs/export/pool")")
    "$UMBEL" up --root "$ROOT" --mount "$MNT" "${pool[@]}" "$@" >>"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "umbel up $*"; }
    mapfile -t DAEMONS < <(cat "$ROOT"/run/*.pid)
}
down() { "$UMBEL" down --root "$ROOT" >>"$WORK/up.log" 2>&1 || { tail -n 20 "$WORK/up.log" >&2; fail "umbel down"; }; }
umbel() { UMBEL_MOUNT=$MNT "$UMBEL" "$@"; }
pid_of() { cat "$ROOT/run/$1.pid"; }

# refused STATUS PATTERN COMMAND...: it must end with that status and say that.
refused() {
    local want=$1 pattern=$2 output=$WORK/refused.log status=0
    shift 2
    [ -n "$WORK" ] || output=$(mktemp)
    "$@" >"$output" 2>&1 || status=$?
    local said
    said=$(head -c 1000 "$output" | tr -cd '[:print:]\n')
    local found=0
    grep -aqiE -- "$pattern" "$output" || found=$?
    [ -n "$WORK" ] || rm "$output"
    [ "$status" = "$want" ] || fail "'$*' ended with $status, not $want: $said"
    [ $found = 0 ] || fail "'$*' does not say /$pattern/: $said"
}

# says PATTERN COMMAND...: it succeeds and says that. (A pipe into grep -q would kill what speaks on.)
says() {
    local pattern=$1 output
    shift
    output=$("$@" 2>&1) && grep -qE -- "$pattern" <<<"$output"
}

# known_defect WHAT: the script would fail, for a reason that is known and not mended yet. It is skipped, loudly;
# UMBEL_KNOWN_DEFECTS=1 runs it all the same.
known_defect() {
    [ "${UMBEL_KNOWN_DEFECTS:-}" = 1 ] || skip "KNOWN DEFECT, not mended yet: $1"
}

# Evicts all, and what the kernel keeps for the mount too, so that the next read comes from the pool.
evict_cold() {
    umbel evict "$MNT"
    echo 3 >/proc/sys/vm/drop_caches || skip "the kernel's caches cannot be dropped here"
}

# within SECONDS COMMAND...: until it succeeds
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

# What a tree is: names, types, modes, owners, sizes, times, link targets, contents.
tree_sum() {
    (
        cd "$1"
        find . -mindepth 1 \( -type d -printf '%p d %m %U %G\n' -o -type l -printf '%p l %l\n' \
            -o -type f -printf '%p f %m %U %G %s %T@ %n\n' -o -printf '%p %y %m\n' \) | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
    ) | sha256sum | cut -d' ' -f1
}

same_tree() {
    [ "$(tree_sum "$1")" = "$(tree_sum "$2")" ] && return
    diff -r --no-dereference "$1" "$2" | head -n 20 >&2 || true
    fail "$1 and $2 differ${3:+ ($3)}"
}

fsck_clean() {
    local output
    output=$(umbel fsck "$@" 2>&1) || { printf '%s\n' "$output" >&2; fail "fsck $* is not clean"; }
}

disk_bytes() { du -s --block-size=1 "$1" | cut -f1; }

# A line of .umbel/status
status_of() { sed -n "s/^$1 //p" "$MNT/.umbel/status"; }

# small_filesystem MEGABYTES DIR: a filesystem of that size, mounted there
small_filesystem() {
    mkdir -p "$2"
    mount -t tmpfs -o "size=$1m,mode=0700" tmpfs "$2" || skip "cannot mount a small tmpfs"
    EXTRA_MOUNTS+=("$2")
}
