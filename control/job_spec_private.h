/* What job_spec.c (lines, keys, the whole), job_spec_values.c (what stands behind `=`) and
 * job_spec_path.c (files' names) share. */
#ifndef UMBEL_CONTROL_JOB_SPEC_PRIVATE_H
#define UMBEL_CONTROL_JOB_SPEC_PRIVATE_H

#include "control/job_spec.h"

struct job_spec_parse {
    struct job_spec *spec;
    char *why;        /* JOB_SPEC_WHY bytes */
    unsigned line;    /* that is being read; 0: none, it is about the whole */
    const char *key;  /* of that line */
    const char **env; /* grow as they come */
    struct job_range *after;
    unsigned ranges; /* of `after`, as they were written */
    bool high, normal;
};

/* Puts "line N: key: ..." into why; -EINVAL. */
int job_spec_refuse(struct job_spec_parse *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* job_spec_path.c: whether the numbers in a file's name are known, and those of all files together.
 */
int job_spec_check_file(struct job_spec_parse *p, const char *path);
int job_spec_check_files(struct job_spec_parse *p);

/* Bytes of a user's word that an error shows. */
#define JOB_SPEC_SHOWN 40
/* The word, shortened, what cannot be printed as '?', in buf. */
const char *job_spec_show(const char *word, char buf[JOB_SPEC_SHOWN]);

/* Value of the key that p->key names; it is not empty, has no control character but tabs, and lives
 * as long as the spec. */
typedef int job_spec_take(struct job_spec_parse *p, char *value);

job_spec_take job_spec_take_name, job_spec_take_command, job_spec_take_workdir, job_spec_take_cpus,
    job_spec_take_memory, job_spec_take_time, job_spec_take_reliability, job_spec_take_copies,
    job_spec_take_after, job_spec_take_retries, job_spec_take_env, job_spec_take_input,
    job_spec_take_output, job_spec_take_error, job_spec_take_node, job_spec_take_image,
    job_spec_take_array, job_spec_take_priority;

#endif
