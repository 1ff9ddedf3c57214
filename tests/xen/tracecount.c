/* tracecount FILE: what R_B_Credit's own records in a trace of xentrace say about each real-time
 * vCPU. One line each:
 *
 *   vcpu D.V placed N met N moved N runs CPU=N...
 *
 * placed: wakes; met: those that left it on a processor with another runnable real-time vCPU;
 * moved: by the scheduler to another processor; runs: how often each processor began to run it.
 * Last: "records N lost N". */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* xen/include/public/trace.h; hv/sched/xen/rbcredit.c */
#define CLASS_RBCREDIT 0x00022000u + (6u << 9)
#define LOST           0x0001f001u
#define CPUS           16
#define VCPUS          256

struct vcpu {
    uint32_t who;
    unsigned placed, met, moved, runs[CPUS];
};

struct seen {
    struct vcpu vcpus[VCPUS];
    size_t n;
    unsigned long records, lost;
};

static struct vcpu *of(struct seen *s, uint32_t who)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->vcpus[i].who == who)
            return &s->vcpus[i];
    if (s->n == VCPUS) {
        fprintf(stderr, "tracecount: more than %d vCPUs\n", VCPUS);
        exit(1);
    }
    s->vcpus[s->n] = (struct vcpu){.who = who};
    return &s->vcpus[s->n++];
}

static void take(struct seen *s, uint32_t event, const uint32_t *d, unsigned n)
{
    s->records++;
    if (event == LOST && n >= 1)
        s->lost += d[0];
    if ((event & ~0x1ffu) != (CLASS_RBCREDIT) || n < 3)
        return;
    switch (event & 0x1ff) {
    case 1:
        of(s, d[0])->placed++;
        of(s, d[0])->met += d[2] >= 2;
        break;
    case 2:
        if (n >= 4 && d[3] != 0)
            of(s, d[0])->moved++;
        break;
    case 3:
        if (d[1] < CPUS)
            of(s, d[0])->runs[d[1]]++;
        break;
    }
}

static int read_all(FILE *f, struct seen *s)
{
    uint32_t head, d[7], cycles[2];

    while (fread(&head, sizeof(head), 1, f) == 1) {
        unsigned n = head >> 28 & 7;
        if (head >> 31 && fread(cycles, sizeof(cycles), 1, f) != 1)
            return -1;
        if (n > 0 && fread(d, sizeof(*d), n, f) != n)
            return -1;
        take(s, head & 0x0fffffff, d, n);
    }
    return ferror(f) ? -1 : 0;
}

int main(int argc, char **argv)
{
    static struct seen s;
    FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;

    if (f == NULL) {
        fprintf(stderr, "tracecount: give a file that can be read\n");
        return 2;
    }
    if (read_all(f, &s) != 0)
        fprintf(stderr, "tracecount: the last record is cut off\n");
    for (size_t i = 0; i < s.n; i++) {
        const struct vcpu *v = &s.vcpus[i];
        printf("vcpu %u.%u placed %u met %u moved %u runs", v->who >> 16, v->who & 0xffff,
               v->placed, v->met, v->moved);
        for (unsigned cpu = 0; cpu < CPUS; cpu++)
            if (v->runs[cpu] != 0)
                printf(" %u=%u", cpu, v->runs[cpu]);
        printf("\n");
    }
    printf("records %lu lost %lu\n", s.records, s.lost);
    fclose(f);
    return 0;
}
