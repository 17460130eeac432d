#include "client/when.h"

#include <ctype.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/yaml_fields.h"

struct span_ms {
    int64_t ms;
};

/* Two digits in [low, high]; moves on. */
static bool take_two(const char **at, int low, int high, int *value)
{
    const char *p = *at;

    if (!isdigit((unsigned char)p[0]) || !isdigit((unsigned char)p[1]))
        return false;
    *value = (p[0] - '0') * 10 + p[1] - '0';
    *at += 2;
    return *value >= low && *value <= high;
}

static bool take(const char **at, char c)
{
    if (toupper((unsigned char)**at) != c)
        return false;
    ++*at;
    return true;
}

static bool read_time(const char *text, int64_t *ms)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    const char *at = text;
    struct tm tm = { 0 };
    int century, year, month, day, hour, minute, second, zone_hour = 0, zone_minute = 0, sign = 0, most;
    int64_t fraction = 0;

    if (!take_two(&at, 19, 99, &century) || !take_two(&at, 0, 99, &year) || !take(&at, '-') ||
        !take_two(&at, 1, 12, &month) || !take(&at, '-') || !take_two(&at, 1, 31, &day))
        return false;
    year += century * 100;
    most = days[month - 1] + (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    if (day > most || !(take(&at, 'T') || take(&at, ' ')) || !take_two(&at, 0, 23, &hour) ||
        !take(&at, ':') || !take_two(&at, 0, 59, &minute) || !take(&at, ':') ||
        !take_two(&at, 0, 60, &second))
        return false;
    if (take(&at, '.')) {
        int64_t unit = 100;

        if (!isdigit((unsigned char)*at))
            return false;
        for (; isdigit((unsigned char)*at); at++, unit /= 10)
            fraction += (*at - '0') * unit;
    }
    if (!take(&at, 'Z')) {
        sign = take(&at, '+') ? -1 : take(&at, '-') ? 1 : 0;
        if (!sign || !take_two(&at, 0, 23, &zone_hour) || !take(&at, ':') ||
            !take_two(&at, 0, 59, &zone_minute))
            return false;
    }
    if (*at)
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    tm.tm_mday = day;
    tm.tm_hour = hour;
    tm.tm_min = minute;
    tm.tm_sec = second;
    *ms = ((int64_t)timegm(&tm) + sign * (zone_hour * 60 + zone_minute) * 60) * 1000 + fraction;
    return true;
}

bool when_read(const char *flag, const char *text, int64_t now_ms, int64_t *ms, struct err *err)
{
    static const struct field duration = {
        "duration", FIELD_DURATION, offsetof(struct span_ms, ms), 0, 0, WHEN_MS_MAX, NULL, ""
    };
    struct span_ms span = { 0 };

    *ms = 0;
    if (!*text)
        return true;
    if (strlen(text) >= 10 && text[4] == '-') {
        if (read_time(text, ms))
            return true;
        return err_set(err, ERR_INPUT,
                       "%s: expected a time with its zone like 2027-01-31T22:00:00Z, found `%.80s`", flag,
                       text);
    }
    /* A bare number would be milliseconds, which nobody means here. */
    if (isdigit((unsigned char)text[strlen(text) - 1]) || !field_set(&duration, text, &span, NULL))
        return err_set(
            err, ERR_INPUT,
            "%s: expected a duration from now (90s, 15m, 8h, 30d) or a time (2027-01-31T22:00:00Z), "
            "found `%.80s`",
            flag, text);
    *ms = now_ms + span.ms;
    return true;
}

const char *when_write(char text[WHEN_WRITTEN_SIZE], int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;

    if (!ms || !gmtime_r(&seconds, &tm) || !strftime(text, WHEN_WRITTEN_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm))
        strcpy(text, "-");
    return text;
}

const char *when_write_span(char *text, size_t size, uint64_t ms)
{
    const uint64_t hour = 3600 * 1000, day = 24 * hour;

    if (!ms)
        snprintf(text, size, "for ever");
    else if (ms % day == 0)
        snprintf(text, size, "for %" PRIu64 " day%s", ms / day, ms == day ? "" : "s");
    else if (ms % hour == 0)
        snprintf(text, size, "for %" PRIu64 " hour%s", ms / hour, ms == hour ? "" : "s");
    else
        snprintf(text, size, "for %.15g s", (double)ms / 1000);
    return text;
}
