#!/bin/bash
# A pool on an engine that outgrows one machine: NFS-Ganesha in front of a GlusterFS volume of two bricks on two servers,
# each with a network, a state and processes of its own. The pool's URL is that of any NFS export.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_spaces.sh"
POOL=nfs
need glusterd gluster unshare setfattr
[ -e /usr/lib/*/ganesha/libfsalgluster.so ] || skip "nfs-ganesha-gluster is not installed"

make_spaces one two front
GANESHA_NET=$(space_path front) GANESHA_ADDRESS=$(address_of front)
GANESHA_VOLUME=umbel GANESHA_VOLUME_HOST=$(address_of one)

# server SPACE: glusterd and its bricks, in a pid namespace that ends with it
server() {
    local s=$1 dir=$WORK/server-$1
    mkdir -p "$dir/lib" "$dir/log" "$dir/brick"
    # shellcheck disable=SC2016 # the inner shell expands it
    become_in_space "$s" unshare -m -p -f --kill-child --mount-proc bash -c '
        mount -t tmpfs tmpfs /run && mkdir /run/gluster && mount --bind "$1/lib" /var/lib/glusterd &&
            mount --bind "$1/log" /var/log/glusterfs && exec glusterd --no-daemon' _ "$dir" >"$dir/out" 2>&1 &
    PIDS+=($!)
    eval "server_$s=$!"
}
# on SPACE COMMAND...
on() {
    local outer=server_$1 pid
    shift
    pid=$(pgrep -P "${!outer}") || return 1
    nsenter -t "$pid" -m -n -p "$@"
}
answers() { on "$1" gluster --mode=script peer status; }
joined() { on one gluster --mode=script peer status | grep -q 'Peer in Cluster (Connected)'; }
brick() { echo "$(address_of "$1"):$WORK/server-$1/brick/data"; }

make_servers() {
    local s
    for s in one two; do server $s; done
    for s in one two; do within 60 answers $s || { cat "$WORK/server-$s/out" >&2; fail "glusterd does not answer"; }; done
    on one gluster --mode=script peer probe "$(address_of two)" >/dev/null || fail "the servers do not find each other"
    within 60 joined || fail "the servers do not join: $(on one gluster --mode=script peer status)"
    setfattr -n trusted.umbel-test -v 1 "$WORK/server-one/brick" 2>/dev/null || skip "$WORK has no trusted attributes, which bricks need"
    on one gluster --mode=script volume create umbel "$(brick one)" "$(brick two)" force >/dev/null &&
        on one gluster --mode=script volume start umbel >/dev/null || fail "no volume"
}
prepare_pool() { make_servers; }

step "a volume of two bricks on two servers, and an NFS server in front of it"
make_work

step "a cloud with its pool there"
in_space front "$UMBEL" up --root "$ROOT" --mount "$MNT" --capacity 200M --pool "$(ganesha_url /umbel/pool)" >>"$WORK/up.log" 2>&1 ||
    { cat "$WORK/up.log" >&2; fail "umbel up"; }
umbel() { UMBEL_MOUNT=$MNT in_space front "$UMBEL" "$@"; }
mapfile -t DAEMONS < <(cat "$ROOT"/run/*.pid)
cp -r "$SOURCE/nodecache" "$SOURCE/control" "$WORK/"
mkdir "$WORK/plain"
mv "$WORK/nodecache" "$WORK/control" "$WORK/plain/"
for i in 1 2 3 4; do head -c 70M /dev/urandom >"$WORK/plain/large$i"; done
cp -r "$WORK/plain" "$MNT/tree"
umbel flush
evict_cold
diff -r "$WORK/plain" "$MNT/tree"
fsck_clean --data
for s in one two; do
    [ "$(find "$WORK/server-$s/brick" -name '0*' -type f -size +1M | wc -l)" -gt 0 ] || fail "no pack lies on server $s: $(find "$WORK/server-$s/brick" -type f | head)"
done

step "garbage goes there too"
rm -r "$MNT/tree/large1" "$MNT/tree/large2"
volume_size() { du -sk "$WORK"/server-*/brick | awk '{ sum += $1 } END { print sum }'; }
before=$(volume_size)
gone() { umbel gc >/dev/null && [ "$(volume_size)" -le $((before - 130000)) ]; }
within 60 gone || fail "the volume stays at $(volume_size) of $before KiB"

step "a server of the volume is killed and comes back"
evict_cold
{ kill -KILL "$server_two" && wait "$server_two"; } 2>/dev/null || true
cat "$WORK/plain/large3" "$WORK/plain/large4" >"$WORK/want"
timeout 60 cat "$MNT/tree/large3" "$MNT/tree/large4" >"$WORK/got" 2>/dev/null || true # some packs are away
cmp -n "$(stat -c %s "$WORK/got")" "$WORK/want" "$WORK/got" || fail "what was read while a server was away is not what was written"
server two
within 60 answers two || fail "glusterd does not start again"
whole() { diff -r "$WORK/plain/control" "$MNT/tree/control" && cmp "$WORK/plain/large3" "$MNT/tree/large3" && cmp "$WORK/plain/large4" "$MNT/tree/large4"; }
within 120 whole || fail "not all is back"
fsck_clean --data
say ok
