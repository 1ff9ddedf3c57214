#!/bin/bash
# Mounts of machines that are not trusted: their users are mapped as their certificate says, and the centre checks what those
# may. root_squash (the default), all_squash, none; each a mount that has joined, beside the cloud's own.
. "$(dirname "$0")/lib.sh"
need setpriv setfacl setfattr
make_work

PORT=17400
ALICE=1000 BOB=1001 TEAM=3000
SQUASHED=$WORK/squashed ONE=$WORK/one TRUSTED=$WORK/trusted
mkdir "$SQUASHED" "$ONE" "$TRUSTED"
EXTRA_MOUNTS+=("$SQUASHED" "$ONE" "$TRUSTED")

# as UID [--groups GROUPS] COMMAND...
as() {
    local uid=$1 groups=--clear-groups
    shift
    if [ "$1" = --groups ]; then
        groups=--groups=$2
        shift 2
    fi
    setpriv "--reuid=$uid" "--regid=$uid" "$groups" "$@"
}
may_not() {
    ! "$@" >"$WORK/may_not.log" 2>&1 || fail "'$*' is allowed"
    grep -qE 'Permission denied|Operation not permitted' "$WORK/may_not.log" || fail "'$*' says $(cat "$WORK/may_not.log")"
}
owner() { stat -c %u:%g "$MNT/$1"; }
join() {
    "$UMBEL" join --centre "127.0.0.1:$PORT" --token "$1" --dir "$WORK/$2.joined" >/dev/null || fail "$2 cannot join"
    "$UMBEL" mount --identity "$WORK/$2.joined" "$3" >/dev/null || fail "$2 cannot mount"
}

"$UMBEL" up --root "$ROOT" --mount "$MNT" --listen "127.0.0.1:$PORT" --capacity 512M >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "umbel up --listen"; }
mapfile -t DAEMONS < <(cat "$ROOT"/run/*.pid)
refused 2 'not .*but none' umbel token --squash some mount x
refused 2 'not .*but none' umbel token --squash all_squash mount x
refused 2 'users of a mount' umbel token --squash none node x
join "$(umbel token mount squashed)" squashed "$SQUASHED"
join "$(umbel token --squash all_squash,$ALICE:$ALICE mount one)" one "$ONE"
join "$(umbel token --squash none mount trusted)" trusted "$TRUSTED"
says 'mount/squashed .*root_squash=65534:65534' cat "$MNT/.umbel/events" || fail "events do not say who is mapped: $(cat "$MNT/.umbel/events")"

mkdir -m 1777 "$MNT/open"
mkdir -m 0700 "$MNT/alice" "$MNT/root"
mkdir -m 0770 "$MNT/team"
chown $ALICE:$ALICE "$MNT/alice"
chgrp $TEAM "$MNT/team"
echo secret >"$MNT/alice/secret"
chmod 600 "$MNT/alice/secret"
chown $ALICE:$ALICE "$MNT/alice/secret"
for name in plain root/hidden open/of-root acl; do echo "$name" >"$MNT/$name"; done
chmod 600 "$MNT/acl"
setfacl -m u:$BOB:rw "$MNT/acl"
as $ALICE touch "$MNT/open/of-alice"
ln -s plain "$MNT/link"

step "root_squash: root there is nobody here"
[ "$(cat "$SQUASHED/plain")" = plain ] && [ "$(cat "$SQUASHED/link")" = plain ] || fail "what all may read cannot be read"
echo new >"$SQUASHED/open/new"
mkdir "$SQUASHED/open/dir"
[ "$(owner open/new)" = 65534:65534 ] && [ "$(owner open/dir)" = 65534:65534 ] || fail "made by $(owner open/new)"
chmod 640 "$SQUASHED/open/new"
mv "$SQUASHED/open/new" "$SQUASHED/open/dir/new"
rm -r "$SQUASHED/open/dir"
may_not bash -c "echo x >>'$SQUASHED/plain'"
may_not bash -c "echo x >'$SQUASHED/other'"
may_not truncate -s 0 "$SQUASHED/plain"
may_not chmod 666 "$SQUASHED/plain"
may_not chown 65534 "$SQUASHED/plain"
may_not touch -d yesterday "$SQUASHED/plain"
may_not rm -f "$SQUASHED/plain"
may_not mv "$SQUASHED/plain" "$SQUASHED/open/plain"
may_not ln "$SQUASHED/plain" "$SQUASHED/plain2"
may_not mkdir "$SQUASHED/d"
may_not mknod "$SQUASHED/open/device" b 7 0
may_not ls "$SQUASHED/root"
may_not cat "$SQUASHED/root/hidden"
may_not cat "$SQUASHED/acl"
may_not setfattr -n user.x -v y "$SQUASHED/plain"
may_not setfattr -n trusted.x -v y "$SQUASHED/open"
may_not setfacl -m u:65534:rwx "$SQUASHED/plain"
may_not rm -f "$SQUASHED/open/of-alice" # the sticky bit
may_not mv "$SQUASHED/open/of-root" "$SQUASHED/open/x"
may_not chown 65534 "$SQUASHED/open/of-alice"

step "root_squash: others are who they are"
[ "$(as $ALICE cat "$SQUASHED/alice/secret")" = secret ] || fail "alice cannot read what is hers"
may_not cat "$SQUASHED/alice/secret" # which this machine's kernel knows by now
as $ALICE bash -c "echo more >>'$SQUASHED/alice/secret' && mv '$SQUASHED/alice/secret' '$SQUASHED/alice/moved' && touch -d yesterday '$SQUASHED/alice/moved'"
[ "$(tail -n 1 "$MNT/alice/moved")" = more ] || fail "what alice wrote is not there"
may_not as $BOB cat "$SQUASHED/alice/moved"
may_not as $BOB rm -f "$SQUASHED/open/of-alice"
[ "$(as $BOB cat "$SQUASHED/acl")" = acl ] || fail "the ACL lets bob read"
as $BOB bash -c "echo bob >'$SQUASHED/acl'"
may_not as $ALICE cat "$SQUASHED/acl"
as $BOB --groups $TEAM bash -c "echo team >'$SQUASHED/team/of-bob'"
[ "$(owner team/of-bob)" = $BOB:$BOB ] || fail "made by $(owner team/of-bob)"
may_not as $BOB ls "$SQUASHED/team"

step "no user of such a mount gives orders"
says '^cloud ' cat "$SQUASHED/.umbel/status" || fail "what all may see is not seen"
may_not bash -c "echo flush >'$SQUASHED/.umbel/ctl'"
may_not bash -c "echo 5 >'$SQUASHED/.umbel/settings/flush_age'"
may_not bash -c "echo drain >'$SQUASHED/.umbel/nodes/node-1/ctl'"
may_not cat "$SQUASHED/.umbel/events"
may_not cat "$SQUASHED/.umbel/cache"

step "all_squash: whoever it is, it is alice"
for user in 0 $BOB 4711; do
    as $user bash -c "echo '$user' >'$ONE/open/by-$user'"
    [ "$(owner "open/by-$user")" = $ALICE:$ALICE ] || fail "$user made a file of $(owner "open/by-$user")"
    as $user grep -qx more "$ONE/alice/moved" || fail "$user is not alice"
    as $user bash -c "echo again >>'$ONE/alice/moved' && chmod 644 '$ONE/alice/moved' && chmod 600 '$ONE/alice/moved'"
    may_not as $user cat "$ONE/root/hidden"
    may_not as $user bash -c "echo x >>'$ONE/plain'"
    may_not as $user chmod 666 "$ONE/plain"
    may_not as $user rm -f "$ONE/open/of-root"
    may_not as $user bash -c "echo flush >'$ONE/.umbel/ctl'"
    as $user rm "$ONE/open/by-$user"
done
may_not chown 0 "$ONE/alice/moved"

step "none: it is trusted"
[ "$(cat "$TRUSTED/root/hidden")" = root/hidden ] || fail "root is not root"
echo x >"$TRUSTED/by-root"
[ "$(owner by-root)" = 0:0 ] || fail "made by $(owner by-root)"
chown $BOB "$TRUSTED/by-root"
[ "$(as $BOB cat "$TRUSTED/by-root")" = x ] || fail "bob cannot read what is his"

step "data by these mounts: staged, flushed, from the pool, and over a restart of the centre"
head -c 5000000 /dev/urandom >"$WORK/data"
chmod 644 "$WORK/data"
as $ALICE cp "$WORK/data" "$SQUASHED/alice/data"
as $ALICE chmod 600 "$SQUASHED/alice/data"
as $BOB cmp "$WORK/data" "$ONE/alice/data"
umbel flush
as $ALICE cmp "$WORK/data" "$SQUASHED/alice/data"
evict_cold
as $ALICE cmp "$WORK/data" "$SQUASHED/alice/data"
evict_cold
cmp "$WORK/data" "$ONE/alice/data"
mkdir -m 777 "$WORK/go"
as $ALICE bash -c "exec 9>>'$SQUASHED/alice/data'; echo before >&9; touch '$WORK/go/ready'; while [ ! -e '$WORK/go/on' ]; do sleep 0.1; done; echo after >&9; sync '$SQUASHED/alice/data'" &
writer=$!
within 20 test -e "$WORK/go/ready" || fail "the writer does not begin"
kill -KILL "$(pid_of control-1)"
up
sleep 3
touch "$WORK/go/on"
wait $writer || fail "the writer did not outlive the centre's restart"
[ "$(tail -c 13 "$MNT/alice/data")" = "before
after" ] || fail "what was written is not there"
may_not cat "$SQUASHED/alice/data"
fsck_clean --data
for at in "$SQUASHED" "$ONE" "$TRUSTED"; do umount "$at"; done
say ok
