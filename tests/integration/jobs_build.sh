#!/bin/bash
# A real job: a source tree in the cloud, configured once, compiled by an array of jobs on three nodes, linked when they
# are done: what comes out is, byte for byte, what a build beside the cloud gives. --full takes the source of git.
. "$(dirname "$0")/lib.sh"
. "$HERE/lib_jobs.sh"
. "$HERE/lib_source.sh"
need bwrap unshare make cc ar
idle_machine "$@"
make_work

FILES=40 TASKS=9
# Small, but with all that a build has: a configured header, many objects, a library, a program that uses it.
small_project() {
    local n
    mkdir -p "$1"
    for ((n = 0; n < FILES; n++)); do
        printf '#include <stdio.h>\n#include "config.h"\n#include "all.h"\nint f%d(int x)\n{\n    int sum = SCALE;\n    for (int i = 0; i < %d; i++)\n        sum += snprintf(NULL, 0, "%%d %%s", x * i, __FILE__);\n    return sum;\n}\n' $n $((n + 3)) >"$1/f$n.c"
        echo "int f$n(int x);" >>"$1/all.h"
    done
    { printf '#include <stdio.h>\n#include "all.h"\nint main(void)\n{\n    long sum = 0;\n'; for ((n = 0; n < FILES; n++)); do echo "    sum += f$n($n);"; done; printf '    printf("%%ld\\n", sum);\n    return 0;\n}\n'; } >"$1/main.c"
    cat >"$1/configure" <<'END'
#!/bin/sh
set -e
echo '#include <stdlib.h>
int main(void) { return sizeof(long) == 8 ? 0 : 1; }' >/tmp/try.c
cc -o /tmp/try /tmp/try.c && /tmp/try && echo '#define SCALE 3' >config.h
END
    chmod +x "$1/configure"
    printf 'CFLAGS = -O2 -Wall\nobjects = $(patsubst %%.c,%%.o,$(filter-out main.c,$(wildcard *.c)))\nprog: main.o libf.a\n\t$(CC) -o $@ main.o libf.a\nlibf.a: $(objects)\n\trm -f $@\n\t$(AR) rcsD $@ $(sort $(objects))\n$(objects): config.h all.h\n' >"$1/Makefile"
    CONFIGURE=./configure MAKE='make -s' PROGRAM=prog
}

# Nothing in it may say where and when it was built.
git_project() {
    source_tree "$1"
    [ -f "$1/Makefile" ] && [ -f "$1/git.c" ] || skip "the source of git cannot be had here"
    MAKE="make -s prefix=/usr/local CFLAGS=-O0 NO_CURL=1 NO_EXPAT=1 NO_GETTEXT=1 NO_TCLTK=1 NO_PERL=1 NO_PYTHON=1 NO_OPENSSL=1 NO_REGEX=NeedsStartEnd"
    [ -e /usr/include/zlib.h ] || skip "zlib's headers are missing (zlib1g-dev)"
    CONFIGURE="$MAKE GIT-VERSION-FILE GIT-CFLAGS GIT-PREFIX GIT-USER-AGENT command-list.h config-list.h hook-list.h"
    PROGRAM=git TASKS=24
}

step "the source"
if full; then git_project "$WORK/source"; else small_project "$WORK/source"; fi
cp -a "$WORK/source" "$WORK/local"
step "built beside the cloud"
(cd "$WORK/local" && $CONFIGURE && $MAKE -j"$(nproc)" $PROGRAM) >"$WORK/local.log" 2>&1 || { tail "$WORK/local.log" >&2; fail "the build beside the cloud"; }
(cd "$WORK/local" && find . -name '*.o' | sed 's|^\./||' | LC_ALL=C sort) >"$WORK/objects"
say "$(wc -l <"$WORK/objects") objects"

up_with_jobs 3
cp -a "$WORK/source" "$MNT/source"
cp "$WORK/objects" "$MNT/objects"
cd "$MNT/source" || fail "no source in the cloud"

step "built by jobs"
began=$SECONDS
id_of() { sed -n 's/^id //p'; }
configure=$(umbel run --name configure --memory 512M "$CONFIGURE" | id_of)
compile=$(umbel run --name compile --array $TASKS --memory 512M --retries 1 --after "$configure" \
    "$MAKE"' $(awk -v n=$UMBEL_ARRAY_INDEX "NR % '$TASKS' == n" ../objects)' | id_of)
link=$(umbel run --name link --memory 512M --after "$compile" "$MAKE $PROGRAM" | id_of)
umbel job wait "$link" || { for id in "$configure" $(seq "${compile%-*}" "${compile#*-}") "$link"; do [ "$(value "$id" state)" = done ] || { cat "$JOBS/$id/status"; tail -n 5 "$JOBS/$id/stderr"; }; done >&2; fail "it is not built"; }
say "$((SECONDS - began)) s"
[ "$(awk -v a="${compile%-*}" -v b="${compile#*-}" '$1 >= a && $1 <= b && $2 == "done" { print $4 }' "$JOBS/list" | sort -u | wc -l)" = 3 ] || fail "it was not compiled on three nodes: $(cat "$JOBS/list")"

step "the same, byte for byte"
sums() { (cd "$1" && xargs sha256sum <"$WORK/objects" && sha256sum $PROGRAM); }
sums "$WORK/local" >"$WORK/sums.local"
sums "$MNT/source" >"$WORK/sums.cloud"
diff "$WORK/sums.local" "$WORK/sums.cloud" >"$WORK/diff" || fail "it differs: $(head -n 5 "$WORK/diff")"
if full; then says 'git version' ./git --version; else [ "$(./prog)" = "$("$WORK/local/prog")" ]; fi || fail "what was built does not run"

[ -z "$(find . -name '*.o' -newermt "@$(value "$link" began)")" ] || fail "the link compiled, too"
cd /
fsck_clean
say ok
