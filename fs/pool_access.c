#include "fs/pool_access.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/wire/clock.h"

struct pool_access {
    char *cloud;
    pthread_mutex_t lock;  /* a leaf */
    pthread_mutex_t opens; /* held while it is opened or looked for */
    char *url;
    struct pool *pool;
    bool here;
    int error;
    char why[POOL_DETAIL];
    int64_t looked_ms;
};

int pool_access_new(const char *cloud, struct pool_access **out)
{
    struct pool_access *a = calloc(1, sizeof(*a));

    if (!a)
        return -ENOMEM;
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->opens, NULL);
    a->cloud = cloud && *cloud ? strdup(cloud) : NULL;
    if (cloud && *cloud && !a->cloud) {
        pool_access_free(a);
        return -ENOMEM;
    }
    *out = a;
    return 0;
}

void pool_access_free(struct pool_access *a)
{
    if (!a)
        return;
    if (a->pool)
        pool_close(a->pool);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->opens);
    free(a->cloud);
    free(a->url);
    free(a);
}

void pool_access_url(struct pool_access *a, const char *url)
{
    pthread_mutex_lock(&a->lock);
    if (!a->url && url && *url)
        a->url = strdup(url);
    pthread_mutex_unlock(&a->lock);
}

/* 1: it must be opened or looked for. */
static int known(struct pool_access *a, struct pool **out, char *detail)
{
    int rc = 1;

    pthread_mutex_lock(&a->lock);
    if (a->here) {
        *out = a->pool;
        rc = 0;
    } else if (a->error && clock_boot_ms() - a->looked_ms < POOL_LOOK_MS) {
        snprintf(detail, POOL_DETAIL, "%s", a->why);
        rc = a->error;
    }
    pthread_mutex_unlock(&a->lock);
    return rc;
}

static int look(struct pool_access *a, char *detail)
{
    int rc = 0;

    detail[0] = '\0';
    if (!a->url) {
        snprintf(detail, POOL_DETAIL, "the centre has not said where the pool is");
        return -EIO;
    }
    if (!a->pool)
        rc = pool_open_later(a->url, a->cloud, &a->pool, detail);
    else
        rc = pool_look(a->pool, detail);
    return rc == 0 && detail[0] ? -EIO : rc;
}

int pool_access_get(struct pool_access *a, struct pool **out, char *detail)
{
    int rc = known(a, out, detail);

    if (rc <= 0)
        return rc;
    pthread_mutex_lock(&a->opens);
    rc = known(a, out, detail);
    if (rc > 0) {
        rc = look(a, detail);
        pthread_mutex_lock(&a->lock);
        a->here = rc == 0;
        a->error = rc;
        a->looked_ms = clock_boot_ms();
        snprintf(a->why, sizeof(a->why), "%s", detail);
        pthread_mutex_unlock(&a->lock);
        *out = a->pool;
    }
    pthread_mutex_unlock(&a->opens);
    return rc;
}
