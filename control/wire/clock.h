/* Time. Deadlines and leases use CLOCK_BOOTTIME (it counts suspend); stamps use CLOCK_REALTIME. */
#ifndef UMBEL_WIRE_CLOCK_H
#define UMBEL_WIRE_CLOCK_H

#include <stdint.h>
#include <time.h>

int64_t clock_boot_ms(void);
int64_t clock_boot_ns(void);
struct timespec clock_real(void);
int64_t clock_real_ns(void);
/* How far another machine's CLOCK_REALTIME is ahead of ours, in ns: it said `theirs` between our
 * `sent` and `heard`. 0 if they may be equal, as far as that tells; else the middle of what may be,
 * as NTP takes it (RFC 5905, section 8). */
int64_t clock_ahead_ns(int64_t sent, int64_t heard, int64_t theirs);

/* The machine's boot id (kernel.random.boot_id), 36 characters and NUL. */
int clock_boot_id(char out[37]);
/* What this process says of the machine that it runs on: its boot id, or $UMBEL_MACHINE, by which
 * tests make one machine count as several. Same errors. */
int clock_machine(char out[37]);

/* A random number from getrandom(2), never 0: instances, ids. */
uint64_t random_id(void);

#endif
