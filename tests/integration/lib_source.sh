# shellcheck shell=bash
# A real source tree of thousands of files, for scripts that have sourced lib.sh.
#
#   source_tree DIR    makes DIR: the source of git, kept beside the tests' programs ($UMBEL_TEST_CACHE)

SOURCES=${UMBEL_TEST_CACHE:-$(dirname "$TOOLS")/sources}

# The source of git, by this machine's own package sources, in a state of its own.
apt_source() {
    local state=$WORK/apt file
    command -v apt-get >/dev/null || return 1
    mkdir -p "$state/parts" "$state/lists/partial" "$state/cache/archives/partial" "$SOURCES"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$file" ] || sed 's/^Types:.*/Types: deb-src/' "$file" >"$state/parts/${file##*/}"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -f "$file" ] || sed -n 's/^deb /deb-src /p' "$file" >"$state/parts/${file##*/}.list"
    done
    local apt=(timeout 180 apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$state/parts"
        -o Dir::State::lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root)
    (cd "$SOURCES" && "${apt[@]}" update && "${apt[@]}" source --download-only git) >"$WORK/apt.log" 2>&1
}

source_tree() {
    local tarball
    compgen -G "$SOURCES/git_*.orig.tar.*" >/dev/null || apt_source || true
    tarball=$(compgen -G "$SOURCES/git_*.orig.tar.*") || true
    if [ -n "$tarball" ]; then
        mkdir "$1"
        tar -xf "${tarball%%$'\n'*}" -C "$1" --strip-components=1
        return
    fi
    say "the source of git cannot be had here: headers of this machine take its place"
    cp -a /usr/include "$1"
    rm -rf "$1/Makefile"
}
