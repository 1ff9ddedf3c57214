#!/bin/bash
# A source tree of thousands of files in daily use: tar, compiler, git, sqlite, cp, rsync; the same after down and
# up, and from the pool alone. --full builds all of git.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_source.sh"
need tar git sqlite3 rsync make cc
make_work

# Something to build where git is not: every file includes every other header.
small_project() {
    local i
    mkdir -p "$1"
    for i in $(seq 60); do
        printf '#include <stdio.h>\nint f%d(int x) { return x * %d; }\n' "$i" "$i" >"$1/f$i.c"
        echo "int f$i(int x);" >>"$1/all.h"
    done
    { echo '#include "all.h"'; echo 'int main(void) { return'; for i in $(seq 60); do echo "f$i(1) +"; done; echo '0 != 1830; }'; } >"$1/main.c"
    printf 'objects = $(patsubst %%.c,%%.o,$(wildcard *.c))\nall: $(objects)\n\t$(CC) -o all $(objects) && ./all\n' >"$1/Makefile"
}

step "the tree"
source_tree "$WORK/source"
(cd "$WORK" && tar --sort=name -cf tree.tar source)
sum=$(sha256sum <"$WORK/tree.tar")
say "$(find "$WORK/source" -type f | wc -l) files, $(du -sh "$WORK/source" | cut -f1)"
up

step "tar"
tar -xf "$WORK/tree.tar" -C "$MNT"
same_tree "$WORK/source" "$MNT/source" "after tar"
[ "$(cd "$MNT" && tar --sort=name -cf - source | sha256sum)" = "$sum" ] || fail "tar makes another archive of it"

step "cp -a, rsync -a"
cp -a "$MNT/source" "$MNT/copy"
same_tree "$WORK/source" "$MNT/copy" "after cp -a"
rsync -a "$WORK/source/" "$MNT/synced/"
same_tree "$WORK/source" "$MNT/synced" "after rsync"
[ -z "$(rsync -ain --delete "$WORK/source/" "$MNT/synced/")" ] || fail "rsync sees differences: $(rsync -ain "$WORK/source/" "$MNT/synced/" | head)"
rm -rf "$MNT/copy"

step "build"
if [ -f "$MNT/source/Makefile" ]; then
    options=(NO_CURL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PERL=1 NO_PYTHON=1 NO_OPENSSL=1)
    if full && [ -e /usr/include/zlib.h ]; then
        (cd "$MNT/synced" && { [ ! -f configure ] || ./configure -q; } && make -s -j"$(nproc)" "${options[@]}") >"$WORK/make.log" 2>&1 || { tail "$WORK/make.log"; fail "make"; }
        says 'git version' "$MNT/synced/git" --version || fail "what was built does not run"
    else
        make -s -C "$MNT/synced" -j"$(nproc)" "${options[@]}" xdiff/lib.a >"$WORK/make.log" 2>&1 || { tail "$WORK/make.log"; fail "make"; }
        says xpatience ar t "$MNT/synced/xdiff/lib.a" || fail "the library is not whole"
    fi
fi
small_project "$MNT/small"
make -s -C "$MNT/small" -j4 >/dev/null || fail "make of a small project"
touch "$MNT/small/f7.c"
says f7.o make -C "$MNT/small" -n || fail "make does not see a newer file"

step "git"
(
    cd "$MNT/source"
    export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
    git init -q . && git add -A -f . && git commit -qm one
    [ -z "$(git status --porcelain)" ] || fail "git status is not clean after commit"
    echo more >>"$(git ls-files | sed -n 1p)"
    [ "$(git status --porcelain | wc -l)" = 1 ] || fail "git does not see a change"
    git stash -q && [ -z "$(git status --porcelain)" ] || fail "git stash"
    git gc -q && git fsck --full >/dev/null 2>&1 || fail "git fsck"
    git clone -q . "$MNT/clone" && rm -rf "$MNT/clone"
)

step "sqlite in WAL mode, two processes"
sqlite3 "$MNT/db" 'PRAGMA journal_mode=WAL; CREATE TABLE t (who, n INTEGER);' >/dev/null
writer() {
    local i
    for i in $(seq 10); do
        { echo '.timeout 60000'; echo 'BEGIN IMMEDIATE;'; seq -f "INSERT INTO t VALUES ('$1', %g);" 50; echo 'COMMIT;'; } | sqlite3 "$MNT/db" >/dev/null || return 1
    done
}
writer a & first=$!
writer b & second=$!
wait $first && wait $second || fail "a sqlite writer failed"
[ "$(sqlite3 "$MNT/db" 'SELECT count(*), sum(n) FROM t')" = "1000|25500" ] || fail "sqlite: $(sqlite3 "$MNT/db" 'SELECT count(*), sum(n) FROM t')"
[ "$(sqlite3 "$MNT/db" 'PRAGMA integrity_check')" = ok ] || fail "sqlite integrity"

step "down, up: the same"
before=$(tree_sum "$MNT")
down
up
[ "$before" = "$(tree_sum "$MNT")" ] || fail "the tree differs after down and up"

step "from the pool: the same"
umbel flush
evict_cold
[ "$before" = "$(tree_sum "$MNT")" ] || fail "the tree differs from the pool"
(cd "$MNT/source" && git fsck --full >/dev/null 2>&1) || fail "git fsck from the pool"
fsck_clean --data
say "ok"
