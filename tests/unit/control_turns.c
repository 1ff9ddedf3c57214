/* No turn of the centre's loop does more for jobs than its share, however many there are: what is
 * looked at, ended and woken, part by part. In this process, over a state of its own; nothing goes
 * into a log. */
#include "control/demand.h"
#include "tests/state_world.h"

#include <criterion/criterion.h>

#define ALICE 1000
#define BOB   1001

static struct world w;
static struct centre *c;
static struct demand demand;

static void set_up(void)
{
    world_start(&w);
    c = calloc(1, sizeof(*c));
    cr_assert_not_null(c);
    memset(&demand, 0, sizeof(demand));
}

static void tear_down(void)
{
    c->demand = NULL;
    ops_end_all(c);
    jobs_free_all(c);
    node_free_all(c);
    events_free(&c->events);
    events_free(&c->errors);
    free(c);
    world_end(&w);
}

TestSuite(control_turns, .init = set_up, .fini = tear_down);

static void row_new(uint32_t uid, uint32_t count, uint32_t milli, uint32_t copies_n, bool after)
{
    Star__LogJobSubmit body = STAR__LOG_JOB_SUBMIT__INIT;
    Star__Job job = STAR__JOB__INIT;
    Star__Cred cred = STAR__CRED__INIT;
    Star__JobCopy copy = STAR__JOB_COPY__INIT, *copies[] = {&copy, &copy, &copy};

    cred.uid = cred.gid = uid;
    job.cred = &cred;
    job.copies = copies;
    job.n_copies = copies_n;
    job.milli_cpus = milli;
    job.memory = 1 << 20;
    job.after = after;
    body.job = &job;
    body.spec = world_bytes(after ? "command = true\nafter = 1\n" : "command = true\n");
    body.count = count;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_JOB_SUBMIT, &body.base), 0);
}

/* So many jobs, each of a spec of its own. */
static void singles(uint32_t uid, uint32_t count, uint32_t milli)
{
    for (uint32_t k = 0; k < count; k++)
        row_new(uid, 1, milli, 1, false);
}

static void set_to(const char *name, const char *value)
{
    Star__LogSetting body = STAR__LOG_SETTING__INIT;

    body.name = (char *)(uintptr_t)name;
    body.value = (char *)(uintptr_t)value;
    cr_assert_eq(world_apply(&w, STAR__LOG_TYPE__LOG_SETTING, &body.base), 0);
}

static void node_new(uint32_t id, uint32_t milli)
{
    struct node *n = calloc(1, sizeof(*n));

    cr_assert_not_null(n);
    n->id = id;
    snprintf(n->name, sizeof(n->name), "node-%u", id);
    snprintf(n->state, sizeof(n->state), "ready");
    n->jobs_known = true;
    n->power = (struct node_power){.jobs = true, .milli_cpus = milli, .memory = 1ull << 30};
    HASH_ADD(hh, c->nodes, id, sizeof(n->id), n);
    jobs_node_changed(c, n);
}

/* The centre begins, with a node of that many processors, and may start others like it. */
static void begin(uint32_t milli)
{
    c->state = w.s;
    c->serving = c->leading = true;
    cr_assert_eq(jobs_load(c), 0);
    demand.offered = true;
    demand.offer = (struct hv_offer){.milli_cpus = milli, .memory = 1ull << 30};
    c->demand = &demand;
    node_new(1, milli);
    cr_assert_not(job_queue_next(c->jobs->queue, 0, &(struct job_queue_placed){0}),
                  "a node that is not connected takes none");
}

static unsigned over(void)
{
    unsigned n = 0;

    for (struct job *job = c->jobs->all; job; job = job->hh.next)
        n += job->over;
    return n;
}

/* ---- what no node will take */

Test(control_turns, what_is_hopeless_is_ended_in_parts)
{
    unsigned turns = 0, before = 0;

    singles(ALICE, 700, 9000);
    singles(ALICE, 10, 1000);
    row_new(ALICE, 1, 1000, 2, false); /* a second node would be needed */
    singles(ALICE, 300, 9000);
    begin(4000);
    snprintf(demand.why, sizeof(demand.why), "node-d2 could not be started: no");
    demand.paused_ms = 1000;
    demand_end_hopeless(c);
    for (bool more = true; more; turns++, before = over()) {
        more = demand_turn(c);
        cr_assert_leq(over() - before, JOBS_WORK_MAX);
    }
    cr_expect_eq(over(), 1001);
    cr_expect_geq(turns, 1011 / JOBS_WORK_MAX);
    for (uint64_t id = 701; id <= 710; id++)
        cr_expect_not(jobs_known(c, id)->over, "job %lu has room", (unsigned long)id);
    cr_expect_not_null(strstr(jobs_known(c, 711)->row->why, "node-d2 could not be started: no"));
    cr_expect_not(demand_turn(c));
}

Test(control_turns, one_that_is_on_its_way_is_waited_for)
{
    row_new(ALICE, 1, 1000, 2, false);
    row_new(ALICE, 1, 1000, 3, false);
    begin(4000);
    node_new(2, 0);
    snprintf(node_find(c, 2)->state, sizeof(node_find(c, 2)->state), "starting");
    demand.paused_ms = 1000;
    demand_end_hopeless(c);
    cr_expect_not(demand_turn(c));
    cr_expect_not(jobs_known(c, 1)->over, "node 2 may still come");
    cr_expect(jobs_known(c, 2)->over);
}

Test(control_turns, a_job_that_goes_is_passed_over)
{
    singles(ALICE, 300, 9000);
    begin(4000);
    demand.paused_ms = 1000;
    demand_end_hopeless(c);
    cr_assert(demand_turn(c));
    struct job *job = demand.at, *next = job->hh.next;
    demand_skip(c, next);
    cr_expect_eq(demand.at, job);
    demand_skip(c, job);
    cr_expect_eq(demand.at, next);
    cr_expect_not(demand_turn(c));
    cr_expect_eq(over(), 299);
}

Test(control_turns, nothing_is_hopeless_before_all_have_said_what_they_have)
{
    singles(ALICE, 1, 4000);
    begin(2000);
    node_find(c, 1)->jobs_known = false;
    demand_end_hopeless(c);
    cr_expect_not(demand_turn(c));
    cr_expect_eq(over(), 0);
    c->serving = false;
    c->now = LEASE_MS + 1;
    cr_expect_not(demand_turn(c));
    cr_expect_eq(over(), 0);
    c->serving = true;
    cr_expect_not(demand_turn(c));
    cr_expect_eq(over(), 1);
}

Test(control_turns, what_a_node_may_be_started_for_is_no_problem)
{
    char why[JOB_PLACE_WHY];
    uint64_t job;

    row_new(ALICE, 1, 1000, 2, false);
    begin(4000);
    set_to("nodes_max", "2");
    cr_expect_eq(demand_hopeless(c, &job, why), 0, "%s", why);
    set_to("nodes_max", "1");
    cr_expect_eq(demand_hopeless(c, &job, why), 2);
    cr_expect_eq(job, 1);
    set_to("nodes_max", "2");
    demand.paused_ms = 1000;
    cr_expect_eq(demand_hopeless(c, &job, why), 2, "none is tried for a while");
    c->now = 1000;
    cr_expect_eq(demand_hopeless(c, &job, why), 0);
    c->demand = NULL;
    cr_expect_eq(demand_hopeless(c, &job, why), 2, "this centre starts none");
}

/* ---- what comes first */

static struct job_ask *ask(uint32_t who, const char *spec)
{
    char why[JOB_SPEC_WHY];
    struct op *op = op_new(c, NULL, NULL, NULL, NULL);
    struct job_ask *a = op ? jobs_ask_new(op, who, spec, strlen(spec)) : NULL;

    cr_assert_not_null(a);
    cr_assert_eq(job_spec_parse(spec, strlen(spec), &a->spec, why), 0, "%s", why);
    a->parsed = true;
    return a;
}

static uint64_t looked_at(const struct job_ask *a)
{
    uint64_t n = 0;

    for (size_t k = 0; k < a->spec.after_n; k++) {
        const struct job_range *r = &a->spec.after[k];
        if (a->next > r->first)
            n += (a->next <= r->last ? a->next : r->last + 1) - r->first;
    }
    return n;
}

static int look(struct job_ask *a, char why[JOB_SPEC_WHY])
{
    unsigned left = JOBS_WORK_MAX;
    uint64_t before = looked_at(a);
    int rc = jobs_ask_look(c, a, &left, why);

    cr_assert_leq(looked_at(a) - before, 2 * JOBS_WORK_MAX, "%lu in one turn",
                  (unsigned long)(looked_at(a) - before));
    return rc;
}

Test(control_turns, jobs_that_come_first_are_looked_at_in_parts)
{
    char why[JOB_SPEC_WHY];
    unsigned turns = 1;
    int rc;

    singles(ALICE, 2000, 1000);
    begin(4000);
    struct job_ask *a = ask(ALICE, "command = true\nafter = 3-1000 1500-2000\n");
    for (; (rc = look(a, why)) == 0; turns++)
        cr_assert(job_waits_has(c->jobs->waits, 3), "what was looked at must stay");
    cr_expect_eq(rc, 1);
    cr_expect_geq(turns, 1500 / (2 * JOBS_WORK_MAX));
    cr_expect(job_waits_has(c->jobs->waits, 1000));
    cr_expect_not(job_waits_has(c->jobs->waits, 1001));
    cr_expect(job_waits_has(c->jobs->waits, 2000));
    op_end(a->op);
    cr_expect_null(c->jobs->asks);
    cr_expect_null(c->jobs->waits);
}

Test(control_turns, who_gives_up_in_between_leaves_nothing)
{
    char why[JOB_SPEC_WHY];

    singles(ALICE, 2000, 1000);
    begin(4000);
    struct job_ask *a = ask(0, "command = true\nafter = 1-10 100-2000\n");
    cr_assert_eq(look(a, why), 0);
    cr_expect_not_null(c->jobs->waits);
    op_end(a->op);
    cr_expect_null(c->jobs->waits);
}

Test(control_turns, others_and_what_is_gone_among_many)
{
    char why[JOB_SPEC_WHY];
    int rc;

    singles(ALICE, 900, 1000);
    singles(BOB, 1, 1000);
    singles(ALICE, 100, 1000);
    begin(4000);
    struct job_ask *a = ask(ALICE, "command = true\nafter = 1-1001\n");
    while ((rc = look(a, why)) == 0)
        ;
    cr_expect_eq(rc, -EACCES);
    cr_expect_str_eq(why, "line 2: after: job 901 is another user's: name your own");
    a = ask(0, "command = true\nafter = 1-1001\n");
    while ((rc = look(a, why)) == 0)
        ;
    cr_expect_eq(rc, 1, "root names whom it wants");
    a = ask(ALICE, "command = true\nafter = 1 902-1002\n");
    while ((rc = look(a, why)) == 0)
        ;
    cr_expect_eq(rc, -EINVAL);
    cr_expect_str_eq(why, "line 2: after: job 1002 is not known any more: leave it out");
}

/* ---- who waits for one job */

Test(control_turns, those_that_waited_look_on_in_parts)
{
    unsigned turns = 0, waits;
    bool more = true;

    singles(ALICE, 1, 1000);
    for (unsigned k = 0; k < 1000; k++)
        row_new(ALICE, 1, 1000, 1, true);
    begin(4000);
    while (jobs_work(c))
        ;
    struct job *first = jobs_known(c, 1);
    cr_assert_eq(job_queue_waiting(c->jobs->queue), 1, "the others wait for it");
    jobs_over(c, first, STAR__JOB_STATE__JOB_DONE);
    jobs_wake_watchers(c, 1);
    for (waits = 0; more; turns++, waits = (unsigned)job_queue_waiting(c->jobs->queue)) {
        more = jobs_work(c);
        cr_assert_leq(job_queue_waiting(c->jobs->queue) - waits, JOBS_WORK_MAX);
    }
    cr_expect_eq(job_queue_waiting(c->jobs->queue), 1000);
    cr_expect_geq(turns, 2 * 1000 / JOBS_WORK_MAX);
    cr_expect_null(c->jobs->watches);
}
