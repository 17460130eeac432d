#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Leaves a visible mark where the text had to be cut. */
static void mark_cut(char *text, size_t size, int needed)
{
    if (needed >= (int)size)
        memcpy(text + size - 4, "...", 4);
}

bool err_set(struct err *err, enum err_code code, const char *format, ...)
{
    va_list args;

    if (!err)
        return false;
    err->code = code;
    va_start(args, format);
    mark_cut(err->text, sizeof err->text, vsnprintf(err->text, sizeof err->text, format, args));
    va_end(args);
    return false;
}

bool err_wrap(struct err *err, const char *format, ...)
{
    char inner[ERR_TEXT_MAX];
    va_list args;
    int n;

    if (!err)
        return false;
    memcpy(inner, err->text, sizeof inner);
    va_start(args, format);
    n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n < 0 || n >= (int)sizeof err->text - 3) {
        memcpy(err->text, inner, sizeof inner);
        return false;
    }
    mark_cut(err->text, sizeof err->text,
             n + snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", inner));
    return false;
}

bool err_errno(struct err *err, const char *format, ...)
{
    char reason[128];
    va_list args;
    int saved = errno, n;

    if (!err)
        return false;
    err->code = ERR_IO;
    va_start(args, format);
    n = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (n >= 0 && n < (int)sizeof err->text)
        mark_cut(err->text, sizeof err->text,
                 n + snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s",
                              strerror_r(saved, reason, sizeof reason)));
    else
        mark_cut(err->text, sizeof err->text, n);
    errno = saved;
    return false;
}

/* Edit distance where two letters swapped count as one mistake; words longer than a row count as far away. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    int row[3][LONGEST + 1]; /* of this letter of a, the last one, the one before */
    int *now = row[0], *last = row[1], *before = row[2];
    int na = (int)strlen(a), nb = (int)strlen(b);

    if (na > LONGEST || nb > LONGEST)
        return LONGEST;
    for (int j = 0; j <= nb; j++)
        now[j] = before[j] = j;
    for (int i = 1; i <= na; i++) {
        int *oldest = before;

        before = last;
        last = now;
        now = oldest;
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);

            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return now[nb];
}

const char *err_nearest(const char *word, const char *const *names, int name_count)
{
    const char *nearest = NULL;
    int limit = (int)strlen(word) / 3, best;

    best = (limit < 1 ? 1 : limit) + 1;
    for (int i = 0; i < name_count; i++) {
        int d = distance(word, names[i]);

        if (d < best) {
            best = d;
            nearest = names[i];
        }
    }
    return nearest;
}
