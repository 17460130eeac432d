/* log - events, not prose.
 *
 * An event has a name that never changes ("job.done") and fields that may grow, written as
 * key=value.  One line an event, on stderr, as text or as JSON lines.  Values with spaces are put
 * in double quotes by the caller's format ("reason=\"%s\"").  No secrets, no prompts, no outputs.
 * Safe from any thread. */

#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_NOTHING };

/* who: the program's name and place, "worker-2"; kept, so it must outlive the process's logging. */
void log_init(const char *who, enum log_level level, bool json);

bool log_wants(enum log_level level);
void log_event(enum log_level level, const char *event, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(...) (log_wants(LOG_DEBUG) ? log_event(LOG_DEBUG, __VA_ARGS__) : (void)0)
#define log_info(...) log_event(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_event(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)

#endif
