/* Through libxenlight. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hv/sched/ctl/sched_ctl.h"

#ifdef UMBEL_LIBXENLIGHT

#include <libxl.h>
#include <libxl_utils.h>

/* What the hypervisor's version has if it was built with R_B_Credit (hv/sched/xen/build). */
#define XEN_HAS "rbcredit"

struct xl {
    void *lib;
    libxl_ctx *ctx;
    xentoollog_logger *log;
    uint32_t id;
    __typeof__(libxl_ctx_alloc) *ctx_alloc;
    __typeof__(libxl_ctx_free) *ctx_free;
    __typeof__(libxl_get_version_info) *version_info;
    __typeof__(libxl_domain_qualifier_to_domid) *to_domid;
    __typeof__(libxl_domain_sched_params_init) *params_init;
    __typeof__(libxl_domain_sched_params_get) *params_get;
    __typeof__(libxl_domain_sched_params_set) *params_set;
    __typeof__(libxl_scheduler_to_string) *scheduler_name;
    __typeof__(xtl_createlogger_stdiostream) *log_create;
    __typeof__(xtl_logger_destroy) *log_destroy;
};

/* Functions as data: POSIX lets dlsym do it, ISO C has no word for it. */
static int load(struct xl *xl, char why[SCHED_WHY])
{
    const struct {
        void *to;
        const char *name;
    } wanted[] = {
        {&xl->ctx_alloc, "libxl_ctx_alloc"},
        {&xl->ctx_free, "libxl_ctx_free"},
        {&xl->version_info, "libxl_get_version_info"},
        {&xl->to_domid, "libxl_domain_qualifier_to_domid"},
        {&xl->params_init, "libxl_domain_sched_params_init"},
        {&xl->params_get, "libxl_domain_sched_params_get"},
        {&xl->params_set, "libxl_domain_sched_params_set"},
        {&xl->scheduler_name, "libxl_scheduler_to_string"},
        {&xl->log_create, "xtl_createlogger_stdiostream"}, /* of a library that it needs */
        {&xl->log_destroy, "xtl_logger_destroy"},
    };

    xl->lib = dlopen(UMBEL_LIBXENLIGHT, RTLD_NOW | RTLD_LOCAL);
    if (xl->lib == NULL) {
        snprintf(why, SCHED_WHY, "libxenlight cannot be loaded: %s", dlerror());
        return -ENOSYS;
    }
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        void *found = dlsym(xl->lib, wanted[i].name);
        if (found == NULL) {
            snprintf(why, SCHED_WHY, "%s has no %s", UMBEL_LIBXENLIGHT, wanted[i].name);
            return -ENOSYS;
        }
        memcpy(wanted[i].to, &found, sizeof(found));
    }
    return 0;
}

static void leave(struct xl *xl)
{
    if (xl->ctx != NULL)
        xl->ctx_free(xl->ctx);
    if (xl->log != NULL)
        xl->log_destroy(xl->log);
    if (xl->lib != NULL)
        dlclose(xl->lib);
}

static int enter(struct xl *xl, const char *domain, char why[SCHED_WHY])
{
    const libxl_version_info *version;
    int rc = load(xl, why);

    if (rc != 0)
        return rc;
    xl->log = (xentoollog_logger *)xl->log_create(stderr, XTL_CRITICAL, 0);
    if (xl->log == NULL || xl->ctx_alloc(&xl->ctx, LIBXL_VERSION, 0, xl->log) != 0) {
        snprintf(why, SCHED_WHY, "this is not the first domain (dom0) of a Xen that runs");
        return -ENODEV;
    }
    version = xl->version_info(xl->ctx);
    if (version == NULL || version->xen_version_extra == NULL) {
        snprintf(why, SCHED_WHY, "Xen does not answer; is this its first domain (dom0)?");
        return -ENODEV;
    }
    if (strstr(version->xen_version_extra, XEN_HAS) == NULL) {
        snprintf(
            why, SCHED_WHY, "this Xen (%d.%d%s) was not built with R_B_Credit (hv/sched/xen/build)",
            version->xen_version_major, version->xen_version_minor, version->xen_version_extra);
        return -ENOTSUP;
    }
    if (xl->to_domid(xl->ctx, domain, &xl->id) != 0) {
        snprintf(why, SCHED_WHY, "there is no domain '%s'", domain);
        return -ENOENT;
    }
    return 0;
}

static int get(struct xl *xl, struct sched_ctl_params *params, char why[SCHED_WHY])
{
    libxl_domain_sched_params p;

    xl->params_init(&p);
    if (xl->params_get(xl->ctx, xl->id, &p) != 0) {
        snprintf(why, SCHED_WHY, "there is no domain %u, or Xen does not tell how it is scheduled",
                 xl->id);
        return -ENOENT;
    }
    if (p.sched != LIBXL_SCHEDULER_CREDIT) { /* whose number R_B_Credit has */
        const char *name = xl->scheduler_name(p.sched);
        snprintf(why, SCHED_WHY, "the domain's pool has another scheduler: %s",
                 name != NULL ? name : "an unknown one");
        return -ENOTSUP;
    }
    params->real_time = p.weight == SCHED_WEIGHT_RT;
    params->weight = params->real_time ? 0 : (uint32_t)p.weight;
    params->cap = (uint32_t)p.cap;
    return 0;
}

/* weight 0, cap -1: as it is. */
static int put(struct xl *xl, uint32_t weight, int64_t cap, char why[SCHED_WHY])
{
    libxl_domain_sched_params p;

    xl->params_init(&p);
    p.sched = LIBXL_SCHEDULER_CREDIT;
    if (weight != 0)
        p.weight = (int)weight;
    if (cap >= 0)
        p.cap = (int)cap;
    if (xl->params_set(xl->ctx, xl->id, &p) == 0)
        return 0;
    snprintf(why, SCHED_WHY,
             "Xen refuses it (a cap is at most 100 for each of the domain's vCPUs)");
    return -EIO;
}

static int change_all(struct xl *xl, const struct sched_ctl_change *change, bool real_time,
                      char why[SCHED_WHY])
{
    uint32_t weights[2];
    unsigned n = sched_ctl_weights(change, real_time, weights);
    int rc = change->cap >= 0 ? put(xl, 0, change->cap, why) : 0;

    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = put(xl, weights[i], -1, why);
    return rc;
}

int sched_ctl_set(const char *domain, const struct sched_ctl_change *change,
                  struct sched_ctl_params *params, char why[SCHED_WHY])
{
    struct xl xl = {0};
    int rc = enter(&xl, domain, why);

    if (rc == 0)
        rc = get(&xl, params, why);
    if (rc == 0)
        rc = change_all(&xl, change, params->real_time, why);
    if (rc == 0)
        rc = get(&xl, params, why);
    leave(&xl);
    return rc;
}

#else

int sched_ctl_set(const char *domain, const struct sched_ctl_change *change,
                  struct sched_ctl_params *params, char why[SCHED_WHY])
{
    (void)domain, (void)change, (void)params;
    snprintf(why, SCHED_WHY,
             "this umbel was built without libxenlight (Debian: libxen-dev, then build it anew)");
    return -ENOSYS;
}

#endif

int sched_ctl_get(const char *domain, struct sched_ctl_params *params, char why[SCHED_WHY])
{
    const struct sched_ctl_change nothing = {SCHED_MARK_AS_IT_IS, 0, -1};

    return sched_ctl_set(domain, &nothing, params, why);
}
