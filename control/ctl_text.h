/*
 * The texts of the control files, made when they are read. What does not fit into CTL_TEXT_MAX
 * bytes is cut off; files that can be longer come in pages.
 */
#ifndef UMBEL_CONTROL_CTL_TEXT_H
#define UMBEL_CONTROL_CTL_TEXT_H

#include "control/centre.h"

#define CTL_TEXT_MAX FRAME_PAYLOAD_MAX

struct text {
    char *at;
    size_t len, size;
    bool cut;
    uint64_t after, last; /* of a list in pages: this one begins behind after, and got to last */
    bool more;
};

/* Who has the text frees `at`. */
void text_put(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* May lines of object id be added to the page? */
bool text_page_takes(struct text *t, uint64_t id);

void text_version(struct centre *c, struct text *t);
void text_status(struct centre *c, struct text *t);
void text_health(struct centre *c, struct text *t);
void text_metrics(struct centre *c, struct text *t);
void text_events(struct centre *c, struct text *t);
void text_errors(struct centre *c, struct text *t);
void text_cache(struct centre *c, struct text *t);
void text_packs(struct centre *c, struct text *t);
void text_gc(struct centre *c, struct text *t);
void text_scrub(struct centre *c, struct text *t);
/* jobs_text.c: metrics; what is wrong with jobs, and how many lines of `problem` that is. */
void text_jobs(struct centre *c, struct text *t);
unsigned text_jobs_health(struct centre *c, struct text *t);
void text_node(struct node *n, struct text *t);

#endif
