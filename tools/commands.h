/* The subcommands of `umbel`. Each gets its own arguments (argv[0] is "umbel NAME") and returns the
 * exit status. */
#ifndef UMBEL_TOOLS_COMMANDS_H
#define UMBEL_TOOLS_COMMANDS_H

int cmd_up(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_mount(int argc, char **argv);
int cmd_control(int argc, char **argv);
int cmd_node(int argc, char **argv);
int cmd_supervise(int argc, char **argv);

int cmd_status(int argc, char **argv);
int cmd_health(int argc, char **argv);
int cmd_events(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_where(int argc, char **argv);
int cmd_set(int argc, char **argv);

int cmd_flush(int argc, char **argv);
int cmd_evict(int argc, char **argv);
int cmd_warm(int argc, char **argv);
int cmd_drain(int argc, char **argv);
int cmd_release(int argc, char **argv);
int cmd_forget(int argc, char **argv);
int cmd_gc(int argc, char **argv);
int cmd_scrub(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_rebuild(int argc, char **argv);
int cmd_token(int argc, char **argv);
int cmd_join(int argc, char **argv);
int cmd_revoke(int argc, char **argv);

int cmd_run(int argc, char **argv);
int cmd_job(int argc, char **argv);
int cmd_sched(int argc, char **argv);
int cmd_sched_set(int argc, char **argv); /* of cmd_sched */

int cmd_fsck(int argc, char **argv);
int cmd_bench(int argc, char **argv);

#endif
