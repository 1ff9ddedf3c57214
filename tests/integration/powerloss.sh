#!/bin/bash
# Power loss under load: the filesystem below the cloud is shut down without a word, so that everything that was not
# synced is gone, and the machine has another boot id afterwards. What was synced must be there; of the
# names, all that was acknowledged, as the centre answers when its log is on the disk. --full: 12 rounds, else 3.
if [ "${UMBEL_POWERLOSS_INSIDE:-}" != 1 ]; then
    # In a mount namespace of its own the boot id can be another one.
    UMBEL_POWERLOSS_INSIDE=1 exec unshare --mount --propagation private bash "$0" "$@"
fi
. "$(dirname "$0")/lib.sh"
need mkfs.ext4 losetup
make_work

rounds=3
! full || rounds=12
DISK=$WORK/disk
ROOT=$DISK/root

new_boot() {
    cat /proc/sys/kernel/random/uuid >"$WORK/boot_id"
    # Daemons have it mounted over the real one.
    [ "$(cat /proc/sys/kernel/random/boot_id)" = "$(cat "$WORK/boot_id")" ] || fail "the boot id cannot be replaced"
}

make_disk() {
    mkdir "$DISK"
    truncate -s 3G "$WORK/disk.img"
    mkfs.ext4 -q -F "$WORK/disk.img"
    loop=$(losetup --show -f "$WORK/disk.img" 2>/dev/null) || skip "no loop device"
    LOOPS+=("$loop")
    mount "$loop" "$DISK"
    EXTRA_MOUNTS+=("$DISK")
    cat /proc/sys/kernel/random/uuid >"$WORK/boot_id"
    mount --bind "$WORK/boot_id" /proc/sys/kernel/random/boot_id
    new_boot
}

# The disk first, so that nothing is written any more; then every process.
lose_power() {
    local name pids=()
    for name in control-1 node-1 keeper-mnt mount-mnt; do pids+=("$(pid_of "$name")"); done
    "$TOOLS/godown" "$DISK"
    kill -KILL "${pids[@]}" 2>/dev/null || true
    umount -l "$MNT" 2>/dev/null || true
    within 20 umount "$DISK" || fail "the disk is still in use: $(fuser -vm "$DISK" 2>&1)"
    mount "$loop" "$DISK" || fail "the disk cannot be mounted again"
    new_boot
}

round() {
    local n=$1 writer
    mkdir "$MNT/round-$n"
    setsid "$TOOLS/crashwrite" --procs 3 --seconds 60 --tolerate --seed "$n" "$WORK/log-$n" "$MNT/round-$n" >"$WORK/write-$n.log" 2>&1 &
    writer=$!
    PIDS+=("$writer")
    sleep $((2 + RANDOM % 3))
    case $((n % 3)) in
    0) umbel flush || true ;;
    2) umbel evict "$MNT" >/dev/null 2>&1 || true ;; # what is in use stays
    esac
    # All of its processes, before: the log must not speak of a later mount.
    kill -KILL -- "-$writer"
    wait "$writer" 2>/dev/null || true
    lose_power
    up
    "$TOOLS/crashwrite" --verify --synced-only --names-acked "$WORK/log-$n" "$MNT/round-$n" >"$WORK/verify.log" 2>&1 ||
        { tail -n 40 "$WORK/verify.log" >&2; fail "what was synced is lost or wrong"; }
    fsck_clean --data
}

make_disk
up --capacity 512M
for n in $(seq $rounds); do
    step "round $n of $rounds"
    round "$n"
done

step "what went through O_SYNC descriptors is there without an fsync"
for n in $(seq 20); do
    echo "line $n" | dd of="$MNT/appended" oflag=append,sync conv=notrunc status=none
    echo "line $n" | dd of="$MNT/placed" bs=1k seek=$((n - 1)) oflag=dsync conv=notrunc,sync status=none
done
lose_power
up
[ "$(wc -l <"$MNT/appended")" = 20 ] || fail "of 20 appends through O_SYNC $(wc -l <"$MNT/appended") are there"
[ "$(grep -ac line "$MNT/placed")" = 20 ] || fail "of 20 writes through O_DSYNC $(grep -ac line "$MNT/placed") are there"

step "what the first rounds left is still what it was"
before=$(tree_sum "$MNT")
down
up
[ "$before" = "$(tree_sum "$MNT")" ] || fail "the tree differs after down and up"
evict_cold
[ "$before" = "$(tree_sum "$MNT")" ] || fail "the tree differs from the pool"
fsck_clean --data
say "ok"
