#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 4096 }; /* at most PIPE_BUF, so that lines of several processes do not mix */

static struct {
    const char *who;
    enum log_level level;
    bool json;
} logger = { .who = "moothall", .level = LOG_INFO };

static const char *const level_names[] = { "debug", "info", "warn", "error" };

void log_init(const char *who, enum log_level level, bool json)
{
    logger.who = who;
    logger.level = level;
    logger.json = json;
}

bool log_wants(enum log_level level)
{
    return level >= logger.level;
}

/* Appends text as a JSON string's inside; control characters and bytes that are not UTF-8 would
 * break a reader, so they become '?'. */
static size_t put_json(char *line, size_t at, size_t size, const char *text)
{
    for (; *text && at + 8 < size; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '"' || c == '\\') {
            line[at++] = '\\';
            line[at++] = (char)c;
        } else {
            line[at++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
        }
    }
    return at;
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    char line[LINE_MAX_BYTES], fields[LINE_MAX_BYTES / 2];
    struct timespec now;
    struct tm utc;
    size_t at;
    va_list args;

    if (!log_wants(level) || level >= LOG_NOTHING)
        return;
    va_start(args, format);
    vsnprintf(fields, sizeof fields, format, args);
    va_end(args);
    for (char *c = fields; *c; c++)
        if ((unsigned char)*c < 0x20)
            *c = ' ';

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    at = (size_t)snprintf(line, sizeof line, logger.json ? "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ\",\"level\":\"%s\",\"who\":\"%s\",\"event\":\"%s\",\"fields\":\""
                                                         : "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s %s %s ",
                          utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min,
                          utc.tm_sec, now.tv_nsec / 1000000, level_names[level], logger.who, event);
    if (at > sizeof line / 2)
        at = sizeof line / 2;
    if (logger.json) {
        at = put_json(line, at, sizeof line - 4, fields);
        memcpy(line + at, "\"}\n", 3);
        at += 3;
    } else {
        size_t n = strnlen(fields, sizeof line - at - 1);

        memcpy(line + at, fields, n);
        at += n;
        line[at++] = '\n';
    }
    if (write(STDERR_FILENO, line, at) < 0)
        return; /* nowhere left to say it */
}
