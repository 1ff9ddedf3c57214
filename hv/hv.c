/* The thread in which drivers work. */
#include "hv/hv.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum what { OFFER, START, STATE, STOP, DESTROY, FIND };

struct call {
    struct call *next;
    enum what what;
    struct hv_spec spec; /* of all but START only the name counts */
    int now;
    hv_done_fn done;
    void *arg;
    struct hv_answer answer;
    char (*names)[HV_NAME];
};

struct list {
    struct call *first, **end;
};

struct hv {
    const struct hv_driver *driver;
    void *self;
    atomic_bool *cancel;
    uv_async_t async;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
    struct list asked, answered;
    unsigned calls; /* not called back yet */
};

static void list_make(struct list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void list_add(struct list *l, struct call *call)
{
    call->next = NULL;
    *l->end = call;
    l->end = &call->next;
}

static struct call *list_take(struct list *l)
{
    struct call *call = l->first;

    if (call) {
        l->first = call->next;
        if (!l->first)
            l->end = &l->first;
    }
    return call;
}

static void call_free(struct call *call)
{
    free(call->names);
    free(call);
}

static void list_free(struct list *l)
{
    struct call *call;

    while ((call = list_take(l)))
        call_free(call);
}

/* ---- in the thread */

static int find(struct hv *hv, struct call *call)
{
    call->names = calloc(HV_FOUND_MAX, sizeof(*call->names));
    if (!call->names)
        return -ENOMEM;
    call->answer.names = (const char(*)[HV_NAME])call->names;
    return hv->driver->find(hv->self, call->names, HV_FOUND_MAX, &call->answer.names_n,
                            call->answer.detail);
}

static int carry_out(struct hv *hv, struct call *call)
{
    const struct hv_driver *d = hv->driver;
    struct hv_answer *a = &call->answer;

    switch (call->what) {
    case OFFER:
        return d->offer(hv->self, &a->offer, a->detail);
    case START:
        return d->start(hv->self, &call->spec, a->detail);
    case STATE:
        return d->state(hv->self, call->spec.name, &a->state, a->detail);
    case STOP:
        return d->stop(hv->self, call->spec.name, call->now, a->detail);
    case DESTROY:
        return d->destroy(hv->self, call->spec.name, a->detail);
    case FIND:
        return find(hv, call);
    }
    return -EINVAL;
}

static void *work(void *arg)
{
    struct hv *hv = arg;

    pthread_mutex_lock(&hv->lock);
    while (!hv->stop) {
        struct call *call = list_take(&hv->asked);
        if (!call) {
            pthread_cond_wait(&hv->wake, &hv->lock);
            continue;
        }
        pthread_mutex_unlock(&hv->lock);
        call->answer.status = carry_out(hv, call);
        if (call->answer.status < 0 && !call->answer.detail[0])
            snprintf(call->answer.detail, HV_DETAIL, "%s", strerror(-call->answer.status));
        pthread_mutex_lock(&hv->lock);
        list_add(&hv->answered, call);
        uv_async_send(&hv->async);
    }
    pthread_mutex_unlock(&hv->lock);
    return NULL;
}

/* Signals are the loop's. */
static int start_thread(struct hv *hv)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(&hv->thread, NULL, work, hv);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* ---- in the loop */

static void on_answers(uv_async_t *async)
{
    struct hv *hv = async->data;
    struct call *call;

    for (;;) {
        pthread_mutex_lock(&hv->lock);
        call = list_take(&hv->answered);
        pthread_mutex_unlock(&hv->lock);
        if (!call)
            return;
        hv->calls--;
        call->done(call->arg, &call->answer);
        call_free(call);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct hv *hv = handle->data;

    hv->driver->close(hv->self);
    pthread_cond_destroy(&hv->wake);
    pthread_mutex_destroy(&hv->lock);
    free(hv);
}

int hv_open(uv_loop_t *loop, const struct hv_driver *driver, void *self, atomic_bool *cancel,
            struct hv **out)
{
    struct hv *hv = calloc(1, sizeof(*hv));

    if (!hv) {
        driver->close(self);
        return -ENOMEM;
    }
    hv->driver = driver;
    hv->self = self;
    hv->cancel = cancel;
    list_make(&hv->asked);
    list_make(&hv->answered);
    pthread_mutex_init(&hv->lock, NULL);
    pthread_cond_init(&hv->wake, NULL);
    int rc = uv_async_init(loop, &hv->async, on_answers);
    if (rc < 0) {
        driver->close(self);
        free(hv);
        return rc;
    }
    hv->async.data = hv;
    rc = start_thread(hv);
    if (rc < 0)
        uv_close((uv_handle_t *)&hv->async, on_closed);
    else
        *out = hv;
    return rc;
}

const char *hv_driver_name(const struct hv *hv)
{
    return hv->driver->name;
}

static int ask(struct hv *hv, enum what what, const struct hv_spec *spec, int now, hv_done_fn done,
               void *arg)
{
    if (hv->calls >= HV_CALLS_MAX)
        return -EBUSY;
    struct call *call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    call->what = what;
    if (spec)
        call->spec = *spec;
    call->now = now;
    call->done = done;
    call->arg = arg;
    hv->calls++;
    pthread_mutex_lock(&hv->lock);
    list_add(&hv->asked, call);
    pthread_cond_signal(&hv->wake);
    pthread_mutex_unlock(&hv->lock);
    return 0;
}

static struct hv_spec called(const char *name)
{
    struct hv_spec spec = {.capacity = 0};

    snprintf(spec.name, sizeof(spec.name), "%s", name);
    return spec;
}

int hv_offer(struct hv *hv, hv_done_fn done, void *arg)
{
    return ask(hv, OFFER, NULL, 0, done, arg);
}

int hv_start(struct hv *hv, const struct hv_spec *spec, hv_done_fn done, void *arg)
{
    return ask(hv, START, spec, 0, done, arg);
}

int hv_state(struct hv *hv, const char *name, hv_done_fn done, void *arg)
{
    struct hv_spec spec = called(name);

    return ask(hv, STATE, &spec, 0, done, arg);
}

int hv_stop(struct hv *hv, const char *name, int now, hv_done_fn done, void *arg)
{
    struct hv_spec spec = called(name);

    return ask(hv, STOP, &spec, now, done, arg);
}

int hv_destroy(struct hv *hv, const char *name, hv_done_fn done, void *arg)
{
    struct hv_spec spec = called(name);

    return ask(hv, DESTROY, &spec, 0, done, arg);
}

int hv_find(struct hv *hv, hv_done_fn done, void *arg)
{
    return ask(hv, FIND, NULL, 0, done, arg);
}

void hv_close(struct hv *hv)
{
    if (!hv)
        return;
    atomic_store(hv->cancel, true);
    pthread_mutex_lock(&hv->lock);
    hv->stop = true;
    pthread_cond_signal(&hv->wake);
    pthread_mutex_unlock(&hv->lock);
    pthread_join(hv->thread, NULL);
    list_free(&hv->asked);
    list_free(&hv->answered);
    uv_close((uv_handle_t *)&hv->async, on_closed);
}
