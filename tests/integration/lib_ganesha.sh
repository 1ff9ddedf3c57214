# A real NFS server for the tests: NFS-Ganesha with its FSAL VFS, on loopback ports of its own, from a generated
# configuration, without the kernel's NFS. It will not serve NFSv3 without an rpcbind to register with: it gets one that
# nobody else sees (its own /run, its own network), in a mount namespace of its own.
#
#   . lib_ganesha.sh                 from a script that has sourced lib.sh (needs $WORK), or run it by hand:
#   ganesha_set DIR                  prepares a server in DIR; exports DIR/export, DIR/readonly read-only
#   ganesha_export ID PATH [ro]      one more export; before ganesha_start
#   GANESHA_NET=PATH GANESHA_ADDRESS=ADDRESS   set before ganesha_set: it listens there, in that network namespace
#   GANESHA_VOLUME=NAME GANESHA_VOLUME_HOST=HOST   the same: /NAME, a GlusterFS volume, is exported instead of DIR/export
#   GANESHA_SMALL=MEGABYTES          set before ganesha_set: DIR/small is exported too, a filesystem of that size
#   ganesha_start                    returns when it answers
#   ganesha_kill | ganesha_stop      SIGKILL | SIGTERM, and waits
#   ganesha_freeze | ganesha_thaw    SIGSTOP | SIGCONT
#   ganesha_url PATH                 the pool URL of a path
#
#   bash lib_ganesha.sh serve DIR    for unit tests: starts one, prints "PORT MOUNTPORT PID", stays until its stdin ends;
#                                    lines "kill", "start", "freeze", "thaw" on stdin are obeyed and answered with "ok"

GANESHA_DIR='' GANESHA_PORT=0 GANESHA_MOUNT_PORT=0 GANESHA_PID='' GANESHA_RPCBIND=''
: "${GANESHA_ADDRESS:=127.0.0.1}" "${GANESHA_NET:=/proc/self/ns/net}"

ganesha_missing() {
    local program
    for program in ganesha.nfsd rpcbind unshare; do
        command -v "$program" >/dev/null || { echo "$program is not installed"; return 0; }
    done
    [ -e /usr/lib/*/ganesha/libfsalvfs.so ] || { echo "nfs-ganesha-vfs is not installed"; return 0; }
    [ -e /etc/mtab ] || { echo "there is no /etc/mtab, by which NFS-Ganesha finds filesystems"; return 0; }
    [ "$(id -u)" = 0 ] || { echo "a server of NFS needs root"; return 0; }
    return 1
}

# Two free ports below the range that the kernel gives to clients.
ganesha_ports() {
    local try port
    for try in $(seq 50); do
        port=$((20000 + (RANDOM + $$) % 6000 * 2))
        if ! ss -Hltn "( sport = :$port or sport = :$((port + 1)) )" | grep -q .; then
            GANESHA_PORT=$port GANESHA_MOUNT_PORT=$((port + 1))
            return 0
        fi
    done
    return 1
}

ganesha_export() {
    local access=RW
    [ "${3:-}" != ro ] || access=RO
    ganesha_export_from "$1" "$2" $access 'Name = VFS;'
    mkdir -p "$2"
}

ganesha_export_from() {
    cat >>"$GANESHA_DIR/ganesha.conf" <<CONF
EXPORT { Export_Id = $1; Path = $2; Pseudo = /export$1; Access_Type = $3; FSAL { $4 } }
CONF
}

ganesha_set() {
    GANESHA_DIR=$1
    mkdir -p "$GANESHA_DIR/recovery"
    ganesha_ports || return 1
    cat >"$GANESHA_DIR/ganesha.conf" <<CONF
NFS_CORE_PARAM {
    Protocols = 3;
    NFS_Port = $GANESHA_PORT;
    MNT_Port = $GANESHA_MOUNT_PORT;
    Bind_addr = $GANESHA_ADDRESS;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    Enable_UDP = false;
}
NFSV4 { Graceless = true; RecoveryRoot = $GANESHA_DIR/recovery; }
EXPORT_DEFAULTS { SecType = sys; Squash = No_Root_Squash; Transports = TCP; Protocols = 3; }
LOG { Default_Log_Level = EVENT; }
CONF
    if [ -n "${GANESHA_VOLUME:-}" ]; then
        ganesha_export_from 1 "/$GANESHA_VOLUME" RW "Name = GLUSTER; Hostname = $GANESHA_VOLUME_HOST; Volume = $GANESHA_VOLUME;"
        return
    fi
    ganesha_export 1 "$GANESHA_DIR/export"
    ganesha_export 2 "$GANESHA_DIR/readonly" ro
    [ -z "${GANESHA_SMALL:-}" ] || ganesha_export 3 "$GANESHA_DIR/small"
}

ganesha_listens() { nsenter "--net=$GANESHA_NET" ss -Hltn "( sport = :$GANESHA_PORT )" | grep -q .; }

# The mount namespace lives as long as rpcbind in it.
ganesha_rpcbind() {
    [ -z "$GANESHA_RPCBIND" ] || return 0
    rm -f "$GANESHA_DIR/rpcbind.pid"
    setsid unshare -m bash -c '
        mount -t tmpfs tmpfs /run || exit 1
        [ -z "$2" ] || mount -t tmpfs -o "size=$2m,mode=0700" tmpfs "$1/small" || exit 1
        echo $$ >"$1/rpcbind.pid"
        exec unshare -n rpcbind -f -w' _ "$GANESHA_DIR" "${GANESHA_SMALL:-}" >"$GANESHA_DIR/rpcbind.log" 2>&1 </dev/null &
    disown
    local try
    for try in $(seq 100); do
        GANESHA_RPCBIND=$(cat "$GANESHA_DIR/rpcbind.pid" 2>/dev/null) || GANESHA_RPCBIND=''
        [ -n "$GANESHA_RPCBIND" ] && [ -S "/proc/$GANESHA_RPCBIND/root/run/rpcbind.sock" ] && return 0
        sleep 0.1
    done
    cat "$GANESHA_DIR/rpcbind.log" >&2
    return 1
}

ganesha_start() {
    local try
    ganesha_rpcbind || return 1
    rm -f "$GANESHA_DIR/started.pid"
    setsid nsenter -t "$GANESHA_RPCBIND" -m "--net=$GANESHA_NET" bash -c '
        echo $$ >"$1/started.pid"
        exec ganesha.nfsd -F -L "$1/ganesha.log" -f "$1/ganesha.conf" -p "$1/ganesha.pid"' _ "$GANESHA_DIR" \
        >>"$GANESHA_DIR/ganesha.out" 2>&1 </dev/null &
    disown
    for try in $(seq 300); do
        GANESHA_PID=$(cat "$GANESHA_DIR/started.pid" 2>/dev/null) || GANESHA_PID=''
        [ -n "$GANESHA_PID" ] && ganesha_listens && return 0
        sleep 0.1
    done
    tail -n 20 "$GANESHA_DIR/ganesha.log" >&2
    return 1
}

ganesha_end() {
    local pid=$1 signal=$2 try
    [ -n "$pid" ] || return 0
    kill -CONT "$pid" 2>/dev/null || true
    kill "-$signal" "$pid" 2>/dev/null || return 0
    for try in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

ganesha_kill() { ganesha_end "$GANESHA_PID" KILL; GANESHA_PID=''; }
# On a busy machine a thread may still answer when the signal has been sent.
ganesha_freeze() {
    local try
    kill -STOP "$GANESHA_PID" || return 1
    for try in $(seq 100); do
        grep -h "^State:" "/proc/$GANESHA_PID"/task/*/status | grep -qv "T (stopped)" || return 0
        sleep 0.05
    done
    return 1
}
ganesha_thaw() { kill -CONT "$GANESHA_PID"; }
ganesha_stop() {
    ganesha_end "$GANESHA_PID" KILL
    ganesha_end "$GANESHA_RPCBIND" TERM
    GANESHA_PID='' GANESHA_RPCBIND=''
}

ganesha_url() { echo "nfs://$GANESHA_ADDRESS$1?nfsport=$GANESHA_PORT&mountport=$GANESHA_MOUNT_PORT"; }

if [ "${BASH_SOURCE[0]}" = "$0" ] && [ "${1:-}" = serve ]; then
    if why=$(ganesha_missing); then
        echo "skip $why"
        exit 77
    fi
    trap ganesha_stop EXIT
    trap 'exit 1' INT TERM HUP
    GANESHA_SMALL=8
    ganesha_set "$2" && ganesha_start || { echo "skip it does not start"; exit 77; }
    echo "$GANESHA_PORT $GANESHA_MOUNT_PORT $GANESHA_PID"
    while read -r line; do
        case $line in
        kill | start | freeze | thaw) "ganesha_$line" && echo ok || echo failed ;;
        esac
    done
fi
