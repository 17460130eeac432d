#include "worker/model/pretokenize_pattern.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "worker/model/utf8.h"

enum {
    MATCH_LIMIT = 50 * 1000 * 1000, /* backtracks of one match */
    HEAP_LIMIT_KIB = 256 * 1024,
    JIT_STACK_MAX = 1024 * 1024,
    GROUP_DEPTH_MAX = 64,
};

struct pattern {
    enum { BY_PCRE2, BY_LITERAL, BY_SPACE_AT_END } kind;
    pcre2_code *code;
    struct buf literal;
};

struct pattern_work {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* ---- Unicode since version 14 -------------------------------------------------------------------
 * PCRE2 10.42 has Unicode 14, `tokenizers` 0.23 has 16 in its patterns.  These are the code points
 * assigned in between, found by asking the library about every code point (tests/parity/unicode_new.py
 * does it again).  Where PCRE2 is newer they only say again what it knows. */
static const struct {
    uint32_t first, last;
    char category[3];
} assigned[] = {
    { 0x897, 0x897, "Mn" },     { 0xcf3, 0xcf3, "Mc" },     { 0xece, 0xece, "Mn" },
    { 0x1b4e, 0x1b4f, "Po" },   { 0x1b7f, 0x1b7f, "Po" },   { 0x1c89, 0x1c89, "Lu" },
    { 0x1c8a, 0x1c8a, "Ll" },   { 0x2427, 0x2429, "So" },   { 0x2ffc, 0x2fff, "So" },
    { 0x31e4, 0x31e5, "So" },   { 0x31ef, 0x31ef, "So" },   { 0xa7cb, 0xa7cc, "Lu" },
    { 0xa7cd, 0xa7cd, "Ll" },   { 0xa7da, 0xa7da, "Lu" },   { 0xa7db, 0xa7db, "Ll" },
    { 0xa7dc, 0xa7dc, "Lu" },   { 0x105c0, 0x105f3, "Lo" }, { 0x10d40, 0x10d49, "Nd" },
    { 0x10d4a, 0x10d4d, "Lo" }, { 0x10d4e, 0x10d4e, "Lm" }, { 0x10d4f, 0x10d4f, "Lo" },
    { 0x10d50, 0x10d65, "Lu" }, { 0x10d69, 0x10d6d, "Mn" }, { 0x10d6e, 0x10d6e, "Pd" },
    { 0x10d6f, 0x10d6f, "Lm" }, { 0x10d70, 0x10d85, "Ll" }, { 0x10d8e, 0x10d8f, "Sm" },
    { 0x10ec2, 0x10ec4, "Lo" }, { 0x10efc, 0x10eff, "Mn" }, { 0x1123f, 0x11240, "Lo" },
    { 0x11241, 0x11241, "Mn" }, { 0x11380, 0x11389, "Lo" }, { 0x1138b, 0x1138b, "Lo" },
    { 0x1138e, 0x1138e, "Lo" }, { 0x11390, 0x113b5, "Lo" }, { 0x113b7, 0x113b7, "Lo" },
    { 0x113b8, 0x113ba, "Mc" }, { 0x113bb, 0x113c0, "Mn" }, { 0x113c2, 0x113c2, "Mc" },
    { 0x113c5, 0x113c5, "Mc" }, { 0x113c7, 0x113ca, "Mc" }, { 0x113cc, 0x113cd, "Mc" },
    { 0x113ce, 0x113ce, "Mn" }, { 0x113cf, 0x113cf, "Mc" }, { 0x113d0, 0x113d0, "Mn" },
    { 0x113d1, 0x113d1, "Lo" }, { 0x113d2, 0x113d2, "Mn" }, { 0x113d3, 0x113d3, "Lo" },
    { 0x113d4, 0x113d5, "Po" }, { 0x113d7, 0x113d8, "Po" }, { 0x113e1, 0x113e2, "Mn" },
    { 0x116d0, 0x116e3, "Nd" }, { 0x11b00, 0x11b09, "Po" }, { 0x11bc0, 0x11be0, "Lo" },
    { 0x11be1, 0x11be1, "Po" }, { 0x11bf0, 0x11bf9, "Nd" }, { 0x11f00, 0x11f01, "Mn" },
    { 0x11f02, 0x11f02, "Lo" }, { 0x11f03, 0x11f03, "Mc" }, { 0x11f04, 0x11f10, "Lo" },
    { 0x11f12, 0x11f33, "Lo" }, { 0x11f34, 0x11f35, "Mc" }, { 0x11f36, 0x11f3a, "Mn" },
    { 0x11f3e, 0x11f3f, "Mc" }, { 0x11f40, 0x11f40, "Mn" }, { 0x11f41, 0x11f41, "Mc" },
    { 0x11f42, 0x11f42, "Mn" }, { 0x11f43, 0x11f4f, "Po" }, { 0x11f50, 0x11f59, "Nd" },
    { 0x11f5a, 0x11f5a, "Mn" }, { 0x1342f, 0x1342f, "Lo" }, { 0x13440, 0x13440, "Mn" },
    { 0x13441, 0x13446, "Lo" }, { 0x13447, 0x13455, "Mn" }, { 0x13460, 0x143fa, "Lo" },
    { 0x16100, 0x1611d, "Lo" }, { 0x1611e, 0x16129, "Mn" }, { 0x1612a, 0x1612c, "Mc" },
    { 0x1612d, 0x1612f, "Mn" }, { 0x16130, 0x16139, "Nd" }, { 0x16d40, 0x16d42, "Lm" },
    { 0x16d43, 0x16d6a, "Lo" }, { 0x16d6b, 0x16d6c, "Lm" }, { 0x16d6d, 0x16d6f, "Po" },
    { 0x16d70, 0x16d79, "Nd" }, { 0x18cff, 0x18cff, "Lo" }, { 0x1b132, 0x1b132, "Lo" },
    { 0x1b155, 0x1b155, "Lo" }, { 0x1cc00, 0x1ccef, "So" }, { 0x1ccf0, 0x1ccf9, "Nd" },
    { 0x1cd00, 0x1ceb3, "So" }, { 0x1d2c0, 0x1d2d3, "No" }, { 0x1df25, 0x1df2a, "Ll" },
    { 0x1e030, 0x1e06d, "Lm" }, { 0x1e08f, 0x1e08f, "Mn" }, { 0x1e4d0, 0x1e4ea, "Lo" },
    { 0x1e4eb, 0x1e4eb, "Lm" }, { 0x1e4ec, 0x1e4ef, "Mn" }, { 0x1e4f0, 0x1e4f9, "Nd" },
    { 0x1e5d0, 0x1e5ed, "Lo" }, { 0x1e5ee, 0x1e5ef, "Mn" }, { 0x1e5f0, 0x1e5f0, "Lo" },
    { 0x1e5f1, 0x1e5fa, "Nd" }, { 0x1e5ff, 0x1e5ff, "Po" }, { 0x1f6dc, 0x1f6dc, "So" },
    { 0x1f774, 0x1f776, "So" }, { 0x1f77b, 0x1f77f, "So" }, { 0x1f7d9, 0x1f7d9, "So" },
    { 0x1f8b2, 0x1f8bb, "So" }, { 0x1f8c0, 0x1f8c1, "So" }, { 0x1fa75, 0x1fa77, "So" },
    { 0x1fa87, 0x1fa89, "So" }, { 0x1fa8f, 0x1fa8f, "So" }, { 0x1faad, 0x1faaf, "So" },
    { 0x1fabb, 0x1fabf, "So" }, { 0x1fac6, 0x1fac6, "So" }, { 0x1face, 0x1facf, "So" },
    { 0x1fada, 0x1fadc, "So" }, { 0x1fadf, 0x1fadf, "So" }, { 0x1fae8, 0x1fae9, "So" },
    { 0x1faf7, 0x1faf8, "So" }, { 0x1fbcb, 0x1fbef, "So" }, { 0x2b739, 0x2b739, "Lo" },
    { 0x2ebf0, 0x2ee5d, "Lo" }, { 0x31350, 0x323af, "Lo" },
};
enum { ASSIGNED_COUNT = sizeof assigned / sizeof assigned[0] };

static const char *const categories[] = { "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",
                                          "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
                                          "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp" };

/* ---- reading Ruby's syntax, writing PCRE2's ------------------------------------------------------- */

struct reader {
    const uint8_t *start, *at, *end;
    struct buf out;
    struct err *err;
    bool caseless[GROUP_DEPTH_MAX + 1]; /* by depth of groups */
    int depth;
    bool atomic; /* has a group that does not give back */
};

static bool refuse(struct reader *r, const uint8_t *at, const char *what)
{
    return err_set(r->err, ERR_INPUT, "at byte %td of the pattern: %s is not supported", at - r->start, what);
}

static bool out_of_memory(struct err *err)
{
    return err_set(err, ERR_IO, "out of memory");
}

static bool put(struct reader *r, const char *text)
{
    return buf_text(&r->out, text) || out_of_memory(r->err);
}

static bool put_range(struct reader *r, uint32_t first, uint32_t last)
{
    bool fits = first == last ? buf_format(&r->out, "\\x{%" PRIx32 "}", first)
                              : buf_format(&r->out, "\\x{%" PRIx32 "}-\\x{%" PRIx32 "}", first, last);

    return fits || out_of_memory(r->err);
}

/* Members of a class, without its brackets: a whole category ("L") or one ("Lu"). */
static bool put_category(struct reader *r, const char *category)
{
    if (!buf_format(&r->out, "\\p{%s}", category))
        return out_of_memory(r->err);
    for (int i = 0; i < ASSIGNED_COUNT; i++)
        if (strncmp(assigned[i].category, category, strlen(category)) == 0 &&
            !put_range(r, assigned[i].first, assigned[i].last))
            return false;
    /* One mark changed its kind in Unicode 15 (Mn before); only "Mc" alone can tell. */
    return strcmp(category, "Mc") != 0 || put_range(r, 0x1171e, 0x1171e);
}

static bool put_space(struct reader *r, bool negated)
{
    uint32_t from = 0;

    for (uint32_t c = 0; c <= 0x3001; c++) {
        bool in = utf8_is_space(c) != negated;

        if (!in || (c > 0 && (utf8_is_space(c - 1) != negated)))
            continue;
        for (from = c; c + 1 <= 0x3001 && utf8_is_space(c + 1) == utf8_is_space(from); c++)
            continue;
        if (!put_range(r, from, c == 0x3001 ? 0x10ffff : c))
            return false;
    }
    return true;
}

static bool put_word(struct reader *r)
{
    if (!put(r, "\\p{Alphabetic}") || !put_category(r, "M") || !put_category(r, "Nd") ||
        !put_category(r, "Pc"))
        return false;
    for (int i = 0; i < ASSIGNED_COUNT;
         i++) /* the new letters are alphabetic, and nothing else that is new */
        if (assigned[i].category[0] == 'L' && !put_range(r, assigned[i].first, assigned[i].last))
            return false;
    return true;
}

/* Outside of a class Oniguruma's \w has the superscripts and fractions of Latin-1 too; within one it has not.
 */
static bool put_ruby_word(struct reader *r)
{
    return put_word(r) && put_range(r, 0xb2, 0xb3) && put_range(r, 0xb9, 0xb9) && put_range(r, 0xbc, 0xbe);
}

/* \p{Name}: on the brace.  Leaves after it. */
static bool read_category(struct reader *r, const uint8_t *escape, const char **category)
{
    const uint8_t *close;

    if (r->at == r->end || *r->at != '{' || !(close = memchr(r->at, '}', (size_t)(r->end - r->at))))
        return refuse(r, escape, "\\p without {category}");
    /* What (?i) does to a category each engine decides for itself. */
    if (r->caseless[r->depth])
        return refuse(r, escape, "\\p where case does not count");
    r->at++;
    for (size_t i = 0; i < sizeof categories / sizeof categories[0]; i++)
        if (span_equal(span_of(r->at, (size_t)(close - r->at)), span_text(categories[i]))) {
            *category = categories[i];
            r->at = close + 1;
            return true;
        }
    return err_set(
        r->err, ERR_INPUT,
        "at byte %td of the pattern: \\p{%.*s} is not supported; expected a general category such as L or Lu",
        escape - r->start, (int)(close - r->at > 32 ? 32 : close - r->at), (const char *)r->at);
}

/* An escape that stands for one character; the backslash has been read.  False with err when it is another.
 */
static bool read_escaped_character(struct reader *r, const uint8_t *escape, uint32_t *c)
{
    static const char named[] = "t\tn\nr\rf\fv\va\ae\x1b";
    uint8_t letter;

    if (r->at == r->end)
        return refuse(r, escape, "a backslash at the end");
    letter = *r->at;
    if (letter >= 0x80) {
        *c = utf8_read(r->at);
        r->at += utf8_length(letter);
        return true;
    }
    r->at++;
    for (const char *n = named; *n; n += 2)
        if ((uint8_t)n[0] == letter) {
            *c = (uint8_t)n[1];
            return true;
        }
    if (letter == 'u' || letter == 'x') {
        bool braces = letter == 'x' && r->at < r->end && *r->at == '{';
        int digits = letter == 'u' ? 4 : braces ? 8 : 2, n = 0;

        r->at += braces;
        for (*c = 0; n < digits && r->at < r->end && *c <= 0x10ffff; n++, r->at++) {
            uint8_t d = *r->at;

            if (d >= '0' && d <= '9')
                *c = *c * 16 + d - '0';
            else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
                *c = *c * 16 + (d | 0x20) - 'a' + 10;
            else
                break;
        }
        if (n == 0 || (letter == 'u' && n < 4) || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000) ||
            (letter == 'x' && !braces && *c >= 0x80) || (braces && (r->at == r->end || *r->at++ != '}')))
            return refuse(r, escape, "this numeric escape");
        return true;
    }
    if ((letter >= '0' && letter <= '9') || ((letter | 0x20) >= 'a' && (letter | 0x20) <= 'z')) {
        char what[] = "\\?";

        what[1] = (char)letter;
        return refuse(r, escape, what);
    }
    *c = letter;
    return true;
}

/* One member of a class: a character (*set false) or an escape for a set, which is written (*set true). */
static bool read_member(struct reader *r, uint32_t *c, bool *set)
{
    const uint8_t *start = r->at;
    const char *category;

    *set = false;
    if (*r->at != '\\') {
        *c = utf8_read(r->at);
        r->at += utf8_length(*r->at);
        return true;
    }
    r->at++;
    if (r->at == r->end)
        return refuse(r, start, "a backslash at the end");
    *set = true;
    switch (*r->at) {
    case 's':
    case 'S':
        return put_space(r, *r->at++ == 'S');
    case 'd':
        r->at++;
        return put_category(r, "Nd");
    case 'w':
        r->at++;
        return put_word(r);
    case 'p':
        r->at++;
        return read_category(r, start, &category) && put_category(r, category);
    case 'P':
    case 'D':
    case 'W':
        return refuse(r, start, "a negated set within a class");
    }
    *set = false;
    return read_escaped_character(r, start, c);
}

static bool read_class(struct reader *r)
{
    const uint8_t *open = r->at++;
    bool any = false;

    if (!put(r, "["))
        return false;
    if (r->at < r->end && *r->at == '^') {
        if (r->caseless[r->depth])
            return refuse(r, open, "a negated class where case does not count");
        r->at++;
        if (!put(r, "^"))
            return false;
    }
    for (;;) {
        uint32_t first, last;
        bool set;

        if (r->at == r->end)
            return refuse(r, open, "a class without its end");
        if (*r->at == ']' && any) {
            r->at++;
            return put(r, "]");
        }
        if (*r->at == ']')
            return refuse(r, open, "an empty class");
        if (*r->at == '[')
            return refuse(r, r->at, "a class within a class");
        if (*r->at == '&' && r->end - r->at > 1 && r->at[1] == '&')
            return refuse(r, r->at, "&& within a class");
        any = true;
        if (!read_member(r, &first, &set))
            return false;
        if (set)
            continue;
        last = first;
        if (r->end - r->at > 1 && r->at[0] == '-' && r->at[1] != ']') {
            const uint8_t *range = r->at++;

            if (*r->at == '[')
                return refuse(r, r->at, "a class within a class");
            if (!read_member(r, &last, &set))
                return false;
            if (set || last < first)
                return refuse(r, range, "a range that does not go up from character to character");
        }
        if (!put_range(r, first, last))
            return false;
    }
}

/* After an atom: greedy, lazy and possessive quantifiers.  The brace form is written anew because a
 * missing minimum is 0 in Ruby and no quantifier in PCRE2, and a + after it is not possessive there. */
static bool read_braces(struct reader *r, bool *quantifier)
{
    const uint8_t *start = r->at, *p = r->at + 1;
    unsigned number[2] = { 0, 0 };
    bool digits[2] = { false, false }, comma = false;

    *quantifier = false;
    for (; p < r->end && *p != '}'; p++) {
        if (*p == ',' && !comma) {
            comma = true;
        } else if (*p >= '0' && *p <= '9') {
            number[comma] = number[comma] * 10 + *p - '0';
            digits[comma] = true;
            if (number[comma] > 65535)
                return refuse(r, start, "a repeat count above 65535");
        } else {
            return true;
        }
    }
    if (p == r->end || !(digits[0] || digits[1]))
        return true;
    *quantifier = true;
    r->at = p + 1;
    if (r->at < r->end && (*r->at == '+' || (*r->at == '?' && !comma)))
        return refuse(r, start, "a quantifier on {n}");
    if (!(comma ? (digits[1] ? buf_format(&r->out, "{%u,%u}", number[0], number[1])
                             : buf_format(&r->out, "{%u,}", number[0]))
                : buf_format(&r->out, "{%u}", number[0])))
        return out_of_memory(r->err);
    return true;
}

static bool read_group(struct reader *r)
{
    /* Groups are never referred to, so none captures. */
    static const char *const forms[] = { "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:" };
    const uint8_t *open = r->at;
    size_t left = (size_t)(r->end - r->at);

    if (left < 2 || r->at[1] != '?') {
        r->at++;
        return put(r, "(?:");
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (left >= strlen(forms[i]) && memcmp(r->at, forms[i], strlen(forms[i])) == 0) {
            r->at += strlen(forms[i]);
            r->atomic = r->atomic || forms[i][2] == '>';
            if (strchr(forms[i], 'i'))
                r->caseless[r->depth] = !strchr(forms[i], '-');
            return put(r, forms[i]);
        }
    /* In Ruby an option reaches to the end of its group, alternatives included: only in front of all is it
     * the same. */
    if (left >= 4 && memcmp(open, "(?i)", 4) == 0 && open == r->start) {
        r->at += 4;
        r->depth--; /* it has no end of its own */
        return r->caseless[0] = put(r, "(?i)");
    }
    return refuse(r, open, "this kind of group");
}

static bool read_escape(struct reader *r)
{
    const uint8_t *escape = r->at++;
    const char *category;
    uint32_t c;

    if (r->at == r->end)
        return refuse(r, escape, "a backslash at the end");
    switch (*r->at) {
    case 's':
    case 'S':
        return put(r, *r->at++ == 's' ? "[" : "[^") && put_space(r, false) && put(r, "]");
    case 'd':
    case 'D':
        return put(r, *r->at++ == 'd' ? "[" : "[^") && put_category(r, "Nd") && put(r, "]");
    case 'w':
    case 'W':
        return put(r, *r->at++ == 'w' ? "[" : "[^") && put_ruby_word(r) && put(r, "]");
    case 'p':
    case 'P': {
        bool negated = *r->at++ == 'P';

        return read_category(r, escape, &category) && put(r, negated ? "[^" : "[") &&
               put_category(r, category) && put(r, "]");
    }
    case 'A':
        r->at++;
        return put(r, "\\A");
    case 'z':
        r->at++;
        return put(r, "\\z");
    case 'Z':
        r->at++;
        return put(r, "\\Z");
    }
    return read_escaped_character(r, escape, &c) && put_range(r, c, c);
}

static bool translate(struct reader *r)
{

    while (r->at < r->end) {
        uint8_t c = *r->at;
        bool quantifier;

        switch (c) {
        case '\\':
            if (!read_escape(r))
                return false;
            break;
        case '[':
            if (!read_class(r))
                return false;
            break;
        case '(':
            if (r->depth == GROUP_DEPTH_MAX)
                return refuse(r, r->at, "so deep a nesting of groups");
            r->depth++;
            r->caseless[r->depth] = r->caseless[r->depth - 1];
            if (!read_group(r))
                return false;
            break;
        case ')':
            if (r->depth == 0)
                return refuse(r, r->at, "a ) without its (");
            r->depth--;
            r->at++;
            if (!put(r, ")"))
                return false;
            break;
        case '{':
            if (!read_braces(r, &quantifier))
                return false;
            if (!quantifier) {
                r->at++;
                if (!put(r, "\\{"))
                    return false;
            }
            break;
        case '+':
            if (r->at - r->start >= 2 && strchr("*+?", r->at[-1]) && r->at[-2] == ')')
                r->atomic = true;
            /* fall through */
        case '.':
        case '|':
        case '^':
        case '$':
        case '*':
        case '?':
            r->at++;
            if (!put(r, (char[]){ (char)c, 0 }))
                return false;
            break;
        default: {
            uint32_t character = utf8_read(r->at);

            r->at += utf8_length(c);
            if (!put_range(r, character, character))
                return false;
        }
        }
    }
    return true;
}

/* ---- patterns ------------------------------------------------------------------------------------- */

static bool compile(struct pattern *pattern, struct span text, bool jit, struct err *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    PCRE2_SIZE offset;
    int code;

    if (!context)
        return out_of_memory(err);
    /* Both engines' `.` and `$` know no line end but LF. */
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pattern->code =
        pcre2_compile(text.data, text.size, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK,
                      &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!pattern->code) {
        uint8_t words[160];

        pcre2_get_error_message(code, words, sizeof words);
        return err_set(err, ERR_INPUT, "pattern does not compile: %s", (const char *)words);
    }
    /* Without JIT (not every machine has it) pcre2_match interprets: slower, the same matches. */
    if (jit)
        pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE);
    return true;
}

static struct pattern *take(struct pattern **pattern, struct err *err)
{
    *pattern = calloc(1, sizeof **pattern);
    if (!*pattern)
        out_of_memory(err);
    return *pattern;
}

static bool keep(struct pattern **pattern, bool ok)
{
    if (!ok) {
        pattern_free(*pattern);
        *pattern = NULL;
    }
    return ok;
}

bool pattern_new(struct pattern **pattern, struct span source, struct err *err)
{
    struct reader r = {
        .start = source.data, .at = source.data, .end = source.data + source.size, .err = err
    };
    struct pattern *p;
    bool ok;

    *pattern = NULL;
    if (source.size == 0 || source.size > PATTERN_SOURCE_MAX)
        return err_set(err, ERR_INPUT, "pattern of %zu bytes, expected 1..%d", source.size,
                       PATTERN_SOURCE_MAX);
    if (!span_is_utf8(source))
        return err_set(err, ERR_INPUT, "pattern is not UTF-8");
    if (!(p = take(pattern, err)))
        return false;
    if (span_equal(source, span_text("\\s+$"))) {
        p->kind = BY_SPACE_AT_END;
        return true;
    }
    p->kind = BY_PCRE2;
    /* PCRE2 10.42's JIT takes another way through some atomic groups than its interpreter:
     * `(?>[\s]{1,3}[^\r]*+|[\s]?)$`. */
    ok = translate(&r) && compile(p, buf_span(&r.out), !r.atomic, err);
    buf_fini(&r.out);
    return keep(pattern, ok);
}

bool pattern_new_literal(struct pattern **pattern, struct span literal, struct err *err)
{
    struct pattern *p;

    *pattern = NULL;
    if (literal.size == 0 || literal.size > PATTERN_SOURCE_MAX)
        return err_set(err, ERR_INPUT, "pattern of %zu bytes, expected 1..%d", literal.size,
                       PATTERN_SOURCE_MAX);
    if (!(p = take(pattern, err)))
        return false;
    p->kind = BY_LITERAL;
    return keep(pattern, buf_add(&p->literal, literal.data, literal.size) || out_of_memory(err));
}

bool pattern_new_numeric(struct pattern **pattern, struct err *err)
{
    struct reader r = { .err = err };
    bool ok;

    if (!take(pattern, err))
        return false;
    ok = put(&r, "[") && put_category(&r, "N") && put_range(&r, 0x11de0, 0x11de9) &&
         put_range(&r, 0x16ff4, 0x16ff6) && put(&r, "]") && compile(*pattern, buf_span(&r.out), true, err);
    buf_fini(&r.out);
    return keep(pattern, ok);
}

bool pattern_new_word_character(struct pattern **pattern, struct err *err)
{
    struct reader r = { .err = err };
    bool ok;

    if (!take(pattern, err))
        return false;
    ok = put(&r, "[") && put_word(&r) && put_range(&r, 0x200c, 0x200d) && put(&r, "]") &&
         compile(*pattern, buf_span(&r.out), true, err);
    buf_fini(&r.out);
    return keep(pattern, ok);
}

void pattern_free(struct pattern *pattern)
{
    if (!pattern)
        return;
    pcre2_code_free(pattern->code);
    buf_fini(&pattern->literal);
    free(pattern);
}

struct pattern_work *pattern_work_new(void)
{
    struct pattern_work *work = calloc(1, sizeof *work);

    if (!work)
        return NULL;
    work->data = pcre2_match_data_create(1, NULL);
    work->context = pcre2_match_context_create(NULL);
    if (!work->data || !work->context) {
        pattern_work_free(work);
        return NULL;
    }
    pcre2_set_match_limit(work->context, MATCH_LIMIT);
    pcre2_set_heap_limit(work->context, HEAP_LIMIT_KIB);
    work->stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_MAX, NULL);
    if (work->stack) /* NULL where there is no JIT */
        pcre2_jit_stack_assign(work->context, NULL, work->stack);
    return work;
}

void pattern_work_free(struct pattern_work *work)
{
    if (!work)
        return;
    pcre2_jit_stack_free(work->stack);
    pcre2_match_context_free(work->context);
    pcre2_match_data_free(work->data);
    free(work);
}

/* `\s+$`: in each run of white space the match begins at the run's start and ends at the last place in
 * it that is followed by a line feed or the end of the text.  So a run has at most one. */
static bool find_space_at_end(struct span text, size_t from, size_t *match_from, size_t *match_to)
{
    size_t at = from;

    while (at < text.size) {
        size_t start = at, last_end = 0;

        while (at < text.size && utf8_is_space(utf8_read(text.data + at))) {
            if (text.data[at] == '\n')
                last_end = at;
            at += utf8_length(text.data[at]);
        }
        if (at == text.size && at > start)
            last_end = at;
        if (last_end > start) {
            *match_from = start;
            *match_to = last_end;
            return true;
        }
        if (at < text.size) /* on what ended the run, or on a character outside any */
            at += utf8_length(text.data[at]);
    }
    return false;
}

bool pattern_find(const struct pattern *pattern, struct pattern_work *work, struct span text, size_t from,
                  size_t *match_from, size_t *match_to, bool *found, struct err *err)
{
    int code;

    if (pattern->kind == BY_SPACE_AT_END) {
        *found = find_space_at_end(text, from, match_from, match_to);
        return true;
    }
    if (pattern->kind == BY_LITERAL) {
        const uint8_t *at = from < text.size ? memmem(text.data + from, text.size - from,
                                                      pattern->literal.data, pattern->literal.size)
                                             : NULL;

        *found = at != NULL;
        if (at) {
            *match_from = (size_t)(at - text.data);
            *match_to = *match_from + pattern->literal.size;
        }
        return true;
    }
    code =
        pcre2_match(pattern->code, text.data, text.size, from, PCRE2_NO_UTF_CHECK, work->data, work->context);
    if (code == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter takes its stack from the heap */
        code = pcre2_match(pattern->code, text.data, text.size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           work->data, work->context);
    *found = code >= 0;
    if (code >= 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(work->data);

        *match_from = at[0];
        *match_to = at[1];
    } else if (code != PCRE2_ERROR_NOMATCH) {
        uint8_t words[160];

        pcre2_get_error_message(code, words, sizeof words);
        return err_set(err, ERR_LIMIT, "a pre-tokenizer's pattern needs too much work on this text: %s",
                       (const char *)words);
    }
    return true;
}
