/* What the centre asks about jobs, and is told. */
#include "nodecache/link_private.h"

static void answer(struct push *p, int rc, const char *detail)
{
    if (rc < 0)
        push_refuse(p, rc, detail);
    else
        push_answer(p, 0, NULL);
}

void push_job_start(struct push *p, const Star__JobStart *m)
{
    char detail[RUN_DETAIL] = "";

    answer(p, jobs_start(p->link->jobs, m, detail), detail);
}

void push_job_signal(struct push *p, const Star__JobSignal *m)
{
    char detail[RUN_DETAIL] = "";

    answer(p, jobs_signal(p->link->jobs, m, detail), detail);
}

int link_report_runs(void *ctx, const Star__JobReport *m, Star__JobReportReply **out)
{
    ProtobufCMessage *reply = NULL;
    int rc = link_call(ctx, STAR__MSG_TYPE__JOB_REPORT, &m->base, CLIENT_RESEND,
                       &star__job_report_reply__descriptor, &reply);

    *out = (Star__JobReportReply *)reply;
    return rc < 0 ? rc : 0;
}
