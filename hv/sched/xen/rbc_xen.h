/*
 * What the core of R_B_Credit needs of libc, taken from Xen: RBC_TYPES_H in the hypervisor's build.
 */
#ifndef UMBEL_HV_SCHED_XEN_RBC_XEN_H
#define UMBEL_HV_SCHED_XEN_RBC_XEN_H

#include <xen/errno.h>
#include <xen/lib.h>
#include <xen/string.h>
#include <xen/types.h>

#ifndef UINT32_C
#define UINT32_C(n) n##U
#endif
#ifndef INT64_C
#define INT64_C(n) n##L /* x86-64 and Arm64: long has 64 bits */
#endif
#ifndef INT64_MAX
#define INT64_MAX INT64_C(0x7fffffffffffffff)
#endif

#define RBC_CPUS_MAX     ((CONFIG_NR_CPUS + 63) / 64 * 64)
#define RBC_ASSERT(what) ASSERT(what)

#endif
