# shellcheck shell=bash
# Machines for the tests: network namespaces on one bridge, with this machine's filesystem. For scripts that have sourced lib.sh.
#
#   make_spaces NAME...         the first is 10.47.11.1, the next 10.47.11.2 and so on; gone when the script ends
#   in_space NAME COMMAND...    runs it there (functions too)
#   become_in_space NAME COMMAND... &    the same for a background process: $! is its own pid
#   address_of NAME             its address
#   space_path NAME             its network namespace, for nsenter --net=
need ip nsenter

NET=umbel$$
SPACES=()

spaces_gone() {
    local s
    for s in hub "${SPACES[@]}"; do ip netns del "$NET$s" 2>/dev/null; done
}

make_spaces() {
    local s n=0
    AT_END=(spaces_gone)
    SPACES=("$@")
    ip netns add "${NET}hub" 2>/dev/null || skip "network namespaces cannot be made here"
    ip -n "${NET}hub" link add br0 type bridge || skip "no bridge can be made here"
    ip -n "${NET}hub" link set br0 up
    for s in "$@"; do
        n=$((n + 1))
        ip netns add "$NET$s"
        ip -n "$NET$s" link set lo up
        ip link add "v$n.$$" netns "${NET}hub" type veth peer name eth0 netns "$NET$s"
        ip -n "${NET}hub" link set "v$n.$$" master br0 up
        ip -n "$NET$s" addr add "10.47.11.$n/24" dev eth0
        ip -n "$NET$s" link set eth0 up
    done
}

address_of() {
    local s n=0
    for s in "${SPACES[@]}"; do
        n=$((n + 1))
        [ "$s" != "$1" ] || echo "10.47.11.$n"
    done
}

space_path() { echo "/run/netns/$NET$1"; }

in_space() {
    local s=$1
    shift
    nsenter "--net=$(space_path "$s")" "$@"
}

become_in_space() {
    local s=$1
    shift
    exec nsenter "--net=$(space_path "$s")" "$@"
}
