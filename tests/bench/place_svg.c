#include "place_sim.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

/* Pixels. */
#define WIDTH   300
#define HEIGHT  220
#define LEFT    56
#define TOP     70
#define ACROSS  (LEFT + WIDTH + 24)
#define DOWN    (HEIGHT + 70)
#define COLUMNS 2
#define PANELS  4
#define MARKS   5 /* on an axis, about */

static const char *const colours[RULES] = {"#0b6e4f", "#c1666b", "#4a7ba6", "#d4a24c"};

struct panel {
    const char *title;
    double (*value)(const struct outcome *o);
    bool from_zero;
};

static double waited(const struct outcome *o)
{
    return o->waited;
}

static double waited_99(const struct outcome *o)
{
    return o->waited_99;
}

static double to_end(const struct outcome *o)
{
    return o->turnaround;
}

static double moved(const struct outcome *o)
{
    return o->moved / 1e12;
}

static const struct panel panels[PANELS] = {{"mean waiting time, s", waited, true},
                                            {"waiting time, 99th percentile, s", waited_99, true},
                                            {"mean time to the end, s (not from 0)", to_end, false},
                                            {"inputs moved to nodes, TB", moved, true}};

/* 1, 2 or 5 times a power of ten. */
static double round_step(double step)
{
    double power = pow(10, floor(log10(step)));

    return power * (step / power > 5 ? 10 : step / power > 2 ? 5 : step / power > 1 ? 2 : 1);
}

struct axis {
    double from, to, step;
};

static struct axis axis_of(const struct panel *p, const struct outcome (*o)[RULES], size_t loads)
{
    double least = p->from_zero ? 0 : INFINITY, most = 0;

    for (size_t n = 0; n < loads; n++)
        for (int r = 0; r < RULES; r++) {
            most = fmax(most, p->value(&o[n][r]));
            least = fmin(least, p->value(&o[n][r]));
        }
    double step = most > least ? round_step((most - least) / MARKS) : 1;
    double from = step * floor(least / step);
    return (struct axis){from, fmax(step * ceil(most / step), from + step), step};
}

static void draw(FILE *f, const struct panel *p, int left, int top,
                 const struct outcome (*o)[RULES], size_t loads)
{
    struct axis a = axis_of(p, o, loads);
    double first = o[0][0].load, span = fmax(o[loads - 1][0].load - first, 1e-9);

    fprintf(f, "<text x='%d' y='%d' class='t'>%s</text>\n", left, top - 14, p->title);
    for (double at = a.from; at <= a.to + a.step / 2; at += a.step) {
        double y = top + HEIGHT * (a.to - at) / (a.to - a.from);
        fprintf(f, "<path d='M%d %.1fh%d' class='g'/><text x='%d' y='%.1f' class='e'>%g</text>\n",
                left, y, WIDTH, left - 6, y + 4, at);
    }
    for (size_t n = 0; n < loads; n++)
        fprintf(f, "<text x='%.1f' y='%d' class='m'>%g%%</text>\n",
                left + WIDTH * (o[n][0].load - first) / span, top + HEIGHT + 18,
                100 * o[n][0].load);
    for (int r = RULES - 1; r >= 0; r--) { /* the first one on top */
        fprintf(f, "<path class='l' stroke='%s' d='", colours[r]);
        for (size_t n = 0; n < loads; n++)
            fprintf(f, "%c%.1f %.1f", n ? 'L' : 'M', left + WIDTH * (o[n][r].load - first) / span,
                    top + HEIGHT * (a.to - p->value(&o[n][r])) / (a.to - a.from));
        fprintf(f, "'/>\n");
    }
}

int place_svg(const char *path, const struct outcome (*outcomes)[RULES], size_t loads,
              const char *title)
{
    FILE *f = fopen(path, "w");

    if (!f)
        return -errno;
    fprintf(f,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d'>\n"
            "<style>text{font:12px sans-serif;fill:#333}.t{font-weight:bold}.e{text-anchor:end}"
            ".m{text-anchor:middle}.g{stroke:#ddd}.l{fill:none;stroke-width:2.5}</style>\n"
            "<rect width='100%%' height='100%%' fill='#fff'/>\n"
            "<text x='%d' y='24'>%s; by load</text>\n",
            COLUMNS * ACROSS + 16, TOP + PANELS / COLUMNS * DOWN - 20, LEFT, title);
    for (int r = 0; r < RULES; r++)
        fprintf(f, "<path class='l' stroke='%s' d='M%d 20h24'/><text x='%d' y='24'>%s</text>\n",
                colours[r], 330 + 110 * r, 360 + 110 * r, rule_names[r]);
    for (int n = 0; n < PANELS; n++)
        draw(f, &panels[n], LEFT + n % COLUMNS * ACROSS, TOP + n / COLUMNS * DOWN, outcomes, loads);
    fprintf(f, "</svg>\n");
    bool bad = ferror(f);
    return fclose(f) != 0 ? -errno : bad ? -EIO : 0;
}
