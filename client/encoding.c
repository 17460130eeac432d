#include "client/encoding.h"

#include <iconv.h>
#include <string.h>

#include "client/unicode.h"

/* ---- UTF-16 and UTF-32
 * ------------------------------------------------------------------------------------- */

/* Does the sample decode into characters that exist, with something in it that separates words or lines?
 * Bytes that are anything else meet an unassigned character soon.  0 when it does not; else the more, the
 * likelier. */
static size_t judge_wide(struct span s, int unit, bool little)
{
    size_t units = s.size / (size_t)unit, marks = 0, known = 0, common = 0;
    uint32_t high = 0;

    for (size_t i = 0; i < units; i++) {
        const uint8_t *p = s.data + i * (size_t)unit;
        uint32_t c = 0;

        for (int k = 0; k < unit; k++)
            c = c << 8 | p[little ? unit - 1 - k : k];
        if (unit == 2 && c >= 0xd800 && c < 0xdc00) {
            if (high)
                return 0;
            high = c;
            continue;
        }
        if (unit == 2 && c >= 0xdc00 && c < 0xe000) {
            if (!high)
                return 0;
            c = 0x10000 + ((high - 0xd800) << 10) + (c - 0xdc00);
            high = 0;
        } else if (high) {
            return 0;
        }
        if ((c < 0x20 && !(c >= '\t' && c <= '\r') && c != 0x1b) || (c >= 0x7f && c < 0xa0 && c != 0x85))
            return 0;
        if (!unicode_is_assigned(c) && c != 0xfeff)
            return 0;
        marks += c == ' ' || c == '\n' || c == 0x3000 || c == 0x3001 || c == 0x3002 || c == '.';
        common += c < 0x700 || (c >= 0x3000 && c < 0x3100);
        known += c < 0x3100 || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3) ||
                 (c >= 0xff00 && c < 0xfff0);
    }
    return known * 10 >= units * 9 && (marks > 0 || units < 16) ? 1 + common : 0;
}

static const char *guess_wide(struct span s, int unit)
{
    size_t little = judge_wide(s, unit, true), big = judge_wide(s, unit, false);

    if (s.size < 2 * (size_t)unit || (!little && !big))
        return NULL;
    if (unit == 4)
        return little >= big ? "UTF-32LE" : "UTF-32BE";
    return little >= big ? "UTF-16LE" : "UTF-16BE";
}

/* ---- one or two bytes a character
 * -------------------------------------------------------------------------- */

static bool in(uint8_t c, uint8_t from, uint8_t to)
{
    return c >= from && c <= to;
}

static bool is_shift_jis(struct span s)
{
    size_t wide = 0, kana = 0, half = 0;

    for (size_t i = 0; i < s.size; i++) {
        uint8_t a = s.data[i], b;

        if (a < 0x80)
            continue;
        if (in(a, 0xa1, 0xdf)) {
            half++;
            continue;
        }
        if (i + 1 == s.size)
            break;
        b = s.data[++i];
        if (!(in(a, 0x81, 0x9f) || in(a, 0xe0, 0xfc)) || !(in(b, 0x40, 0x7e) || in(b, 0x80, 0xfc)))
            return false;
        wide++;
        kana += (a == 0x82 && in(b, 0x9f, 0xf1)) || (a == 0x83 && in(b, 0x40, 0x96)) ||
                (a == 0x81 && in(b, 0x41, 0x42));
    }
    return wide > 0 && kana * 5 >= wide && half <= wide;
}

struct double_bytes {
    size_t pairs, kana, common, hangul, punctuation, low_trail;
};

/* EUC and its extensions: a high byte, then another (or, beyond EUC, a low one). */
static bool read_pairs(struct span s, struct double_bytes *d)
{
    memset(d, 0, sizeof *d);
    for (size_t i = 0; i < s.size; i++) {
        uint8_t a = s.data[i], b;

        if (a < 0x80)
            continue;
        if (i + 1 == s.size)
            break;
        b = s.data[++i];
        if (a == 0x80 || a == 0xff || !in(b, 0x30, 0xfe) || b == 0x7f || (b >= 0x3a && b < 0x40))
            return false;
        if (b < 0x40) { /* GB18030's four bytes */
            if (i + 2 < s.size && (!in(s.data[i + 1], 0x81, 0xfe) || !in(s.data[i + 2], 0x30, 0x39)))
                return false;
            i += 2;
        }
        d->pairs++;
        d->low_trail += b < 0xa1;
        if (b < 0xa1)
            continue;
        d->kana += a == 0xa4 || a == 0xa5;
        d->common += in(a, 0xb0, 0xd7); /* GB2312's first level: the characters in use */
        d->hangul += in(a, 0xb0, 0xc8);
        d->punctuation += a == 0xa1 || a == 0xa3;
    }
    return d->pairs > 0;
}

static bool is_big5(struct span s)
{
    size_t pairs = 0, common = 0, low = 0;

    for (size_t i = 0; i < s.size; i++) {
        uint8_t a = s.data[i], b;

        if (a < 0x80)
            continue;
        if (i + 1 == s.size)
            break;
        b = s.data[++i];
        if (!in(a, 0x81, 0xfe) || !(in(b, 0x40, 0x7e) || in(b, 0xa1, 0xfe)))
            return false;
        pairs++;
        common += in(a, 0xa1, 0xc6);
        low += b < 0xa1;
    }
    return pairs > 0 && common * 10 >= pairs * 9 && low * 5 >= pairs;
}

static bool is_ascii_letter(uint8_t c)
{
    return in(c | 0x20, 'a', 'z');
}

/* One byte a character: each is decoded by all the tables that the system has, and judged by what comes out:
 * letters that are common in a language, few that are strange, no symbol within a word, no capital after a
 * small letter.  The first of equals. */
static const char *guess_single(struct span s)
{
    static const struct {
        const char *name, *common; /* where not latin, the most common first */
        bool latin;                /* beside ASCII letters in the same words */
    } tables[] = {
        { "WINDOWS-1252", "éèàáíóúñäöüßåæøçêâîôûãõœìòùëïþðý’“”–—…°§«»¿¡ÉÈÀÄÖÜØÅÁÍÓÚÞÆÇ", true },
        { "WINDOWS-1250", "ąćęłńóśźżáčďéěíňřšťúůýžäöüőűăâîșțŁŚŻČŠŽ„”’–…", true },
        { "ISO-8859-2", "ąćęłńóśźżáčďéěíňřšťúůýžäöüőűăâîŁŚŻČŠŽ", true },
        { "WINDOWS-1254", "çğıöşüÇĞİÖŞÜâî’“”–", true },
        { "WINDOWS-1251", "оеаинтсрвлкмдпуяыьгзбчйхжшюцщіїъ«»", false },
        { "KOI8-R", "оеаинтсрвлкмдпуяыьгзбчйхжшюцщъ", false },
        { "WINDOWS-1253", "αοιετσνηυρπκςλμάίόέήγδωύώθχφβ", false },
        { "WINDOWS-1255", "יוהלאמרבתשנדחקםןפעגכסטזץךףצ", false },
        { "WINDOWS-1256", "اليمنتروبةعدسفهك،", false },
        { "TIS-620", "านรกอเมยลวงดทสตะ่้ัีิ", false },
    };
    size_t high = 0, windows = 0, letters = 0, beside = 0;
    const char *best_name = NULL;
    long best = 0;

    for (size_t i = 0; i < s.size; i++) {
        high += s.data[i] >= 0x80;
        windows += in(s.data[i], 0x80, 0x9f);
        letters += s.data[i] >= 0xc0;
        beside += s.data[i] >= 0xc0 && ((i && is_ascii_letter(s.data[i - 1])) ||
                                        (i + 1 < s.size && is_ascii_letter(s.data[i + 1])));
    }
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        uint32_t table[256] = { 0 }, before = ' ';
        iconv_t convert = iconv_open("UTF-8", tables[t].name);
        long score = 0;

        if (convert == (iconv_t)-1)
            continue;
        if (tables[t].latin != (beside * 2 >= letters)) {
            iconv_close(convert);
            continue;
        }
        for (int i = 0; i < 256; i++) {
            char in_byte = (char)i, out[8], *from = &in_byte, *to = out;
            size_t in_size = 1, out_size = sizeof out;

            /* Asked once more, it gives what it kept for a mark that might follow. */
            if (iconv(convert, &from, &in_size, &to, &out_size) == 0 &&
                iconv(convert, NULL, NULL, &to, &out_size) == 0)
                unicode_read((uint8_t *)out, (size_t)(to - out), &table[i], NULL);
            iconv(convert, NULL, NULL, NULL, NULL);
        }
        iconv_close(convert);
        for (size_t i = 0; i < s.size; i++) {
            uint32_t c = table[s.data[i]], after = i + 1 < s.size ? table[s.data[i + 1]] : ' ';
            uint8_t bytes[4];
            const char *common;
            size_t n, rank;

            if (s.data[i] < 0x80) {
                before = c;
                continue;
            }
            n = unicode_write(c, bytes);
            if (c < 0xa0) /* nothing, or a control */
                score -= 10;
            else if ((common = memmem(tables[t].common, strlen(tables[t].common), bytes, n))) {
                rank = (size_t)(common - tables[t].common) / n;
                score += tables[t].latin || (rank >= 8 && rank < 16) ? 3 : rank < 8 ? 5 : 1;
            } else if (unicode_is_letter(c))
                score += 1;
            else if (unicode_is_letter(before) && unicode_is_letter(after) && c != 0x2019)
                score -= 3;
            if (unicode_is_upper(c) && unicode_is_lower(before))
                score -= 3;
            before = c;
        }
        if (score > best) {
            best = score;
            best_name = tables[t].name;
        }
    }
    if (!best_name || best < (long)high)
        return NULL;
    return best_name == tables[0].name && windows == 0 ? "ISO-8859-1" : best_name;
}

const char *encoding_of_escapes(struct span text)
{
    static const struct {
        const char *escape, *name;
    } kinds[] = { { "\x1b$B", "ISO-2022-JP" },  { "\x1b$@", "ISO-2022-JP" },  { "\x1b$(D", "ISO-2022-JP-2" },
                  { "\x1b$)C", "ISO-2022-KR" }, { "\x1b$)A", "ISO-2022-CN" }, { "\x1b$)G", "ISO-2022-CN" } };

    for (size_t i = 0; text.size && i < sizeof kinds / sizeof *kinds; i++)
        if (memmem(text.data, text.size, kinds[i].escape, strlen(kinds[i].escape)))
            return kinds[i].name;
    return NULL;
}

/* That no text has: those of lines and terminals are none. */
static bool is_control(uint8_t c)
{
    return c == 0x7f || (c < 0x20 && !in(c, '\b', '\r') && c != 0x1b);
}

bool encoding_has_controls(struct span text)
{
    size_t controls = 0;

    for (size_t i = 0; i < text.size; i++)
        controls += is_control(text.data[i]);
    return controls * 10 > text.size;
}

const char *encoding_guess(struct span s)
{
    static const struct {
        const char *mark;
        size_t size;
        const char *name;
    } marks[] = {
        { "\xff\xfe\0\0", 4, "UTF-32LE" },
        { "\0\0\xfe\xff", 4, "UTF-32BE" },
        { "\xff\xfe", 2, "UTF-16LE" },
        { "\xfe\xff", 2, "UTF-16BE" },
    };
    struct double_bytes d;
    const char *guess;
    size_t high = 0, controls = 0;

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        int unit = marks[i].name[4] == '3' ? 4 : 2;

        if (s.size >= marks[i].size && !memcmp(s.data, marks[i].mark, marks[i].size) &&
            (s.size < 3 * (size_t)unit ||
             judge_wide(span_of(s.data + unit, s.size - (size_t)unit), unit, marks[i].name[6] == 'L')))
            return marks[i].name;
    }
    if ((guess = guess_wide(s, 4)))
        return guess;
    if (s.size && memchr(s.data, 0, s.size))
        return (guess = guess_wide(s, 2)) ? guess : "binary";
    for (size_t i = 0; i < s.size; i++) {
        high += s.data[i] >= 0x80;
        controls += is_control(s.data[i]);
    }
    if (controls * 50 > s.size) /* Chinese or Japanese may have no zero bytes in it */
        return (guess = guess_wide(s, 2)) ? guess : "binary";
    if (high == 0)
        return NULL;
    if (is_shift_jis(s))
        return "SHIFT_JIS";
    if (read_pairs(s, &d)) {
        if (d.low_trail == 0 && d.kana * 5 >= d.pairs)
            return "EUC-JP";
        if (d.low_trail == 0 && d.hangul * 10 >= d.pairs * 8 && memchr(s.data, ' ', s.size) &&
            d.punctuation * 20 < d.pairs)
            return "EUC-KR";
        if ((d.common + d.punctuation) * 10 >= d.pairs * 7)
            return "GB18030";
    }
    if (is_big5(s))
        return "BIG5";
    guess = guess_wide(s, 2);
    return guess ? guess : guess_single(s);
}

const char *encoding_magic(struct span head)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *what;
    } kinds[] = {
        { "%PDF-", 5, "a PDF file (pdftotext makes text of it)" },
        { "PK\3\4", 4, "a ZIP archive, or a document in one (docx, xlsx, odt, epub)" },
        { "\x1f\x8b", 2, "compressed by gzip" },
        { "BZh", 3, "compressed by bzip2" },
        { "\xfd"
          "7zXZ",
          5, "compressed by xz" },
        { "\x28\xb5\x2f\xfd", 4, "compressed by zstd" },
        { "\x89PNG", 4, "a PNG image" },
        { "\xff\xd8\xff", 3, "a JPEG image" },
        { "GIF8", 4, "a GIF image" },
        { "\xd0\xcf\x11\xe0", 4, "an old Office document (doc, xls)" },
        { "{\\rtf", 5, "an RTF document" },
        { "\x7f"
          "ELF",
          4, "a program" },
        { "SQLite format 3", 15, "an SQLite database" },
    };

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (head.size >= kinds[i].size && !memcmp(head.data, kinds[i].bytes, kinds[i].size))
            return kinds[i].what;
    return NULL;
}

/* Characters of more than one byte that are well-formed: a text in another encoding has hardly any by chance.
 */
static size_t count_whole(struct span s, size_t *faults)
{
    size_t whole = 0;

    *faults = 0;
    for (size_t i = 0; i < s.size;) {
        uint32_t c;
        bool partial;
        size_t n = unicode_read(s.data + i, s.size - i, &c, &partial);

        if (n == 0 && partial)
            break;
        *faults += n == 0;
        whole += n > 1;
        i += n ? n : 1;
    }
    return whole;
}

bool encoding_refuse(struct span head, struct span near, uint64_t offset, struct span fault, struct err *err)
{
    const char *kind = encoding_magic(head), *guess;
    size_t faults, whole;

    if (kind)
        return err_set(err, ERR_INPUT, "not text: it is %s", kind);
    guess = encoding_guess(head);
    if (!guess && head.data != near.data)
        guess = encoding_guess(near); /* plain ASCII at the start, as long as the sample is */
    whole = count_whole(near, &faults);
    if (fault.size && fault.data[0] == 0 && (!guess || strncmp(guess, "UTF-", 4) != 0))
        return err_set(err, ERR_INPUT, "not text: it is binary (a NUL byte at byte %llu)",
                       (unsigned long long)offset);
    if (guess && !strcmp(guess, "binary"))
        return err_set(err, ERR_INPUT, "not text: it is binary (byte %llu is no UTF-8)",
                       (unsigned long long)offset);
    if (whole > faults && (!guess || strncmp(guess, "UTF-", 4) != 0))
        return err_set(err, ERR_INPUT,
                       "not UTF-8 at byte %llu (0x%02X), though most of it is; `iconv -f UTF-8 -t UTF-8 -c` "
                       "leaves such bytes out",
                       (unsigned long long)offset, fault.size ? fault.data[0] : 0);
    if (guess)
        return err_set(err, ERR_INPUT,
                       "not UTF-8 at byte %llu: it looks like %s; convert it: iconv -f %s -t UTF-8",
                       (unsigned long long)offset, guess, guess);
    return err_set(err, ERR_INPUT, "not UTF-8 at byte %llu (0x%02X), and no known encoding",
                   (unsigned long long)offset, fault.size ? fault.data[0] : 0);
}
