/*
 * Log lines of a daemon: "2026-01-31T12:00:00.123Z node-1 warning: text", one write(2) each to
 * standard error, so that lines of several threads never mix. Rooms below the daemons do not log:
 * they return errors with a detail.
 */
#ifndef UMBEL_WIRE_LOG_H
#define UMBEL_WIRE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Once, in main, before threads start. name is copied. */
void log_start(const char *name, enum log_level level);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
