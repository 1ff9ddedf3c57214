#!/bin/bash
# POSIX conformance: pjdfstest (https://github.com/pjd/pjdfstest) on a fresh cloud. $PJDFSTEST is its folder, built.
# What fails on a local folder too is not counted.
. "$(dirname "$0")/../integration/lib.sh"
[ -n "${PJDFSTEST:-}" ] || skip "PJDFSTEST does not say where pjdfstest is (a built checkout)"
[ -x "$PJDFSTEST/pjdfstest" ] || skip "there is no built pjdfstest in $PJDFSTEST"
need prove
make_work

# prove's list of failed tests: "FILE: N" lines
failed_in() {
    local log=$2
    (cd "$1" && prove -r -v "$PJDFSTEST/tests") >"$log" 2>&1 || true # it fails if any test does; they are counted
    awk '/^\/.*\.t *\.+/ { file = $1; sub(/.*\/tests\//, "", file) }
         /^not ok/ { print file ": " $3 }' "$log" | sort -u
}

up
mkdir "$MNT/p" "$WORK/local"
chmod 755 "$WORK"
step "pjdfstest in a local folder"
failed_in "$WORK/local" "$WORK/local.log" >"$WORK/local.failed"
step "pjdfstest in the cloud"
failed_in "$MNT/p" "$WORK/cloud.log" >"$WORK/cloud.failed"
for log in local cloud; do
    ran=$(grep -c '^ok\|^not ok' "$WORK/$log.log" || true)
    [ "$ran" -gt 1000 ] || { tail "$WORK/$log.log" >&2; fail "only $ran tests ran ($log)"; }
    # A file that ends too early, or cannot be run, has no "not ok" for what it did not try.
    grep -a 'Parse errors\|Dubious' "$WORK/$log.log" | sort -u >"$WORK/$log.broken" || true
done
broken=$(comm -13 "$WORK/local.broken" "$WORK/cloud.broken")
[ -z "$broken" ] || { printf '%s\n' "$broken" >&2; fail "test files break off in the cloud only"; }
new=$(comm -13 "$WORK/local.failed" "$WORK/cloud.failed")
say "$ran tests, $(wc -l <"$WORK/cloud.failed") failed, $(comm -12 "$WORK/local.failed" "$WORK/cloud.failed" | wc -l) of them in a local folder too"
[ -z "$new" ] || { printf '%s\n' "$new" >&2; fail "$(wc -l <<<"$new") tests fail in the cloud only"; }
fsck_clean
say "ok"
