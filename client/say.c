#include "client/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR_EVERY_MS = 200, LINE_EVERY_MS = 60 * 1000, BAR_WIDTH = 24 };

static bool is_quiet, is_terminal, bar_shown;
static int64_t started_ms, last_ms;

void say_init(bool quiet)
{
    is_quiet = quiet;
    is_terminal = isatty(STDERR_FILENO);
}

static void clear_bar(void)
{
    if (bar_shown)
        fputs("\r\033[K", stderr);
    bar_shown = false;
}

__attribute__((format(printf, 1, 0))) static void line(const char *format, va_list args)
{
    char text[2 * ERR_TEXT_MAX];
    char *c;

    clear_bar();
    vsnprintf(text, sizeof text, format, args);
    for (c = text; *c; c++) /* an error may quote the input: its bytes must not steer the terminal */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    fprintf(stderr, "%s\n", text);
}

void say(const char *format, ...)
{
    va_list args;

    if (is_quiet)
        return;
    va_start(args, format);
    line(format, args);
    va_end(args);
}

void say_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    line(format, args);
    va_end(args);
}

int say_failed(const char *verb, const struct err *err)
{
    say_error("moothall %s: %s", verb, err->text);
    return 1;
}

static void time_left(char *text, int size, int64_t seconds)
{
    if (seconds >= 24 * 3600)
        snprintf(text, (size_t)size, "%lld d %02lld h", (long long)(seconds / 86400),
                 (long long)(seconds / 3600 % 24));
    else if (seconds >= 3600)
        snprintf(text, (size_t)size, "%lld:%02lld:%02lld", (long long)(seconds / 3600),
                 (long long)(seconds / 60 % 60), (long long)(seconds % 60));
    else
        snprintf(text, (size_t)size, "%lld:%02lld", (long long)(seconds / 60), (long long)(seconds % 60));
}

void say_progress_text(char *text, int size, const struct say_progress *p, int64_t elapsed_ms, int width)
{
    uint64_t now_done = p->done > p->done_at_start ? p->done - p->done_at_start : 0;
    double rate = elapsed_ms > 0 ? (double)now_done * 1000 / (double)elapsed_ms : 0;
    double share = p->total ? (double)p->done / (double)p->total : 1;
    char left[32] = "", failed[40] = "", note[120] = "", bar[BAR_WIDTH + 1] = "";

    if (share > 1)
        share = 1;
    if (rate > 0 && p->done < p->total) {
        char t[24];

        time_left(t, sizeof t, (int64_t)((double)(p->total - p->done) / rate + 0.5));
        snprintf(left, sizeof left, ", %s left", t);
    }
    if (p->failed)
        snprintf(failed, sizeof failed, ", %llu failed", (unsigned long long)p->failed);
    if (p->note && *p->note)
        snprintf(note, sizeof note, " (%s)", p->note);
    if (width >= 70) {
        int full = (int)(share * BAR_WIDTH + 0.5);

        memset(bar, '.', BAR_WIDTH);
        memset(bar, '#', (size_t)full);
        bar[BAR_WIDTH] = '\0';
    }
    snprintf(text, (size_t)size, "%s%s%s%llu/%llu %s, %.*f/s%s%s%s", width >= 70 ? "[" : "", bar,
             width >= 70 ? "] " : "", (unsigned long long)p->done, (unsigned long long)p->total, p->what,
             rate < 10 ? 2 : 0, rate, left, failed, note);
    if (width > 0 && (int)strlen(text) > width)
        text[width] = '\0';
}

void say_progress_start(int64_t now_ms)
{
    started_ms = last_ms = now_ms;
}

void say_progress(const struct say_progress *progress, int64_t now_ms)
{
    char text[400];

    if (is_quiet || now_ms - last_ms < (is_terminal ? BAR_EVERY_MS : LINE_EVERY_MS))
        return;
    last_ms = now_ms;
    if (is_terminal) {
        struct winsize size;
        int width = 80;

        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10)
            width = size.ws_col;
        say_progress_text(text, sizeof text, progress, now_ms - started_ms, width - 1);
        fprintf(stderr, "\r%s\033[K", text);
        fflush(stderr);
        bar_shown = true;
    } else {
        say_progress_text(text, sizeof text, progress, now_ms - started_ms, 0);
        fprintf(stderr, "%s\n", text);
    }
}

void say_progress_end(void)
{
    clear_bar();
}
