/* What the files of the driver `local` share. */
#ifndef UMBEL_HV_LOCAL_PRIVATE_H
#define UMBEL_HV_LOCAL_PRIVATE_H

#include <limits.h>
#include <sys/types.h>

#include "hv/hv_local.h"

struct local {
    struct hv_local_options o;
    atomic_bool cancel;
};

/* FOLDER/NAMESUFFIX; -ENAMETOOLONG. */
int hv_local_path(char out[PATH_MAX], const char *folder, const char *name, const char *suffix);
/* Who runs under that name; 0: nobody; -EINVAL: it is no node's name. */
pid_t hv_local_pid(const struct local *l, const char *name);
int hv_local_start(void *self, const struct hv_spec *spec, char detail[HV_DETAIL]);

#endif
