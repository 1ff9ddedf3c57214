#!/bin/bash
# Machines join a cloud: the centre, two joined nodes and a joined mount, each in a network namespace of its own
# that this script makes. They share this machine's disk, and so a dir: pool, but no network but the wire.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_spaces.sh"
need tcpdump sha256sum

PORT=17000
MARK=UMBEL-KNOWN-PLAIN-TEXT-4711

make_work
make_spaces c a b m

step "centre up, listening at 10.47.11.1:$PORT"
in_space c "$UMBEL" up --root "$ROOT" --mount "$MNT" --listen "10.47.11.1:$PORT" --capacity 512M >>"$WORK/up.log" 2>&1 ||
    { cat "$WORK/up.log" >&2; fail "umbel up --listen"; }
mapfile -t DAEMONS < <(cat "$ROOT"/run/*.pid)
[ "$(stat -c %a "$ROOT/identity/ca.key")" = 600 ] || fail "the authority's key may be read by others"
become_in_space c tcpdump -i eth0 -s 0 -U -w "$WORK/wire.pcap" >"$WORK/tcpdump.log" 2>&1 &
DUMP=$!
PIDS+=($DUMP)

# join SPACE DIR TOKEN [OPTION...]
join() {
    local s=$1 dir=$2 token=$3
    shift 3
    in_space "$s" "$UMBEL" join --centre "10.47.11.1:$PORT" --token "$token" --dir "$dir" "$@"
}

step "tokens: wrong, expired, used, for another role"
TOKEN=$(umbel token node far-a)
refused 1 'is no token' join a "$WORK/a" "${TOKEN%?}"
refused 1 'another cloud' join a "$WORK/a" "umbel1.$(printf '%064d' 7).${TOKEN##*.}"
refused 1 'not known here' join a "$WORK/a" "${TOKEN%.*}.$(printf '%048d' 7)"
refused 1 'lets node/far-a join, not mount/' join a "$WORK/a" "$TOKEN" --role mount
refused 1 'lets node/far-a join, not node/other' join a "$WORK/a" "$TOKEN" --role node --name other
BRIEF=$(umbel token --expires 1 node far-z)
sleep 2.5
refused 1 'has expired' join a "$WORK/z" "$BRIEF"
says 'as node/far-a' join a "$WORK/a" "$TOKEN" --role node --name far-a || fail "far-a cannot join"
refused 1 'used already' join b "$WORK/b" "$TOKEN"
refused 1 'joined a cloud already' join a "$WORK/a" "$TOKEN"
refused 1 'there is a node/node-1 already' umbel token node node-1
join b "$WORK/b" "$(umbel token node far-b)" >/dev/null
join m "$WORK/m" "$(umbel token --squash none mount laptop)" >/dev/null

step "two joined nodes and a joined mount"
for s in a b; do
    become_in_space "$s" "$UMBEL" node --identity "$WORK/$s" --listen "10.47.11.$([ $s = a ] && echo 2 || echo 3):17100" \
        --capacity 512M >"$WORK/node-$s.log" 2>&1 &
    PIDS+=($!)
done
node_here() { grep -q '^here yes' "$MNT/.umbel/nodes/$1/status"; }
for n in far-a far-b; do within "$(slow 20)" node_here "$n" || { cat "$WORK"/node-?.log >&2; fail "$n is not here"; }; done
mkdir "$WORK/far"
EXTRA_MOUNTS+=("$WORK/far" "$WORK/far2" "$WORK/m2")
in_space m "$UMBEL" mount --identity "$WORK/m" "$WORK/far" >/dev/null || fail "the joined mount does not mount"

step "files written here and there, read there and here: staged, flushed, evicted"
{ echo $MARK; head -c 3000000 /dev/urandom; echo $MARK; } >"$WORK/near.data"
for _ in $(seq 20000); do echo $MARK; done >"$WORK/text.data"
cp "$WORK/near.data" "$MNT/near"
cp "$WORK/text.data" "$WORK/far/text"
for i in $(seq 50); do echo "$MARK $i" >"$WORK/far/$MARK-$i"; done
agree() {
    cmp "$WORK/near.data" "$WORK/far/near" && cmp "$WORK/text.data" "$MNT/text" &&
        cmp "$WORK/near.data" "$MNT/near" && cmp "$WORK/text.data" "$WORK/far/text" &&
        [ "$(cat "$MNT/$MARK-50")" = "$MARK 50" ] || fail "$1: the data differ"
}
agree staged
umbel flush /
agree flushed
evict_cold
agree "from the pool"

step "the captured traffic holds nothing that can be read"
sleep 1
kill -TERM $DUMP
wait $DUMP 2>/dev/null || true
[ "$(stat -c %s "$WORK/wire.pcap")" -gt 1000000 ] || fail "nothing was captured: $(cat "$WORK/tcpdump.log")"
! grep -qa "$MARK" "$WORK/wire.pcap" || fail "known plain text went over the wire"
! grep -qa "umbel://" "$WORK/wire.pcap" || fail "certificates of TLS 1.3 are not to be seen"

step "somebody of another cloud, and nobody at all"
EXTRA_ROOTS+=("$WORK/other")
mkdir "$WORK/m2"
"$UMBEL" up --root "$WORK/other" --mount "$WORK/m2" --listen 127.0.0.1:17300 --capacity 128M >>"$WORK/up.log" 2>&1
OTHER=$("$UMBEL" token --mount "$WORK/m2" mount stranger)
"$UMBEL" join --centre 127.0.0.1:17300 --token "$OTHER" --dir "$WORK/x" >/dev/null
"$UMBEL" down --root "$WORK/other" >>"$WORK/up.log" 2>&1
mkdir "$WORK/far2"
refused 1 'another cloud' in_space m "$UMBEL" mount --identity "$WORK/x" --cloud "10.47.11.1:$PORT" "$WORK/far2"
grep -q 'refused .*another cloud' "$MNT/.umbel/events" || fail "the centre does not say whom it refused"
head -c 10000 /dev/urandom | in_space m timeout 5 bash -c "cat >/dev/tcp/10.47.11.1/$PORT" 2>/dev/null || true
agree "after garbage"

step "who is revoked is out, at once and for good"
umbel revoke mount laptop
within "$(slow 20)" grep -q 'revoked mount/laptop' "$MNT/.umbel/events" || fail "no event tells of it"
umount -l "$WORK/far"
within "$(slow 60)" bash -c "! grep -q ' $WORK/far ' /proc/self/mounts" || fail "the mount stays"
refused 1 'revoked' in_space m "$UMBEL" mount --identity "$WORK/m" "$WORK/far2"
refused 1 'revoked' umbel token mount laptop

step "the cloud goes on"
cmp "$WORK/near.data" "$MNT/near"
fsck_clean
say ok
