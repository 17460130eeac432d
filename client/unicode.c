#include "client/unicode.h"

#include <assert.h>
#include <string.h>
#include <utf8proc.h>

size_t unicode_read(const uint8_t *bytes, size_t size, uint32_t *c, bool *partial)
{
    uint8_t lead;
    size_t length;
    uint32_t value, least;

    if (partial)
        *partial = false;
    if (size == 0)
        return 0;
    lead = bytes[0];
    if (lead < 0x80) {
        *c = lead;
        return 1;
    }
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
    value = lead & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (i == size) {
            if (partial)
                *partial = true;
            return 0;
        }
        if ((bytes[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (bytes[i] & 0x3fu);
        if (i == 1) { /* overlong, a surrogate, or beyond the last: known from the second byte on */
            uint32_t first = value << 6 * (length - 2), last = first | ((1u << 6 * (length - 2)) - 1);

            if (last < least || first > 0x10ffff || (first >= 0xd800 && last <= 0xdfff))
                return 0;
        }
    }
    *c = value;
    return length;
}

size_t unicode_write(uint32_t c, uint8_t bytes[4])
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, bytes);
}

uint64_t unicode_count(const uint8_t *text, size_t size)
{
    uint64_t count = 0;

    for (size_t i = 0; i < size; i++)
        count += (text[i] & 0xc0) != 0x80;
    return count;
}

bool unicode_is_space(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 0x09 && c <= 0x0d);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool unicode_is_lower(uint32_t c)
{
    return c < 0x80 ? c >= 'a' && c <= 'z' : category(c) == UTF8PROC_CATEGORY_LL;
}

bool unicode_is_upper(uint32_t c)
{
    return c < 0x80 ? c >= 'A' && c <= 'Z' : category(c) == UTF8PROC_CATEGORY_LU;
}

bool unicode_is_letter(uint32_t c)
{
    utf8proc_category_t kind;

    if (c < 0x80)
        return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    kind = category(c);
    return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_ME;
}

bool unicode_is_digit(uint32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

bool unicode_is_closer(uint32_t c)
{
    utf8proc_category_t kind;

    if (c < 0x80)
        return c && strchr(")]}\"'*_", (int)c); /* Markdown's emphasis closes, too */
    kind = category(c);
    return kind == UTF8PROC_CATEGORY_PE || kind == UTF8PROC_CATEGORY_PF;
}

bool unicode_is_assigned(uint32_t c)
{
    utf8proc_category_t kind;

    if (c > 0x10ffff)
        return false;
    kind = category(c);
    return kind != UTF8PROC_CATEGORY_CN && kind != UTF8PROC_CATEGORY_CS && kind != UTF8PROC_CATEGORY_CO;
}

enum unicode_word unicode_word(uint32_t c)
{
    utf8proc_category_t kind;

    if (c < 0x80)
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ? WORD_SPACED : WORD_NONE;
    kind = category(c);
    if (kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_MC || kind == UTF8PROC_CATEGORY_ME)
        return WORD_MARK;
    if (kind < UTF8PROC_CATEGORY_LU || kind > UTF8PROC_CATEGORY_NO)
        return WORD_NONE;
    if ((c >= 0x1100 && c <= 0x11ff) || (c >= 0x3130 && c <= 0x318f) || (c >= 0xa960 && c <= 0xa97f) ||
        (c >= 0xac00 && c <= 0xd7ff))
        return WORD_HANGUL;
    if ((c >= 0x0e00 && c <= 0x0eff) || (c >= 0x0f00 && c <= 0x109f) || (c >= 0x1780 && c <= 0x17ff) ||
        (c >= 0x1950 && c <= 0x19df) || (c >= 0x1a20 && c <= 0x1aaf) || (c >= 0x2e80 && c <= 0x31ff) ||
        (c >= 0x3400 && c <= 0x9fff) || (c >= 0xa000 && c <= 0xa4cf) || (c >= 0xa9e0 && c <= 0xa9ff) ||
        (c >= 0xaa60 && c <= 0xaadf) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0xff66 && c <= 0xff9f) ||
        (c >= 0x1aff0 && c <= 0x1b2ff) || (c >= 0x20000 && c <= 0x3ffff))
        return WORD_DENSE;
    return WORD_SPACED;
}

bool unicode_word_border(uint32_t before, uint32_t after)
{
    enum unicode_word a = unicode_word(before), b = unicode_word(after);

    if (b == WORD_MARK)
        return false;
    if (a == WORD_MARK) /* whose mark it is, is not known here: it joins what scripts with spaces join */
        return b != WORD_SPACED;
    return a != b || a == WORD_NONE || a == WORD_DENSE;
}

bool unicode_grapheme_border(uint32_t before, uint32_t after, int32_t *state)
{
    if (before < 0x80 && after < 0x80) {
        *state = 0;
        return !(before == '\r' && after == '\n');
    }
    return utf8proc_grapheme_break_stateful((utf8proc_int32_t)before, (utf8proc_int32_t)after, state);
}

size_t unicode_fold(uint32_t c, uint32_t out[UNICODE_FOLD_MAX])
{
    utf8proc_int32_t made[UNICODE_FOLD_MAX];
    int last = 0;
    utf8proc_ssize_t n;

    if (c < 0x80) {
        out[0] = c >= 'A' && c <= 'Z' ? c | 0x20 : c;
        return 1;
    }
    n = utf8proc_decompose_char((utf8proc_int32_t)c, made, UNICODE_FOLD_MAX,
                                UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD, &last);
    assert(n >= 0 && n <= UNICODE_FOLD_MAX); /* 18 is the most that Unicode has */
    for (utf8proc_ssize_t i = 0; i < n; i++)
        out[i] = (uint32_t)made[i];
    return (size_t)n;
}

uint8_t unicode_combining_class(uint32_t c)
{
    return c < 0x300 ? 0 : (uint8_t)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}
