# Part of boot.sh: umbel sched set, while guest a is ordinary.
umbel() { LD_LIBRARY_PATH=/test/lib /test/umbel "$@"; }
umbel_says() { # TEXT ARGUMENT...
    local text=$1 said
    shift
    said=$(umbel sched set "$@" 2>&1)
    [ "$said" = "$text" ] || fail "umbel sched set $*: says '$said', not '$text'"
}

umbel_says 'a: weight 77' a
umbel_says 'a: weight 500' a --weight 500
umbel_says 'a: real-time' a --real-time on
[ "$(weight a)" = 65535 ] || fail "umbel sched set marks nothing"
umbel_says 'a: real-time' a --cap 30
umbel_says 'a: weight 500, cap 30%' a --real-time off
umbel_says 'a: real-time' a --real-time on --weight 90
umbel_says 'a: weight 90, cap 30%' a --real-time off
umbel_says "$(xl domid a): weight 90" "$(xl domid a)" --cap 0
umbel sched set a --cap 101 >/dev/null 2>&1 && fail "umbel sched set takes a cap that is too large"
umbel sched set nobody 2>&1 | grep -q "there is no domain 'nobody'" || fail "umbel sched set does not say that there is no such domain"
result "umbel sched set works"
