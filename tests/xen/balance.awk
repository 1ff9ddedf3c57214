# The verdict of `run balance` for one policy, from the counts of the trace. Exit status 1: not as it should be.
$1 == "guest" { id[$2] = $3 }
$1 == "vcpu" {
    split($2, who, ".")
    met[who[1]] = $6; placed[who[1]] = $4; moved[who[1]] = $8
    for (i = 10; i <= NF; i++) { split($i, kv, "="); runs[who[1], kv[1]] = kv[2]; all[who[1]] += kv[2] }
}
$1 == "records" { lost = $4 }
function home(d,   c, best) {
    for (c = 0; c < 16; c++) if (runs[d, c] > runs[d, best + 0]) best = c
    return best + 0
}
function share(d) { return all[d] ? runs[d, home(d)] / all[d] : 0 }
END {
    a = id["rt1"]; b = id["rt2"]
    for (i = 1; i <= 2; i++) {
        d = i == 1 ? a : b
        printf "%-8s rt%d: %d wakes, %d of them with the other one there, %d moves; runs on processor %d: %d of %d\n", policy, i,
            placed[d], met[d], moved[d], home(d), runs[d, home(d)], all[d]
    }
    if (lost + 0 > 0) { print policy ": " lost " records lost"; exit 1 }
    if (all[a] < 100 || all[b] < 100) { print policy ": too few runs to tell"; exit 1 }
    if (share(a) < 0.99 || share(b) < 0.99) { print policy ": they do not stay where they are"; exit 1 }
    apart = home(a) != home(b)
    if (policy == "rbcredit" ? !apart || met[a] + met[b] > 0 : apart || met[a] + met[b] == 0) { print policy ": not as expected"; exit 1 }
    print policy ": " (apart ? "each has a processor of its own" : "they share a processor")
}
