/* Settings: the table of those that there are, and the values that were set. */
#include "control/state_private.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct setting {
    const char *name;
    uint64_t value, least, most;
    bool bytes; /* K, M, G and T may follow */
    const char *help;
};

static const struct setting settings[] = {
    {"high_water", 90, 1, 100, false,
     "percent of a node's capacity in use from which it flushes and evicts"},
    {"low_water", 70, 0, 100, false, "percent of a node's capacity in use down to which it evicts"},
    {"flush_age", 30, 1, 31536000, false, "seconds after which staged data is flushed to the pool"},
    {"pool_quota", 0, 0, INT64_MAX, true,
     "bytes of file data that this cloud may keep in the pool; beyond, data stays staged until the "
     "nodes are full; 0: no bound"},
    {"gc_live_ratio", 50, 0, 95, false,
     "percent: packs of which less lives are rewritten, their live records into new packs; 0: "
     "never"},
    {"gc_min_age", 3600, 0, 31536000, false,
     "seconds that a pack is left alone before it is rewritten; `umbel gc` does not wait"},
    {"meta_interval", 3600, 0, 31536000, false,
     "seconds after which a copy of the centre's state is put into the pool if something has "
     "changed (`umbel rebuild` needs it); 0: only after a flush of everything"},
    {"direct_size", 256ull << 20, 1u << 20, INT64_MAX, true,
     "bytes from which on a file that is written from its begin to its end goes straight to the "
     "pool"},
    {"hot_rate", 64ull << 20, 0, INT64_MAX, true,
     "bytes per second that are read of one file at one node from which on another node caches it "
     "too; 0: never"},
    {"hot_copies", 3, 1, 16, false, "nodes that may cache a hot file"},
    {"hot_cool", 60, 1, 31536000, false,
     "seconds after which the extra copy of a file that is hot no more is evicted"},
    {"scrub_rate", 256ull << 20, 1u << 20, INT64_MAX, true,
     "bytes per second that a scrub reads at each node, and in the pool"},
    {"job_queue_max", 100000, 1, 1000000, false, "jobs that may be pending; beyond, none is taken"},
    {"job_keep", 7 * 86400, 0, 31536000, false,
     "seconds that a job which has ended is kept, with its output"},
    {"job_keep_max", 100000, 0, 1000000, false,
     "jobs that have ended of which the newest are kept"},
    {"job_output_max", 1ull << 30, 0, INT64_MAX, true,
     "bytes of stdout, and of stderr, that are kept of each job"},
    {"job_pids_max", 4096, 1, 1000000, false, "processes and threads that one job may have"},
    {"nodes_max", 4, 0, STATE_NODES_MAX, false,
     "nodes that the cloud may have: so many are there at most when more are started as jobs wait "
     "for them"},
    {"node_wait", 10, 0, 31536000, false,
     "seconds that a job waits for room before a node is started for it; one that no node could "
     "ever take waits for none"},
    {"node_start_time", 60, 2, 3600, false,
     "seconds in which a node that is started must be ready; else it is ended and tried again"},
    {"node_idle_time", 300, 1, 31536000, false,
     "seconds without a job after which a node that was started on demand is emptied and released"},
    {"node_full_time", 300, 1, 31536000, false,
     "seconds above high_water after which a node that was started on demand is emptied and "
     "released"},
    {"event_limit", 1000, 10, 1000000, false, "lines kept in .umbel/events and .umbel/errors"},
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* There were such once: states may hold values of them. */
static const char *const retired[] = {"metadata_deadline"};

static const struct setting *find(const char *name)
{
    for (size_t n = 0; n < SETTINGS; n++)
        if (strcmp(settings[n].name, name) == 0)
            return &settings[n];
    return NULL;
}

bool st_setting_known(const char *name, size_t len)
{
    for (size_t n = 0; n < SETTINGS; n++)
        if (strlen(settings[n].name) == len && memcmp(settings[n].name, name, len) == 0)
            return true;
    for (size_t n = 0; n < sizeof(retired) / sizeof(retired[0]); n++)
        if (strlen(retired[n]) == len && memcmp(retired[n], name, len) == 0)
            return true;
    return false;
}

static struct key key_of(const struct setting *t)
{
    struct key k;

    k.len = strlen(t->name);
    memcpy(k.bytes, t->name, k.len);
    return k;
}

static int value_of(struct state *s, const struct setting *t, uint64_t *value)
{
    struct key k = key_of(t);
    int rc = st_get_row(s, DB_SETTINGS, &k, value, sizeof(*value));

    if (rc == -ENOENT) {
        *value = t->value;
        rc = 0;
    }
    return rc;
}

/* --- LOG_SETTING --- */

/* strtoull's generosity (signs, spaces, octal) is not wanted. */
static int parse(const struct setting *t, const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    uint64_t v = 0;
    const char *p = text;

    if (!isdigit((unsigned char)*p))
        return -EINVAL;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return -EINVAL;
    const char *unit = *p && t->bytes ? strchr(units, toupper((unsigned char)*p)) : NULL;
    if (unit) {
        if (__builtin_mul_overflow(v, UINT64_C(1) << 10 * (unit - units + 1), &v))
            return -EINVAL;
        p++;
    }
    *out = v;
    return *p || v < t->least || v > t->most ? -EINVAL : 0;
}

static int check_waters(struct apply *a, const struct setting *t, uint64_t value)
{
    uint64_t low, high;
    int rc = value_of(a->s, find("low_water"), &low);

    if (rc == 0)
        rc = value_of(a->s, find("high_water"), &high);
    if (rc < 0)
        return rc;
    if (strcmp(t->name, "low_water") == 0)
        low = value;
    if (strcmp(t->name, "high_water") == 0)
        high = value;
    if (low > high)
        return st_refuse(a, -EINVAL,
                         "low_water %" PRIu64 " would be above high_water %" PRIu64
                         "; set the other one first",
                         low, high);
    return 0;
}

int st_cmd_setting(struct apply *a, const ProtobufCMessage *body)
{
    const Star__LogSetting *q = (const Star__LogSetting *)body;
    const struct setting *t = find(q->name);
    uint64_t value;

    if (!t)
        return st_refuse(a, -EINVAL, "there is no setting '%.64s'", q->name);
    if (parse(t, q->value, &value) < 0)
        return st_refuse(
            a, -EINVAL, "'%.64s' is no value for %s: a number from %" PRIu64 " to %" PRIu64 "%s",
            q->value, t->name, t->least, t->most, t->bytes ? ", K, M, G or T may follow" : "");
    int rc = check_waters(a, t, value);
    if (rc < 0)
        return rc;
    struct key k = key_of(t);
    return st_put(a->s, DB_SETTINGS, &k, &value, sizeof(value));
}

/* --- readers --- */

int state_setting(struct state *s, const char *name, char *value, size_t size)
{
    const struct setting *t = find(name);
    uint64_t v;

    if (!t)
        return -ENOENT;
    int rc = value_of(s, t, &v);
    if (rc < 0)
        return rc;
    return (size_t)snprintf(value, size, "%" PRIu64, v) >= size ? -ERANGE : 0;
}

int state_settings(struct state *s, state_setting_fn fn, void *arg)
{
    char value[24];

    for (size_t n = 0; n < SETTINGS; n++) {
        int rc = state_setting(s, settings[n].name, value, sizeof(value));
        if (rc < 0)
            return rc;
        if (!fn(arg, settings[n].name, value, settings[n].help))
            break;
    }
    return 0;
}
