#!/bin/bash
# The command line: help, exit statuses, and what it says to wrong usage. No cloud is started.
. "$(dirname "$0")/lib.sh"

[ -x "$UMBEL" ] || fail "no umbel at $UMBEL (UMBEL_BINARY)"
commands=$("$UMBEL" --help | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 20 ] || fail "umbel --help lists too little: $commands"

step "help everywhere"
says '^umbel [0-9]' "$UMBEL" --version || fail "umbel --version"
for command in $commands; do
    says "^Usage: umbel $command" "$UMBEL" "$command" --help || fail "umbel $command --help"
    "$UMBEL" help "$command" >/dev/null
done

step "wrong usage"
refused 2 'Usage' "$UMBEL"
refused 2 "nearest is 'status'" "$UMBEL" stauts
refused 2 "nearest is '--help'" "$UMBEL" --hepl
for command in $commands; do
    refused 2 "unknown option '--no-such-option'" "$UMBEL" "$command" --no-such-option
    refused 2 "unknown option '-Z'" "$UMBEL" "$command" -Z
done
refused 2 "nearest is '--root'" "$UMBEL" up --rot /nowhere
refused 2 "nearest is '--capacity'" "$UMBEL" up --capcaity=1G
refused 2 'where the cloud lives' "$UMBEL" up
refused 2 'not a number' "$UMBEL" up --root /nowhere/x --nodes many
refused 2 'not a number' "$UMBEL" up --root /nowhere/x --nodes 0
refused 2 'not a size' "$UMBEL" up --root /nowhere/x --capacity lots
refused 2 'at least' "$UMBEL" up --root /nowhere/x --capacity 1M
refused 2 'two voters' "$UMBEL" up --root /nowhere/x --controls 2
refused 2 'one control process' "$UMBEL" up --root /nowhere/x --controls 3
refused 2 'belongs to no option' "$UMBEL" up --root /nowhere/x extra
refused 2 'which node' "$UMBEL" drain
refused 2 'too many' "$UMBEL" where a b
refused 2 'which file' "$UMBEL" evict

step "what cannot be done"
refused 1 'cannot make' "$UMBEL" up --root /nowhere/x
refused 1 'No such file' "$UMBEL" down --root /nowhere/x
refused 1 'which cloud' env -C / -u UMBEL_MOUNT "$UMBEL" status
refused 1 'not where a cloud is mounted' "$UMBEL" status --mount /
for words in "--mount / cancel 7" "cancel --mount / 7" "cancel 7 --mount=/" "-m / cancel 7"; do
    # shellcheck disable=SC2086
    refused 1 'not where a cloud is mounted' "$UMBEL" job $words
done
refused 2 "nearest is 'cancel'" "$UMBEL" job --mount / cancle 7
refused 1 'not a file in a mounted cloud' "$UMBEL" where /etc/hostname
[ ! -e /dev/full ] || refused 1 'cannot write the output' bash -c '"$1" --help >/dev/full' - "$UMBEL"
say "ok"
