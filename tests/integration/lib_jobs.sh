# shellcheck shell=bash
# Jobs of the cloud at $MNT, for scripts that have sourced lib.sh.
#
#   idle_machine           run this script again where nodes believe that nobody else uses the machine
#   up_with_jobs N ...     a cloud of N nodes that all run jobs; skips where they cannot
#   submit SPEC            (escapes as of printf) says the number, or FIRST-LAST
#   value ID KEY           of its status
#   ended ID, is ID STATE  is waits for its end
#   wait_for COMMAND...    until it succeeds, for $WAIT seconds (90); how_it_is says what it was like if it never does
#   clean_nodes            nothing of any run is left at a node: no folder, group or process

# shellcheck disable=SC2034
JOBS=''

# How many jobs run at once would else be a matter of what this machine does besides.
idle_machine() {
    local stat
    if [ -z "${UMBEL_IDLE_MACHINE:-}" ]; then
        [ "$(id -u)" = 0 ] || skip "this needs root (it mounts)"
        exec env UMBEL_IDLE_MACHINE=1 unshare --mount --propagation private bash "$0" "$@"
    fi
    stat=$(mktemp)
    cat /proc/stat >"$stat"
    mount --bind "$stat" /proc/stat
    rm "$stat"
}

wait_for() {
    local until=$((SECONDS + $(slow "${WAIT:-90}")))
    until "$@"; do
        [ $SECONDS -lt $until ] || fail "it never came about: $* ($(how_it_is))"
        sleep 0.1
    done
}
how_it_is() { cut -d' ' -f2 "$JOBS/list" | sort | uniq -c | tr '\n' ' '; }

takes_jobs() { [ "$(grep -l '^jobs yes' "$MNT"/.umbel/nodes/*/status | wc -l)" = "$1" ]; }
says_of_jobs() { grep -q '^jobs' "$MNT/.umbel/nodes/node-1/status"; }
up_with_jobs() {
    JOBS=$MNT/.umbel/jobs
    up --nodes "$@"
    echo "$1" >"$MNT/.umbel/settings/nodes_max" # no more are started: demand.sh is for that
    wait_for says_of_jobs
    within "$(slow 60)" takes_jobs "$1" || skip "$(grep -h '^jobs' "$MNT"/.umbel/nodes/*/status | sort -u)"
}

# What a shell does: written and read back on one descriptor.
submit() {
    local answer
    exec 9<>"$JOBS/new"
    printf '%b' "$1" >&9 || { exec 9>&-; return 1; }
    answer=$(cat <&9)
    exec 9>&-
    [[ $answer == 'id '* ]] || fail "'$1' was refused: $answer"
    printf '%s\n' "${answer#id }"
}
value() { sed -n "s/^$2 //p" "$JOBS/$1/status"; }
ended() { case $(value "$1" state) in done | failed | cancelled | timeout | lost) return 0 ;; esac; return 1; }
is() {
    wait_for ended "$1"
    [ "$(value "$1" state)" = "$2" ] || fail "job $1 should be $2: $(cat "$JOBS/$1/status")"
}

# The node's own control group, of all controllers that have it.
node_groups() {
    local jobs=$ROOT/$1/jobs
    find /sys/fs/cgroup -maxdepth 3 -type d -path "*/umbel/$(printf '%x-%x' "$(stat -c %d "$jobs")" "$(stat -c %i "$jobs")")" 2>/dev/null || true
}
clean_node() {
    local group
    [ -z "$(find "$ROOT/$1/jobs" -mindepth 1 -type d)" ] || return 1
    for group in $(node_groups "$1"); do [ -z "$(find "$group" -mindepth 1 -type d)" ] || return 1; done
    [ "$(pgrep -f -- "supervise --store $ROOT/$1 " | wc -l)" -le 1 ] # the one that starts them
}
clean_nodes() {
    local at
    for at in "$ROOT"/node-*/; do clean_node "$(basename "$at")" || return 1; done
}
