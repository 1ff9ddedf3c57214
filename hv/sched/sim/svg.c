/* Latency distributions and Gantt strips. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "sim.h"

/* Pixels. */
#define WIDTH  720
#define HEIGHT 240
#define LEFT   70
#define TOP    60
#define STRIP  14 /* of one processor */
#define GAP    46 /* over each policy's strips */

#define LEAST_US   1.0 /* left end of the time axis, logarithmic */
#define POINTS_MAX 300 /* of one curve */

static const char *const colours[] = {
    [RBC_CREDIT] = "#c1666b", [RBC_R_CREDIT] = "#d4a24c", [RBC_R_B_CREDIT] = "#0b6e4f"};
/* Of real-time vCPUs; ordinary ones are grey. */
static const char *const bright[] = {"#0b6e4f", "#c1666b", "#4a7ba6", "#d4a24c",
                                     "#7b4b94", "#2e9cca", "#e07a1f", "#5c8001"};
static const char *const grey[] = {"#d9d9d9", "#c4c4c4", "#e6e6e6", "#b5b5b5"};

/* What is drawn: real-time vCPUs, or all that have latencies if none is marked. */
static const struct sim_samples *drawn(const struct sim_result *r)
{
    for (size_t n = 0; n < r->groups_n && r->rt.n == 0; n++)
        if (r->groups[n].latency.n > 0)
            return &r->groups[n].latency;
    return &r->rt;
}

static double across(double us, double most)
{
    double at = log10(fmax(us, LEAST_US) / LEAST_US) / log10(most / LEAST_US);

    return LEFT + WIDTH * at;
}

static double down(double part)
{
    return TOP + HEIGHT * (1 - part);
}

static double most_us(const struct sim_shown *shown, size_t n)
{
    double most = 10;

    for (size_t k = 0; k < n; k++)
        most = fmax(most, (double)sim_quantile(drawn(shown[k].result), 1000) / 1e3);
    return pow(10, ceil(log10(most)));
}

static void axes(FILE *f, double most)
{
    for (int part = 0; part <= 100; part += 25)
        fprintf(f, "<path d='M%d %.1fh%d' class='g'/><text x='%d' y='%.1f' class='e'>%d%%</text>\n",
                LEFT, down(part / 100.0), WIDTH, LEFT - 6, down(part / 100.0) + 4, part);
    for (double us = LEAST_US; us <= most * 1.01; us *= 10)
        fprintf(f,
                "<path d='M%.1f %dv%d' class='g'/><text x='%.1f' y='%d' class='m'>%g %s</text>\n",
                across(us, most), TOP, HEIGHT, across(us, most), TOP + HEIGHT + 18,
                us < 1000  ? us
                : us < 1e6 ? us / 1e3
                           : us / 1e6,
                us < 1000  ? "us"
                : us < 1e6 ? "ms"
                           : "s");
}

/* Which part of the latencies is at most so long. */
static void curve(FILE *f, const struct sim_samples *s, const char *colour, double most)
{
    size_t points = s->n < POINTS_MAX ? s->n : POINTS_MAX;

    if (s->n == 0)
        return;
    fprintf(f, "<path class='l' stroke='%s' d='M%.1f %.1f", colour,
            across((double)s->ns[0] / 1e3, most), down(0));
    double x = across((double)s->ns[0] / 1e3, most);
    for (size_t n = 1; n <= points; n++) {
        size_t rank = n * s->n / points;
        double then = across((double)s->ns[rank - 1] / 1e3, most);
        if (n < points && then - x < 0.1)
            continue; /* straight up */
        x = then;
        fprintf(f, "V%.1fH%.1f", down((double)(rank - 1) / (double)s->n), x);
    }
    fprintf(f, "V%.1f", down(1));
    fprintf(f, "H%d'/>\n", LEFT + WIDTH);
}

static void strips(FILE *f, const struct sim_scenario *sc, const struct sim_shown *shown, int top)
{
    const struct sim_result *r = shown->result;
    double scale = (double)WIDTH / (double)sc->gantt_for;

    fprintf(f, "<text x='%d' y='%d' class='t'>%s: who runs, from %.3f s for %g ms</text>\n", LEFT,
            top - 10, sim_policy_name(shown->policy), (double)sc->gantt_from / 1e9,
            (double)sc->gantt_for / 1e6);
    for (uint32_t cpu = 0; cpu < r->processors; cpu++)
        fprintf(f, "<text x='%d' y='%d' class='e'>%u</text>\n", LEFT - 6,
                top + (int)cpu * STRIP + STRIP - 3, cpu);
    for (size_t n = 0; n < r->strips_n; n++) {
        const struct sim_strip *s = &r->strips[n];
        bool rt = sc->domains[s->line].rt;
        fprintf(f, "<rect x='%.2f' y='%u' width='%.2f' height='%d' fill='%s'/>\n",
                LEFT + scale * (double)(s->from - sc->gantt_from),
                (unsigned)top + s->cpu * STRIP + (rt ? 0 : 3),
                fmax(scale * (double)(s->to - s->from), rt ? 1 : 0.05), rt ? STRIP - 2 : STRIP - 5,
                rt ? bright[s->vcpu % 8] : grey[s->vcpu % 4]);
    }
}

static void draw(FILE *f, const struct sim_scenario *sc, const struct sim_shown *shown, size_t n)
{
    double most = most_us(shown, n);
    int one = GAP + (int)sc->processors * STRIP, height = TOP + HEIGHT + 40 + (int)n * one + 10;

    fprintf(f,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d'>\n"
            "<style>text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.e{text-anchor:end}"
            ".m{text-anchor:middle}.g{stroke:#ddd}.l{fill:none;stroke-width:2.5}</style>\n"
            "<rect width='100%%' height='100%%' fill='#fff'/>\n"
            "<text x='%d' y='24' class='t'>wakes that run within, %u processors</text>\n",
            LEFT + WIDTH + 30, height, LEFT, sc->processors);
    for (size_t k = 0; k < n; k++)
        fprintf(f, "<path class='l' stroke='%s' d='M%d 40h24'/><text x='%d' y='44'>%s</text>\n",
                colours[shown[k].policy], LEFT + 130 * (int)k, LEFT + 130 * (int)k + 30,
                sim_policy_name(shown[k].policy));
    axes(f, most);
    for (size_t k = 0; k < n; k++)
        curve(f, drawn(shown[k].result), colours[shown[k].policy], most);
    for (size_t k = 0; k < n; k++)
        strips(f, sc, &shown[k], TOP + HEIGHT + 40 + (int)k * one + GAP - 10);
    fputs("</svg>\n", f);
}

int sim_svg(const char *path, const struct sim_scenario *sc, const struct sim_shown *shown,
            size_t n)
{
    FILE *f = fopen(path, "w");

    if (f == NULL)
        return -errno;
    draw(f, sc, shown, n);
    bool bad = ferror(f) != 0;
    return fclose(f) != 0 ? -errno : bad ? -EIO : 0;
}
