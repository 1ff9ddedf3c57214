#include "place_trace.h"

#include <math.h>

#define MIB      (1ull << 20)
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* splitmix64 */
uint64_t trace_random(struct trace_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

double trace_uniform(struct trace_random *r)
{
    return (double)(trace_random(r) >> 11) / (double)(1ull << 53);
}

struct kind {
    uint32_t milli_cpus, mib, count;
};

/* The trace has 13 more kinds, of 1 to 5 nodes each. */
static const struct kind node_kinds[] = {
    {96000, 393216, 596}, {104000, 524288, 407}, {32000, 262144, 129}, {16000, 122880, 107},
    {96000, 524288, 59},  {32000, 131072, 51},   {128000, 786432, 39}, {64000, 262144, 37},
    {64000, 524288, 22},  {96000, 786432, 22},   {8000, 32768, 19},    {32000, 65536, 10},
    {48000, 376832, 9}};

static const struct kind job_kinds[] = {
    {1000, 2048, 41},    {3152, 5600, 1598},  {4000, 15258, 195},  {4000, 22888, 189},
    {4000, 24576, 104},  {4000, 30517, 136},  {4000, 31250, 45},   {4152, 10600, 154},
    {6000, 6144, 65},    {6000, 12288, 29},   {6000, 22888, 54},   {8000, 16384, 128},
    {8000, 30517, 666},  {8000, 32768, 61},   {8200, 33792, 41},   {9810, 41560, 212},
    {11300, 49152, 864}, {11400, 48128, 534}, {11400, 77824, 70},  {11900, 77824, 52},
    {11908, 47104, 794}, {12000, 15360, 46},  {12000, 16384, 110}, {12000, 24576, 165},
    {12500, 57344, 379}, {14200, 58368, 94},  {15200, 80896, 56},  {15400, 51200, 120},
    {15700, 58368, 158}, {16000, 32768, 130}, {16000, 65536, 42},  {16400, 125952, 27},
    {16500, 51200, 100}, {18708, 64512, 257}, {24200, 93184, 99},  {32000, 49152, 290},
    {60200, 320512, 3},  {64000, 262144, 3},  {64200, 263168, 18}, {88000, 327680, 18},
    {120000, 737280, 3}, {120200, 640000, 2}};

/* Quantiles 0, 5, ... 95 percent, of running times in seconds by processors. */
#define STEPS 20
static const struct {
    uint32_t milli_cpus; /* up to */
    double at[STEPS];
} seconds[] = {{4000, {1,   22,  56,  86,  120, 144,  162,  190,  203,  220,
                       249, 307, 408, 614, 937, 1129, 2249, 4023, 5673, 13974}},
               {8000, {1,   31,   53,   75,   114,  176,  268,   386,   542,   762,
                       943, 1200, 1560, 2200, 3030, 5154, 10128, 16560, 21598, 28616}},
               {12000, {1,   47,  59,  74,   92,   120,  161,  232,  307,  417,
                        540, 664, 839, 1069, 1333, 1698, 2377, 3344, 4617, 10919}},
               {20000, {1,   50,  71,   88,   118,  191,  278,  382,  492,  600,
                        741, 890, 1148, 1378, 1707, 2079, 2373, 3372, 4445, 7836}},
               {UINT32_MAX, {22,  138, 142, 144, 145, 146, 147,  148,  150,  151,
                             171, 176, 179, 235, 548, 941, 1711, 1974, 2903, 7086}}};

/* Of times between arrivals, in thousandths of their mean; and the last, of 99.9 percent. */
static const double gaps[STEPS] = {0,   3,   14,  43,  85,  116,  159,  207,  275,  346,
                                   437, 537, 650, 778, 965, 1181, 1482, 1871, 2572, 3904};
#define GAP_LAST 15743.0

/* Of the sizes of files. */
static const double sizes[STEPS] = {0,         0,          404,        622,         1057,
                                    3386,      14379,      27255,      96512,       276561,
                                    920160,    3833596,    15357177,   63987795,    106350423,
                                    367001127, 1393617507, 5788875201, 22405839553, 111889582981};

/* Between neighbours the logarithm grows evenly: these quantities span decades. */
static double between(double a, double b, double part)
{
    return exp(log(a + 1) + part * (log(b + 1) - log(a + 1))) - 1;
}

static double draw(const double at[STEPS], struct trace_random *r)
{
    double u = trace_uniform(r) * (STEPS - 1);
    size_t k = (size_t)u;

    return between(at[k], at[k + 1], u - (double)k);
}

static const struct kind *pick(const struct kind *kinds, size_t n, double u)
{
    double all = 0;
    size_t k = 0;

    for (size_t i = 0; i < n; i++)
        all += kinds[i].count;
    for (u *= all; k + 1 < n && u >= kinds[k].count; k++)
        u -= kinds[k].count;
    return &kinds[k];
}

struct trace_node trace_node(size_t k, size_t n, struct trace_random *r)
{
    static const uint32_t speeds[] = {800, 1000, 1250};
    const struct kind *kind = pick(node_kinds, COUNT(node_kinds), ((double)k + 0.5) / (double)n);

    return (struct trace_node){kind->milli_cpus, kind->mib * MIB,
                               speeds[trace_random(r) % COUNT(speeds)]};
}

struct trace_job trace_job(struct trace_random *r)
{
    const struct kind *kind = pick(job_kinds, COUNT(job_kinds), trace_uniform(r));
    size_t band = 0;
    double u = trace_uniform(r);

    while (kind->milli_cpus > seconds[band].milli_cpus)
        band++;
    return (struct trace_job){
        .milli_cpus = kind->milli_cpus,
        .memory = kind->mib * MIB,
        .seconds = draw(seconds[band].at, r),
        .gap = (u < 0.95 ? draw(gaps, r) : between(gaps[STEPS - 1], GAP_LAST, (u - 0.95) / 0.05)) /
               1000};
}

uint64_t trace_file_size(struct trace_random *r)
{
    return (uint64_t)draw(sizes, r);
}
