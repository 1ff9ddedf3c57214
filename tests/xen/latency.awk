# The table and the verdicts of `run latency`, from the results of all runs. Exit status 1: a goal is missed.
function value(key,   i, kv) {
    for (i = 1; i <= NF; i++)
        if (split($i, kv, "=") == 2 && kv[1] == key)
            return kv[2] + 0
    bad = "no " key " in: " $0
    return 0
}
function row(name, what,   i) {
    i = name SUBSEP what
    printf "%-10s %-6s %3d  %9.1f %9.1f %11.1f  %6d\n", name, what, n[i], mean[i] / n[i], p99[i] / n[i], max[i], missed[i]
}
function goal(text, is, most) {
    printf "%s: %.2f, at most %.2f: %s\n", text, is, most, is <= most ? "reached" : "MISSED"
    if (is > most) missed_goals++
}
$1 == "scheduler" { name = FILENAME; sub(/.*latency-/, "", name); sub(/-[0-9]+\/.*/, "", name) }
$1 == "latency" {
    i = name SUBSEP $2
    n[i]++; mean[i] += value("mean"); p99[i] += value("p99"); missed[i] += value("missed")
    if (value("max") > max[i]) max[i] = value("max")
    if (!(i in least) || value("max") < least[i]) least[i] = value("max")
    if ($2 == "alone") { alone_mean = value("mean"); alone_p99 = value("p99") }
    else if (name == "rbcredit") {
        r = value("mean") / alone_mean; if (r > worst_mean) worst_mean = r
        r = value("p99") / alone_p99; if (r > worst_p99) worst_p99 = r
    }
    if (!(name in known)) { known[name] = 1; names[++count] = name }
}
END {
    if (bad != "") { print bad; exit 1 }
    print "scheduler  beside runs mean us   99% us  longest us  missed   (mean and 99%: of the runs' mean; longest and missed: of all)"
    for (c = 1; c <= count; c++) { row(names[c], "alone"); row(names[c], "hogs") }
    ours = "rbcredit" SUBSEP "hogs"; theirs = "credit" SUBSEP "hogs"
    if (!(ours in n)) exit missed_goals > 0
    goal("mean beside hogs / alone, worst run", worst_mean, 1.3)
    goal("99% beside hogs / alone, worst run", worst_p99, 1.3)
    if (theirs in n) goal("our longest / credit's, of its best run", max[ours] / least[theirs], 0.1)
    exit missed_goals > 0
}
