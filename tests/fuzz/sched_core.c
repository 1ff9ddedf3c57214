/* The core of R_B_Credit: whatever happens in whatever order, no vCPU is lost, and the invariants
 * of hv/sched/rbc.h hold. */
#include <stdint.h>

#include "tests/sched_host.h"

#define STEPS_MAX 4000

struct bytes {
    const uint8_t *at;
    size_t left;
};

/* 0 when there are none left. */
static uint32_t below(void *arg, uint32_t n)
{
    struct bytes *b = arg;
    uint32_t value = 0;

    for (uint32_t most = n - 1; most > 0 && b->left > 0; most >>= 8, b->left--)
        value = value << 8 | *b->at++;
    return value % n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes bytes = {data, size};
    const struct host_source from = {below, &bytes};
    struct host *h = calloc(1, sizeof(*h));

    if (h == NULL)
        return 0;
    host_init(h, (enum rbc_policy)below(&bytes, 3), 1 + below(&bytes, HOST_CPUS));
    for (int step = 0; bytes.left > 0 && step < STEPS_MAX && h->why == NULL; step++)
        host_step(h, &from);
    if (h->why != NULL)
        abort();
    free(h);
    return 0;
}
