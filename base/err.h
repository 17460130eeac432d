/* err - what went wrong, in words an operator can act on.
 *
 * A function that can fail for a reason outside the program returns false and fills a struct err,
 * its last argument.  Each level above adds where it was, once, with err_wrap, so the final text
 * reads from the outside in:
 *     start worker: load layer 7: tensor kv_a_proj has shape 512x2048, expected 576x2048
 * A struct err lives on the caller's stack and owns nothing. */

#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdbool.h>

enum err_code {
    ERR_NONE = 0,
    ERR_INPUT,      /* what we were given is wrong: a file, a line, a key, a message */
    ERR_LIMIT,      /* a named bound was reached */
    ERR_IO,         /* the world failed: disk, socket, memory */
    ERR_NOT_FOUND,
    ERR_CONFLICT,   /* it exists already, and differs */
    ERR_BUSY,       /* somebody else holds it */
    ERR_TIMEOUT,
    ERR_REFUSED,    /* the peer said no, and why */
    ERR_INTERRUPTED /* a signal asked us to stop */
};

#define ERR_TEXT_MAX 1024

struct err {
    enum err_code code;
    char text[ERR_TEXT_MAX]; /* always terminated; cut with "..." when it would not fit */
};

/* Both return false, so that a failing path is one line: return err_set(err, ...).
 * err may be NULL when the caller does not want the words. */
bool err_set(struct err *err, enum err_code code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "<format>: " before the text; the code stays. */
bool err_wrap(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ERR_IO with ": <strerror(errno)>" appended. */
bool err_errno(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The nearest of names to word (edit distance at most a third of its length, at least 1), or NULL:
 * for "unknown key `lease_msec` (did you mean `lease_ms`?)". */
const char *err_nearest(const char *word, const char *const *names, int name_count);

#endif
