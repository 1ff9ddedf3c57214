#!/bin/bash
# sanitized.sh REPORTS COMMAND...: runs COMMAND, which may start any number of sanitized programs; they
# leave their reports in the folder REPORTS. Fails if there are any, as the command may not notice: a
# daemon, or a child of Criterion whose leak was found after its test had passed.
reports=$1
shift
rm -rf "$reports"
mkdir -p "$reports"
chmod 1777 "$reports" # daemons may run as other users

common="log_path=$reports/report:log_exe_name=1"
export ASAN_OPTIONS="$common:detect_stack_use_after_return=1:strict_string_checks=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="$common:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
export TSAN_OPTIONS="$common:second_deadlock_stack=1:die_after_fork=0${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
supp=$(cd "$(dirname "$0")" && pwd)
TSAN_OPTIONS="$TSAN_OPTIONS:suppressions=$supp/tsan.supp"
export LSAN_OPTIONS="suppressions=$supp/lsan.supp:print_suppressions=0${LSAN_OPTIONS:+:$LSAN_OPTIONS}"

# libraft loads the log by one realloc for each entry, which a sanitizer's allocator copies each time.
export UMBEL_SNAPSHOT_ENTRIES=${UMBEL_SNAPSHOT_ENTRIES:-8192}

"$@"
status=$?
found=("$reports"/*)
if [ -e "${found[0]}" ]; then
    printf '\n==== %s sanitizer report(s)\n' "${#found[@]}"
    head -n 200 -- "${found[@]}"
    exit 1
fi
exit $status
